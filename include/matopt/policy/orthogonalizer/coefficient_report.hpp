// What an iteration of odd polynomials does to singular values: into which interval [lo, hi] goes, step by step.
//
//   I_0 = [lo, hi]       I_k = p_k(I_{k-1})
//   sup     the upper end of what (0, hi] comes to
//   slope   p_1'(0) p_2'(0) ...
//
// p is continuous and odd, so that the image of an interval is [least, largest] over its ends and the critical points
// inside, and the image of the image is exact in every step. The slope is what the smallest singular values are
// multiplied by. `ok`: nothing passes 1e30, no value of [lo, hi] comes to zero or changes its sign, none of (0, hi]
// changes its sign, and sup is at most `limit`. Take an hi above 1 where a norm bounds singular values only up to a
// margin, and for numbers of 16 bits.
//
//   const auto report = report_coefficients(rows_of(coefficient_set::you));
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "coefficients.hpp"

namespace MATOPT_NAMESPACE {

struct singular_interval {
  double low, high;
};

struct coefficient_report {
  std::vector<singular_interval> steps;  // after each step, up to the one that passes 1e30
  double sup = 0, slope = 1;
  double largest = 0;  // that (0, hi] comes to in any step
  bool ok = true;
};

namespace detail {

// c_0 + c_1 y + ... of at most five coefficients, at y and its roots in (low, high) where it changes its sign.
struct small_polynomial {
  std::array<double, 5> c{};

  double operator()(double y) const {
    double sum = 0;
    for (std::size_t i = c.size(); i-- > 0;) sum = sum * y + c[i];
    return sum;
  }
  small_polynomial derivative() const {
    small_polynomial d;
    for (std::size_t i = 1; i < c.size(); ++i) d.c[i - 1] = static_cast<double>(i) * c[i];
    return d;
  }
  bool constant() const { return c[1] == 0 && c[2] == 0 && c[3] == 0 && c[4] == 0; }

  struct root_list {
    std::array<double, 4> at{};
    std::size_t count = 0;
  };
  // Between neighbouring roots of the derivative there is at most one, which halving finds to the last bit.
  [[gnu::cold]] root_list roots(double low, double high) const {
    root_list found;
    if (constant()) return found;
    const root_list turns = derivative().roots(low, high);
    double from = low;
    for (std::size_t i = 0; i <= turns.count; ++i) {
      double to = i < turns.count ? turns.at[i] : high;
      const double next = to;
      const bool rises = (*this)(from) < 0;
      if (rises != ((*this)(to) < 0)) {
        for (double middle = from + (to - from) / 2; middle > from && middle < to; middle = from + (to - from) / 2)
          (rises == ((*this)(middle) < 0) ? from : to) = middle;
        if (found.count < found.at.size()) found.at[found.count++] = to;
      }
      from = next;
    }
    return found;
  }
};

inline double value_at(const odd_polynomial& p, double x) {
  const double y = x * x;
  return x * (p.a + y * (p.b + y * (p.c + y * (p.d + y * p.e))));
}
[[gnu::cold]] inline singular_interval image(const odd_polynomial& p, singular_interval of) {
  // p'(x) as a polynomial of x^2. Rows are refused for an interval that reaches below 0, so only critical points above
  // 0 are looked at.
  const small_polynomial slope{{p.a, 3 * p.b, 5 * p.c, 7 * p.d, 9 * p.e}};
  const double first = value_at(p, of.low), last = value_at(p, of.high), low = std::fmax(of.low, 0.0);
  singular_interval out{std::fmin(first, last), std::fmax(first, last)};
  const auto turns = slope.roots(low * low, of.high * of.high);
  for (std::size_t i = 0; i < turns.count; ++i) {
    const double x = std::sqrt(turns.at[i]);
    if (x > of.low && x < of.high)
      out.low = std::fmin(out.low, value_at(p, x)), out.high = std::fmax(out.high, value_at(p, x));
  }
  return out;
}

// The report of rows p(0), p(1), ..., with visit(interval) after each step; allocates nothing.
template <class Rows, class Visit>
coefficient_report walk_coefficients(const Rows& row, index_t steps, double lo, double hi, double limit,
                                     const Visit& visit) {
  constexpr double too_large = 1e30;
  coefficient_report r;
  singular_interval now{lo, hi}, all{0, hi};
  for (index_t i = 0; i < steps; ++i) {
    const odd_polynomial p = row(i);
    now = image(p, now), all = image(p, all);
    r.slope *= p.a;
    visit(now);
    const double size = std::fmax(std::abs(all.low), std::abs(all.high));
    if (!std::isfinite(now.low + now.high + all.low + all.high) || size > too_large) {
      r.ok = false;
      break;
    }
    r.largest = std::fmax(r.largest, size);
    r.ok = r.ok && now.low > 0 && all.low >= 0;
  }
  r.sup = all.high;
  r.ok = r.ok && r.sup <= limit;
  return r;
}

}  // namespace detail

// The report of one row per step. lo and hi are above 0; limit is the most that a singular value may come to.
inline coefficient_report report_coefficients(std::span<const odd_polynomial> rows, double lo = 1e-3, double hi = 1,
                                              double limit = 1.5) {
  std::vector<singular_interval> steps;
  coefficient_report r = detail::walk_coefficients([&](index_t i) { return rows[static_cast<std::size_t>(i)]; },
                                                   static_cast<index_t>(rows.size()), lo, hi, limit,
                                                   [&](const singular_interval& s) { steps.push_back(s); });
  r.steps = std::move(steps);
  return r;
}

}  // namespace MATOPT_NAMESPACE
