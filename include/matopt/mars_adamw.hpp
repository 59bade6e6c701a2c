// MARS-AdamW: AdamW on a variance-reduced gradient.
//
//   c = G + kappa (G - R), kappa = gamma 0.95 / 0.05, to norm 1 if longer             Algorithm 2, lines 4 and 5
//   m, v <- means of c, c^2                                                           lines 6 and 7
//   W <- (1 - lr decay) W - lr m^ / (sqrt(v^) + 1e-8)                                 lines 8 and 9
//
// Yuan et al.: MARS (arXiv 2411.10438); follows AGI-Arena/MARS: betas 0.95 and 0.99, gamma 0.025, lr 3e-3, no decay
// (0.01 in its runs); v is of c, where the README has G.
//   mars_adamw         R is the last gradient
//   mars_adamw_exact   R is handed in: this batch's gradient at the last weights
//
// State: 3 scalars per parameter and 2 per matrix; exact: 2 and 3; amsgrad: 1 per parameter more. FLOPs: 24 per
// parameter. Any shape.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/adam_direction.hpp"
#include "policy/momentum/mars.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct mars_adamw_defaults {
  static constexpr double lr = 3e-3;
  static void set(mars<adam_direction>& m) { m.inner.beta1 = 0.95, m.inner.beta2 = 0.99; }
  static void set(two_gradients<adam_direction>& m) { m.inner.beta1 = 0.95, m.inner.beta2 = 0.99; }
};

using mars_adamw =
    rule<mars<adam_direction>, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale, mars_adamw_defaults>;
using mars_adamw_exact = mars_adamw::with_momentum<two_gradients<adam_direction>>;

MATOPT_COMPILED_RULE(mars_adamw)
MATOPT_COMPILED_RULE(mars_adamw_exact)

}  // namespace MATOPT_NAMESPACE
