// NorMuon: Muon whose neurons move equally fast. Every row of the update is divided by the root of its running mean
// square.
//
//   U = Nesterov(G)       O = NS5(U)       v_i <- 0.95 v_i + 0.05 mean_j O_ij^2       Y = O / (sqrt(v_i) + 1e-10)
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) Y ||O||_F / (||Y||_F + 1e-10)
//
// Li et al.: NorMuon (arXiv 2510.05491, Algorithm 1: normuon_paper). Four forms:
//
//   normuon             zichongli5/NorMuon, above; lr 0.02, no decay
//   normuon_paper       as third parties read the paper: no Nesterov; the update has RMS 0.2, not the norm it had
//   normuon_dion        microsoft/dion: summed momentum without Nesterov, Polar Express (1.02), eps 1e-8, sqrt(m / n),
//                       lr 0.01, decay 0.01
//   normuon_speedrun    modded-nanogpt PR 141: means over columns if m >= n, over rows otherwise
//
// State: 1 scalar per parameter and 1 per row. FLOPs: Muon's and 7 per parameter. For hidden matrices; split fused
// ones.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/neuron_norm.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct normuon_defaults {
  static constexpr double lr = 0.02;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
};
struct normuon_paper_defaults {
  static constexpr double lr = 0.02;
  static void set(neuron_norm& n) { n.restore = restored_size::rms; }
};
struct normuon_dion_defaults {
  static constexpr double lr = 0.01;
  static void set(newton_schulz<>& o) { o.coefficients = coefficient_set::polar_express_1_02, o.eps = 1e-8; }
  static void set(neuron_norm& n) { n.eps = 1e-8, n.floor = norm_floor::max; }
  static void set(decoupled_decay& c) { c.decay = 0.01; }
};
struct normuon_speedrun_defaults : normuon_defaults {
  using normuon_defaults::set;
  static void set(neuron_norm& n) { n.axis = neuron_axis::longer; }
};

using normuon = rule<nesterov_ema, newton_schulz<>, neuron_norm, decoupled_decay, fan_ratio, normuon_defaults>;
using normuon_paper = rule<ema, newton_schulz<>, neuron_norm, decoupled_decay, unit_scale, normuon_paper_defaults>;
using normuon_dion =
    rule<heavy_ball, newton_schulz<>, neuron_norm, decoupled_decay, spectral_ratio, normuon_dion_defaults>;
using normuon_speedrun =
    rule<nesterov_ema, newton_schulz<>, neuron_norm, decoupled_decay, fan_ratio, normuon_speedrun_defaults>;

MATOPT_COMPILED_RULE(normuon)
MATOPT_COMPILED_RULE(normuon_paper)
MATOPT_COMPILED_RULE(normuon_dion)
MATOPT_COMPILED_RULE(normuon_speedrun)

}  // namespace MATOPT_NAMESPACE
