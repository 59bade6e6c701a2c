// KL-Shampoo: momentum preconditioned by Kronecker factors that whiten each other, in their eigenbases.
//
//   u = Ql (m' / sqrt(el er)) Qr^T,  m' = Ql^T m Qr, m the mean of gradients
//   W <- W - lr u       W <- (1 - lr decay) W       factors, bases and e: kl_direction.hpp
//
// Lin et al. (arXiv 2509.03378); follows yorkerlin/KL-Methods: lr 1e-4, beta1 0.9, factors 0.98, decay 0.01 after the
// step, bases renewed every 10 steps. The first step only measures: weights stay. State: 1 scalar per parameter, 2 (m^2
// + n^2) + m + n + 1 per matrix. Needs: svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decay_after.hpp"
#include "policy/momentum/kl_direction.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct kl_shampoo_defaults {
  static constexpr double lr = 1e-4;
  static void set(decay_after& c) { c.decay = 0.01; }
};

using kl_shampoo =
    rule<kl_shampoo_direction, no_orthogonalizer, no_normalizer, decay_after, unit_scale, kl_shampoo_defaults>;

MATOPT_COMPILED_RULE(kl_shampoo)

}  // namespace MATOPT_NAMESPACE
