// NAMO-D: Muon with one adaptive learning rate per column, that is per input feature.
//
//   U = Nesterov(G)       O = NS5(U)       v_j <- 0.99 v_j + 0.01 ||G_:j||^2       d_j = ||U_:j|| / (sqrt(v_j) + 1e-8)
//   d_j kept in [c d', d' / c], d' = mean d       a_j = lr sqrt(1 - 0.99^t) / (1 - 0.95^t) d_j
//   W_:j <- max(0, 1 - decay min(a_j, 1)) W_:j - min(0.2 sqrt(max(m, n)) a_j, 1) O_:j
//
// NAMO (arXiv 2602.17080); follows minxin-zhg/namo: lr 0.01, decay 0.1, c = 0.75 (the class; its configurations have
// 0.01 to 0.9). c = 1 gives all columns the mean of their ratios, which is not NAMO's ratio of norms.
//   namo_d_paper   as third parties read the paper: no Nesterov, no shape factor, no clamps at 1
//
// State: 1 scalar per parameter, 1 per column and 2 per matrix. FLOPs: Muon's and 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/clamped_decay.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/adaptive_rate.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct namo_d_defaults {
  static constexpr double lr = 0.01;
  static void set(clamped_decay& c) { c.decay = 0.1; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};
struct namo_d_official_defaults : namo_d_defaults {
  using namo_d_defaults::set;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
};

using namo_d = rule<column_rate<>, newton_schulz<>, no_normalizer, clamped_decay, match_rms, namo_d_official_defaults>;
using namo_d_paper =
    rule<column_rate<ema>, newton_schulz<>, no_normalizer, decoupled_decay, unit_scale, namo_d_defaults>;

MATOPT_COMPILED_RULE(namo_d)
MATOPT_COMPILED_RULE(namo_d_paper)

}  // namespace MATOPT_NAMESPACE
