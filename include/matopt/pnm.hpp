// PNM: descent along positive-negative momentum, a direction with more of the gradient's noise.
//
//   b, a = the buffer written in this step and the other       b <- 0.81 b + 0.19 G
//   W <- (1 - lr decay) W - lr (2 b - a) / sqrt(5)
//
// Xie et al.: PNM (arXiv 2103.17182); follows the official code: betas 0.9 and 1, no bias correction, no decay (5e-4 in
// its CIFAR notebook). The official class requires a rate, and that notebook has 1; lr 0.1 here is not a published
// figure. pnm_l2 has the decay in the gradient. Its code writes into the gradient; here nothing does. State: 2 scalars
// per parameter and 1 per matrix. FLOPs: 12 per parameter. Any shape.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/coupled_decay.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/positive_negative.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct pnm_defaults {
  static constexpr double lr = 0.1;
};

using pnm = rule<positive_negative, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale, pnm_defaults>;
using pnm_l2 = pnm::with_constraint<coupled_decay>;

MATOPT_COMPILED_RULE(pnm)
MATOPT_COMPILED_RULE(pnm_l2)

}  // namespace MATOPT_NAMESPACE
