// Schedules of a setting: its value as a function of the number of the step, t, which counts from 0.
//
//   linear(a, b, n)              a at t = 0, b from t = n on, and a straight line between
//   piecewise_linear({{t0, a}, {t1, b}, ...})
//                                a up to t0, straight lines from point to point, then the last value
//   piecewise_linear::over(total, {{0, a}, {0.1, b}, ...})
//                                the same with each step given as a fraction of the training's `total` steps
//
//   opt.schedule("momentum", linear(0.85, 0.95, 300));
//
// Any function of a step serves as well: opt.schedule("decay", [&](index_t t) { return 0.1 * rate.factor(t); }).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "../../core/policy.hpp"
#include "fraction.hpp"

namespace MATOPT_NAMESPACE {

class piecewise_linear {
 public:
  using point = std::pair<index_t, double>;

  explicit piecewise_linear(std::vector<point> points) : points_(std::move(points)) {
    if (points_.empty()) throw bad_value("points of a schedule", "none", "at least one");
    for (std::size_t i = 1; i < points_.size(); ++i)
      if (points_[i].first <= points_[i - 1].first)
        throw bad_value("points of a schedule", std::to_string(points_[i].first), "steps that increase");
  }
  // Throws bad_value for a fraction outside [0, 1], and for two that are the same step of the training.
  static piecewise_linear over(index_t total, const std::vector<std::pair<double, double>>& points) {
    std::vector<point> at;
    for (const auto& [fraction, value] : points) {
      at.emplace_back(detail::step_at(total, fraction), value);
      if (at.size() > 1 && at.back().first <= at[at.size() - 2].first)
        throw bad_value("points of a schedule", detail::text(fraction),
                        "fractions that increase, by at least one step of " + detail::text(total));
    }
    return piecewise_linear(std::move(at));
  }
  double operator()(index_t t) const {
    if (t <= points_.front().first) return points_.front().second;
    for (std::size_t i = 1; i < points_.size(); ++i) {
      const auto& [from, a] = points_[i - 1];
      const auto& [to, b] = points_[i];
      if (t < to) return a + (b - a) * (static_cast<double>(t - from) / static_cast<double>(to - from));
    }
    return points_.back().second;
  }

 private:
  std::vector<point> points_;
};

inline piecewise_linear linear(double from, double to, index_t steps) {
  if (steps < 1) throw bad_value("steps of a schedule", std::to_string(steps), ">= 1");
  return piecewise_linear({{0, from}, {steps, to}});
}

}  // namespace MATOPT_NAMESPACE
