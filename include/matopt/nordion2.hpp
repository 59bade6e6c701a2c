// NorDion2: Dion2 on rows, each of which is then divided by its running root mean square, as in NorMuon.
//
//   M <- M + G       O = PE5(M_sel)       M_sel <- 0.95 M_sel       v_sel <- 0.95 v_sel + 0.05 mean_j O^2
//   Y = O / (sqrt(v_sel) + 1e-8)       W <- (1 - lr decay) W       W_sel <- W_sel - lr sqrt(m / n) Y ||O||_F / ||Y||_F
//
// nordion2.py of microsoft/dion, which calls it Dion3, too: lr 0.01, decay 0.01. v moves in selected rows only. Where a
// polar factor has rows of length 1, which is so if it is exact and there are no more selected rows than columns, v
// tells rows apart only by how often each was selected. State: 1 scalar per parameter and 1 per row.
// FLOPs: Dion2's and 7 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "dion2.hpp"
#include "policy/normalizer/neuron_norm.hpp"

namespace MATOPT_NAMESPACE {

struct nordion2_defaults : dion2_defaults {
  using dion2_defaults::set;
  static void set(sliced_polar<>& o) { dion2_defaults::set(o), o.axis = slice_axis::rows; }
  static void set(neuron_norm& n) { n.eps = 1e-8, n.floor = norm_floor::max, n.skip_zero = true; }
};

using nordion2 = rule<no_momentum, sliced_polar<>, neuron_norm, decoupled_decay, spectral_ratio, nordion2_defaults>;

MATOPT_COMPILED_RULE(nordion2)

}  // namespace MATOPT_NAMESPACE
