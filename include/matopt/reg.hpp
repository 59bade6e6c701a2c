// REG: momentum, rows and columns scaled to unit norm, the update's RMS set to 0.2 (inferred from the abstract and from
// third parties; the paper was not read).
//
//   M <- 0.95 M + 0.05 G       O = columns(rows(M))       W <- (1 - lr decay) W - lr 0.2 sqrt(m n) O / ||O||_F
//
// REG (arXiv 2510.03691) replaces Muon's matrix sign by a row-and-column scaling. FORMULA INFERRED: there is no
// official code and the paper's equations were not at hand; what was inferred (order, sweeps, the RMS, the mean without
// Nesterov) is a setting or a slot. Read the paper before you quote results of this rule as REG's. lr 1e-3 and decay
// 0.1 are not published figures but Moonlight's. State: 1 scalar per parameter. FLOPs: 14 per parameter, no matrix
// product.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/target_rms.hpp"
#include "policy/orthogonalizer/row_column_scaling.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct reg_defaults {
  static constexpr double lr = 1e-3;
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using reg = rule<ema, row_column_scaling, target_rms, decoupled_decay, unit_scale, reg_defaults>;

MATOPT_COMPILED_RULE(reg)

}  // namespace MATOPT_NAMESPACE
