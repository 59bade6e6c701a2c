// NAdamW: AdamW with a Nesterov look ahead.
//
//   m, v <- means of G, G^2       n = beta1 m / (1 - beta1^(t+1)) + (1 - beta1) G / (1 - beta1^t)
//   W <- (1 - lr decay) W - lr n / (sqrt(v^) + eps)
//
// Dozat: Incorporating Nesterov Momentum into Adam (2016), in the form of optax.adamw(nesterov=True), the companion of
// optax_muon: betas 0.9 and 0.999, eps 1e-8, no decay. optax requires a rate; lr 1e-3 is adamw's. State: 2 scalars per
// parameter and 2 per matrix. FLOPs: 19 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/adam_direction.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct nadamw_defaults {
  static constexpr double lr = 1e-3;
  static void set(adam_direction& m) { m.nesterov = true; }
};

using nadamw = rule<adam_direction, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale, nadamw_defaults>;

MATOPT_COMPILED_RULE(nadamw)

}  // namespace MATOPT_NAMESPACE
