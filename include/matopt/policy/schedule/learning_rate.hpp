// Learning-rate schedules: a factor in [0, 1] of the base rate; t counts from 0 to total - 1. One schedule serves all
// groups.
//
//   constant_rate         min(1, (t + 1) / warmup)
//   cosine_rate           the same warm-up, then floor + (1 - floor)(1 + cos(pi p)) / 2 with
//                         p = (t - warmup) / (total - warmup)
//   warmup_stable_decay   the same warm-up, then 1, then linearly to floor over the last `decay` steps
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
inline double warmup_factor(index_t t, index_t warmup) {
  return warmup > 0 ? std::min(1.0, static_cast<double>(t + 1) / static_cast<double>(warmup)) : 1.0;
}
// 0 at `from`, 1 at `to` and after
inline double progress(index_t t, index_t from, index_t to) {
  return std::clamp(static_cast<double>(t - from) / static_cast<double>(std::max<index_t>(1, to - from)), 0.0, 1.0);
}
}  // namespace detail

struct constant_rate {
  index_t warmup = 0;

  static std::string name() { return "constant"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("warmup", self.warmup, range{.low = 0});
  }
  double factor(index_t t) const { return detail::warmup_factor(t, warmup); }
};

struct cosine_rate {
  index_t warmup = 0, total = 1;
  double floor = 0;

  static std::string name() { return "cosine"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("warmup", self.warmup, range{.low = 0});
    visit("total", self.total, range{.low = 1});
    visit("floor", self.floor, range{.low = 0, .high = 1});
  }
  double factor(index_t t) const {
    if (t < warmup) return detail::warmup_factor(t, warmup);
    return floor + (1 - floor) * (1 + std::cos(std::numbers::pi * detail::progress(t, warmup, total))) / 2;
  }
};

struct warmup_stable_decay {
  index_t warmup = 0, total = 1, decay = 0;
  double floor = 0;

  static std::string name() { return "warmup_stable_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("warmup", self.warmup, range{.low = 0});
    visit("total", self.total, range{.low = 1});
    visit("rate_decay", self.decay, range{.low = 0});
    visit("floor", self.floor, range{.low = 0, .high = 1});
  }
  double factor(index_t t) const {
    const double cooled = t < total - decay ? 0.0 : detail::progress(t, total - decay, total);
    return detail::warmup_factor(t, warmup) * (1 - (1 - floor) * cooled);
  }
};

}  // namespace MATOPT_NAMESPACE
