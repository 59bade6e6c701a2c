// AdamW: the rule for embeddings, heads and vectors, through the same template as every other.
//
//   m, v <- means of G, G^2                                              Algorithm 2, lines 7 and 8
//   W <- (1 - lr decay) W - lr m^ / (sqrt(v^) + eps)                     lines 9, 10 and 12
//
// Loshchilov, Hutter (arXiv 1711.05101). Defaults of PyTorch: betas 0.9 and 0.999, eps 1e-8, lr 1e-3; its decay of 0.01
// is not the default here, because embeddings and vectors usually have none. Where eps sits:
// policy/momentum/adam_direction.hpp. State: 2 scalars per parameter and 2 per matrix. FLOPs: 16 per parameter. Any
// shape.
//
//   matopt::optimizer<matopt::adamw, matopt::eigen_backend> opt(cpu, {.momentum = {.beta2 = 0.95}});
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

struct adamw_defaults {
  static constexpr double lr = 1e-3;
};

using adamw = rule<adam_direction, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale, adamw_defaults>;

MATOPT_COMPILED_RULE(adamw)

}  // namespace MATOPT_NAMESPACE
