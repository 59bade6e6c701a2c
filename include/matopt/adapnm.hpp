// AdaPNM: positive-negative momentum over the root of Adam's second moment.
//
//   d = positive_negative(G)       v <- 0.999 v + 0.001 G^2       v^ = max(v^, v)
//   W <- (1 - lr decay) W - lr / (1 - 0.9^t) d / (sqrt(v^) / sqrt(1 - 0.999^t) + 1e-8)
//
// Xie et al.: PNM (arXiv 2103.17182); follows the official code: lr 1e-3, betas 0.9, 0.999 and 1, amsgrad on. adapnm_l2
// has the decay in the gradient. State: 4 scalars per parameter, 3 without amsgrad, and 3 per matrix. FLOPs: 24 per
// parameter. Any shape.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/coupled_decay.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/positive_negative_adam.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct adapnm_defaults {
  static constexpr double lr = 1e-3;
};

using adapnm =
    rule<positive_negative_adam, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale, adapnm_defaults>;
using adapnm_l2 = adapnm::with_constraint<coupled_decay>;

MATOPT_COMPILED_RULE(adapnm)
MATOPT_COMPILED_RULE(adapnm_l2)

}  // namespace MATOPT_NAMESPACE
