// Muon+: Muon with rows, columns, or one after the other of the update normalised. No state is added.
//
//   M <- 0.95 M + G       U = G + 0.95 M       O = NS5(U)       norm_order: none, row, col, row_col, col_row
//   W <- (1 - lr decay) W - lr sqrt(m / n) O
//
// Muon+ (arXiv 2602.21545); written from its equations, because the official repository has no licence. lr 1e-3, decay
// 0.1; the official default of norm_order is none, its shipped configurations take col_row or row_col with rates of
// 0.005 to 0.1. The scale has no max with 1. The update is larger than Muon's on matrices that are not square
// (line_norm.hpp). The official split of heads is row_blocks here, but each block is scaled by its own shape, and there
// by that of the whole matrix; its split of columns is several views here.
// State: 1 scalar per parameter. FLOPs: Muon's and up to 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/line_norm.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct muon_plus_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using muon_plus =
    rule<nesterov_heavy_ball, newton_schulz<>, line_norm, decoupled_decay, spectral_ratio, muon_plus_defaults>;

MATOPT_COMPILED_RULE(muon_plus)

}  // namespace MATOPT_NAMESPACE
