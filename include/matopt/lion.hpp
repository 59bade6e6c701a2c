// Lion: the sign of an interpolated momentum.
//
//   u = sign(0.9 m + 0.1 G)       m <- 0.99 m + 0.01 G       W <- (1 - lr decay) W - lr u          Alg. 2
//
// Chen et al.: Symbolic Discovery of Optimization Algorithms (arXiv 2302.06675); follows google/automl: lr 1e-4, no
// decay. Take a rate 3 to 10 times smaller and a decay as much larger than AdamW's; betas 0.95 and 0.98 for language
// models. With decay it solves the problem under |W_ij| <= 1 / decay (lion_k.hpp). State: 1 scalar per parameter.
// FLOPs: 10 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/lion_momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/sign_direction.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct lion_defaults {
  static constexpr double lr = 1e-4;
};

using lion = rule<lion_momentum, sign_direction, no_normalizer, decoupled_decay, unit_scale, lion_defaults>;

MATOPT_COMPILED_RULE(lion)

}  // namespace MATOPT_NAMESPACE
