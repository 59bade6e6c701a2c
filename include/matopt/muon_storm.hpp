// Muon on the STORM estimator (momentum variance reduction), by the equations of STORM; no code or paper that combines
// the two was read.
//
//   M <- G + (1 - alpha) (M - R), M = G in the first step       R: this batch's gradient at the last weights
//                                                               STORM, Algorithm 1
//   W <- (1 - lr decay) W - lr NS5(M)
//
// The common estimator behind Qian et al., Muon is Provably Faster with Momentum Variance Reduction (arXiv 2512.16598),
// whose own three variants were not at hand; written from Cutkosky, Orabona: STORM (arXiv 1905.10018). alpha = 1 -
// momentum. It is Muon-MVR2 at gamma = 1 without clip. alpha 0.05, lr 0.02 and no decay are not published figures.
// State: 1 scalar per parameter and 1 per matrix. FLOPs: Muon's and 8 per parameter, and a second gradient per step.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/mars.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct muon_storm_defaults {
  static constexpr double lr = 0.02;
  static void set(two_gradients<ema>& m) { m.gamma = 1, m.clip = false; }
};

using muon_storm =
    rule<two_gradients<ema>, newton_schulz<>, no_normalizer, decoupled_decay, unit_scale, muon_storm_defaults>;

MATOPT_COMPILED_RULE(muon_storm)

}  // namespace MATOPT_NAMESPACE
