// Rank schedules: the fraction r(t) in (0, 1] of min(rows, cols) that an update may have as rank; t counts from 0.
//
//   fixed_rank      r(t) = fraction
//   piecewise_rank  r(t) = fractions[i] for boundaries[i-1] <= t < boundaries[i]
//   cosine_rank     r(t) = start for t < hold; then end + (start - end)(1 + cos(pi (t - hold) / (total - hold))) / 2;
//                   end from t = total on (the bare cosine would rise again)
//
// NuMuon, arXiv 2603.03597, section 3.4: cosine from 1 to 0.25, held for the first tenth of the training. The paper
// asks that the final rank be reached before the learning rate cools down; total = 0.8 of the steps does that, and so
// does cosine_rank::over(steps).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "../../core/policy.hpp"
#include "fraction.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
inline constexpr range rank_fraction{.low = 0, .high = 1, .low_open = true};
}

struct fixed_rank {
  double rank_fraction = 0.25;

  static std::string name() { return "fixed_rank"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("rank_fraction", self.rank_fraction, detail::rank_fraction);
  }
  double fraction(index_t) const { return rank_fraction; }
};

struct piecewise_rank {
  std::vector<double> boundaries, fractions{0.25};  // one fraction more than boundaries

  static std::string name() { return "piecewise_rank"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("rank_boundaries", self.boundaries, range{.low = 0});
    visit("rank_fractions", self.fractions, detail::rank_fraction);
  }
  void validate() const {
    if (fractions.size() != boundaries.size() + 1)
      throw bad_value("rank_fractions", "a list of " + std::to_string(fractions.size()),
                      "one entry more than rank_boundaries, which has " + std::to_string(boundaries.size()));
    for (std::size_t i = 1; i < boundaries.size(); ++i)
      if (!(boundaries[i - 1] < boundaries[i]))
        throw bad_value("rank_boundaries", detail::text(boundaries), "increasing step numbers");
  }
  double fraction(index_t step) const {
    std::size_t i = 0;
    while (i < boundaries.size() && static_cast<double>(step) >= boundaries[i]) ++i;
    return fractions[i];
  }
};

struct cosine_rank {
  double start = 1, end = 0.25;
  index_t hold = 0, total = 0;  // total: has to be given, unless start and end are the same

  // For a training of so many steps: held for the fraction `hold_to` of it, and at its end from the fraction `end_at` on.
  static cosine_rank over(index_t steps, double hold_to = 0.1, double end_at = 0.8) {
    const index_t end_step = std::max<index_t>(1, detail::step_at(steps, end_at));
    return {.hold = detail::step_at(steps, hold_to, end_at), .total = end_step};
  }

  static std::string name() { return "cosine_rank"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("rank_start", self.start, detail::rank_fraction);
    visit("rank_end", self.end, detail::rank_fraction);
    visit("rank_hold", self.hold, range{.low = 0});
    visit("rank_total", self.total, range{.low = 0});
  }
  void validate() const {
    if (start != end && total < 1)
      throw bad_value("rank_total", detail::text(total),
                      ">= 1, the step from which the rank is rank_end: it has no default (cosine_rank::over(steps) "
                      "takes 0.8 of a training's steps)");
  }
  double fraction(index_t step) const {
    if (step < hold) return start;
    if (step >= total) return end;
    const double p = static_cast<double>(step - hold) / static_cast<double>(total - hold);
    return end + (start - end) * (1 + std::cos(std::numbers::pi * p)) / 2;  // NuMuon, section 3.4: the cosine
  }
};

}  // namespace MATOPT_NAMESPACE
