// Dion: orthonormal updates of low rank, from one power iteration per step with error feedback.
//
//   M <- M + G       P = orth(M Q)       R = M^T P       M <- M - 0.05 P R^T       Q <- columns of R normalised
//   W <- (1 - lr decay) W - lr sqrt(m / n) P Q^T                 Algorithm 1, which has neither decay nor scale
//
// Ahn et al.: Dion (arXiv 2504.05295); follows dion_reference.py of microsoft/dion: lr 0.01, decay 0.01, full rank
// (dion_rank_fraction 1). Equations and differences: dion_polar.hpp. State: 1 scalar per parameter and min(m, n) times
// the rank. FLOPs: 8 mnr and an orthonormalisation of max(m, n) x r, r the rank. Needs: orthonormalize.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/no_momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/dion_polar.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct dion_defaults {
  static constexpr double lr = 0.01;
  static void set(decoupled_decay& c) { c.decay = 0.01; }
};

using dion = rule<no_momentum, dion_polar, no_normalizer, decoupled_decay, spectral_ratio, dion_defaults>;

MATOPT_COMPILED_RULE(dion)

}  // namespace MATOPT_NAMESPACE
