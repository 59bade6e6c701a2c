// Muon-MVR: Muon on a variance-reduced momentum.
//
//   c = G + kappa (G - R), kappa = gamma 0.95 / 0.05, to norm 1 if longer           as MARS Algorithm 1, lines 4 and 5
//   M <- 0.95 M + c                                                                 as line 6, times 1 / 0.05
//   O = NS5(M)       W <- (1 - lr decay) W - lr 0.2 sqrt(max(m, n)) O               as Moonlight eq. 2 and 4
//
// Chang et al.: On the Convergence of Muon and Beyond (arXiv 2509.15816); follows the same author's public code: lr
// 3e-3, gamma 0.025, no decay (its CIFAR file: momentum 0.9, gamma 0.1, lr 0.05, no shape factor).
//   muon_mvr1   R is the last gradient: one gradient per step
//   muon_mvr2   R is handed in: this batch's gradient at the last weights
//   muon_mvr3   R is handed in: the last batch's gradient at these weights
// MVR2 and MVR3 differ only in what the caller computes. R = 0 in the first step. Not the method of arXiv 2512.16598,
// whose equations were not at hand; muon_storm.hpp has the common estimator of that family. State: 2 scalars per
// parameter (muon_mvr1), or 1 and 1 per matrix (the others). FLOPs: Muon's and 8 per parameter; muon_mvr2 and 3 need a
// second gradient per step.
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

struct muon_mvr_defaults {
  static constexpr double lr = 3e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
};

using muon_mvr1 = rule<mars<heavy_ball>, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, muon_mvr_defaults>;
using muon_mvr2 =
    rule<two_gradients<heavy_ball>, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, muon_mvr_defaults>;
using muon_mvr3 = muon_mvr2;

MATOPT_COMPILED_RULE(muon_mvr1)
MATOPT_COMPILED_RULE(muon_mvr2)

}  // namespace MATOPT_NAMESPACE
