// Lion-K: what problem a rule with decay solves.
//
//   W <- (1 - lr decay) W - lr s u,  u of norm at most 1     solves  minimise F(W) subject to ||W|| <= s / decay
//
// in the norm whose dual ball the direction u comes from: the spectral norm for polar factors, the largest entry for
// signs, the longest row for normalised rows. Chen, Li, Liu: Lion-K (arXiv 2506.15054). While lr decay <= 1, the excess
// of ||W|| over the radius shrinks by 1 - lr decay per step, and a weight inside stays there. Newton-Schulz with
// Keller's coefficients overshoots: its directions have norms up to 1.21, so the ball is that much larger.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <limits>

#include "policy/constraint/decoupled_decay.hpp"
#include "policy/constraint/frank_wolfe.hpp"

namespace MATOPT_NAMESPACE {

// s / decay for a rule with decoupled decay, or radius s under Frank-Wolfe; infinite without decay. Other constraints
// do not compile.
template <class Rule>
requires std::same_as<typename Rule::constraint_type, decoupled_decay> ||
    std::same_as<typename Rule::constraint_type, frank_wolfe>
double feasible_radius(const Rule& rule, index_t fan_out, index_t fan_in) {
  const double scale = rule.scale.factor(fan_out, fan_in), unbounded = std::numeric_limits<double>::infinity();
  if constexpr (requires { rule.constraint.radius; })
    return rule.constraint.constrained ? rule.constraint.radius * scale : unbounded;
  else
    return rule.constraint.decay > 0 ? scale / rule.constraint.decay : unbounded;
}

// <G, W> decay / s + ||G||_dual: the Frank-Wolfe gap over that ball in units of its radius. Not negative for a feasible
// W, and zero exactly where W satisfies the first-order conditions (our derivation): a stopping test. `dual_norm` is
// that of the gradient, its nuclear norm for the spectral ball.
inline double frank_wolfe_gap(double dual_norm, double gradient_times_weight, double radius) {
  return dual_norm + gradient_times_weight / radius;
}

}  // namespace MATOPT_NAMESPACE
