// SOAP: Adam in the slowly renewed eigenbasis of Shampoo's preconditioner.
//
//   g = Ql^T G Qr       m, v <- means of g, g^2                                                  Algorithm 3
//   W <- W - lr sqrt(c2) / c1 Ql (m / (sqrt(v) + eps)) Qr^T                                      from its line 8 on
//   W <- (1 - lr decay) W
//
// Vyas et al.: SOAP (arXiv 2409.11321); follows nikhilvyas/SOAP: lr 3e-3, betas 0.95 and 0.95, decay 0.01 after the
// step, bases renewed every 10 steps. The first step only measures: weights stay. Everything else is in
// soap_direction.hpp. State: 2 scalars per parameter and 2 (m^2 + n^2) + 3 per matrix. Needs: svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decay_after.hpp"
#include "policy/momentum/soap_direction.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct soap_defaults {
  static constexpr double lr = 3e-3;
  static void set(decay_after& c) { c.decay = 0.01; }
};

using soap = rule<soap_direction, no_orthogonalizer, no_normalizer, decay_after, unit_scale, soap_defaults>;

MATOPT_COMPILED_RULE(soap)

}  // namespace MATOPT_NAMESPACE
