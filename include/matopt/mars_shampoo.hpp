// MARS-Shampoo: Muon on a variance-reduced gradient, the form of the MARS paper.
//
//   c = G + kappa (G - R), kappa = gamma 0.95 / 0.05, to norm 1 if longer             Algorithm 4, line 4
//   M <- 0.95 M + c                                                                   line 5, times 1 / 0.05
//   O = NS5(M)                                                                        line 6, eq. 3.21
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) O                                  line 7
//
// Yuan et al.: MARS (arXiv 2411.10438), whose Algorithm 4 neither clips c nor scales by the shape; follows
// AGI-Arena/MARS, which does both: lr 3e-3, gamma 0.025, eps of the norm 1e-8, no decay. The successor is mars_m.
// mars_shampoo_exact takes R from the caller. State: 2 scalars per parameter; exact: 1 and 1 per matrix. FLOPs: Muon's
// and 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/mars.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct mars_shampoo_defaults {
  static constexpr double lr = 3e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-8; }
};

using mars_shampoo =
    rule<mars<heavy_ball>, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, mars_shampoo_defaults>;
using mars_shampoo_exact = mars_shampoo::with_momentum<two_gradients<heavy_ball>>;

MATOPT_COMPILED_RULE(mars_shampoo)
MATOPT_COMPILED_RULE(mars_shampoo_exact)

}  // namespace MATOPT_NAMESPACE
