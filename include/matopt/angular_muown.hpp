// AngularMuown: Muown with unit row directions and an explicit schedule of how fast they turn.
//
//   W = Diag(g) U       U <- normalised rows of (U - lr kappa_t sqrt(max(1, m/n)) NS(momentum))
//   g <- g - lr Adam(d)
//
// Paper: AngularMuown, arXiv 2606.23637; official code fhueb/angular-muown (MIT), which it follows. Equations:
// policy/constraint/row_sphere.hpp. lr 0.04, five Polar Express steps, no decay.
// State: 1 scalar per parameter, 3 per row and 2 per matrix. For hidden matrices only.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/row_sphere.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct angular_muown_defaults {
  static constexpr double lr = 0.04;
  static void set(newton_schulz<>& o) { o.coefficients = coefficient_set::polar_express_angular, o.eps = 1e-7; }
};

using angular_muown =
    rule<nesterov_heavy_ball, newton_schulz<>, no_normalizer, row_sphere<>, fan_ratio, angular_muown_defaults>;

MATOPT_COMPILED_RULE(angular_muown)

}  // namespace MATOPT_NAMESPACE
