// NorMuonH: NorMuon on a sphere: lines of the longer side move equally fast, and the weight keeps its norm.
//
//   O = NS12(Nesterov(G))       v_i <- 0.95 v_i + 0.05 mean_j O_ij^2       D = O / sqrt(max(v_i, 1e-10))
//   X = W - lr R D / ||D||       W <- R X / ||X||       R = ||W_0||
//
// i counts rows, or columns if m < n. A record of the optimizer track of modded-nanogpt, with the settings of muon_h;
// its code reads R again in each step. On a square matrix with an exact polar factor v is the same for all rows. State:
// 1 scalar per parameter, 1 per line of the longer side and 1 per matrix. FLOPs: MuonH's and 7 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "muon_h.hpp"
#include "policy/normalizer/neuron_norm.hpp"

namespace MATOPT_NAMESPACE {

struct normuon_h_defaults : muon_h_defaults {
  using muon_h_defaults::set;
  static void set(neuron_norm& n) { n.axis = neuron_axis::longer, n.root_floor = norm_floor::max; }
};

using normuon_h =
    rule<nesterov_ema, newton_schulz<>, neuron_norm, projected<hyperball>, unit_scale, normuon_h_defaults>;

MATOPT_COMPILED_RULE(normuon_h)

}  // namespace MATOPT_NAMESPACE
