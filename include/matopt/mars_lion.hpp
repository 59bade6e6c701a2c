// MARS-Lion: the sign of a variance-reduced momentum.
//
//   c = G + kappa (G - R), kappa = gamma 0.95 / 0.05, to norm 1 if longer             Algorithm 3, lines 4 and 5
//   m <- 0.95 m + 0.05 c                                                              line 6
//   W <- (1 - lr decay) W - lr sign(m)                                                line 7
//
// Yuan et al.: MARS (arXiv 2411.10438); follows AGI-Arena/MARS: lr 3e-3, gamma 0.025, no decay. It does not have Lion's
// second interpolation. mars_lion_exact takes R from the caller. State: 2 scalars per parameter; exact: 1 and 1 per
// matrix. FLOPs: 14 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/mars.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/sign_direction.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct mars_lion_defaults {
  static constexpr double lr = 3e-3;
};

using mars_lion = rule<mars<ema>, sign_direction, no_normalizer, decoupled_decay, unit_scale, mars_lion_defaults>;
using mars_lion_exact = mars_lion::with_momentum<two_gradients<ema>>;

MATOPT_COMPILED_RULE(mars_lion)
MATOPT_COMPILED_RULE(mars_lion_exact)

}  // namespace MATOPT_NAMESPACE
