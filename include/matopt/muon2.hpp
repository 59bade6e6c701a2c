// Muon^2: the momentum is divided by the root of a running mean square, entry by entry, before it is orthogonalized.
//
//   M <- 0.95 M + 0.05 G       V <- 0.95 V + 0.05 G^2       X = (0.05 G + 0.95 M) / (sqrt(V) + 1e-10)       O = NS12(X)
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) O
//
// Muon^2 (arXiv 2604.09967), in the form of the optimizer track of modded-nanogpt ("MuonSq", by another author):
// Nesterov, eps outside of the root, the set speedrun12, lr 0.1, decay 0.0125. The paper's own equations were not
// available; an account of them has neither Nesterov nor eps outside (moment_eps_place). By that account fewer
// Newton-Schulz steps are enough. State: 2 scalars per parameter. FLOPs: Muon's with twelve steps, and 8 per parameter.
// For hidden matrices.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/moment_scaled.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct muon2_defaults {
  static constexpr double lr = 0.1;
  static void set(newton_schulz<>& o) { o.coefficients = coefficient_set::speedrun12, o.steps = 12, o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.0125; }
};

using muon2 = rule<nesterov_moment_scaled, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, muon2_defaults>;

MATOPT_COMPILED_RULE(muon2)

}  // namespace MATOPT_NAMESPACE
