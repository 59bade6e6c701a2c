// Positive-negative momentum: two buffers, written in turn, extrapolated from the older past the newer one. The noise
// of the direction grows, and is meant to: the authors aim at flatter minima.
//
//   b = odd buffer in odd steps, even buffer in even ones; the other is a
//   b <- beta1^2 b + (1 - beta1^2) G       u = ((1 + beta0) b - beta0 a) / sqrt((1 + beta0)^2 + beta0^2)
//
// Xie et al.: PNM (arXiv 2103.17182); follows the official code, which corrects no bias. Buffers change roles by a
// parity kept as state, never by copies. State: 2 scalars per parameter. FLOPs: 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct next_parity {  // 1 in odd steps, 0 in even ones
  template <class T>
  MATOPT_HD void operator()(T& p) const {
    p = T(1) - p;
  }
};
struct positive_negative {
  double keep, ahead, back;  // beta1^2; 1 + beta0 and beta0, over the root of the sum of their squares
  positive_negative(double beta1, double beta0) : keep(beta1 * beta1) {
    const double norm = std::hypot(1 + beta0, beta0);
    ahead = (1 + beta0) / norm, back = beta0 / norm;
  }
  template <class T>
  MATOPT_HD void operator()(T& odd, T& even, T& u, T g, T parity) const {
    const T to_odd = math::one_if<T>(parity > T(0)), to_even = T(1) - to_odd;
    odd = (to_odd * T(keep) + to_even) * odd + to_odd * T(1 - keep) * g;
    even = (to_even * T(keep) + to_odd) * even + to_even * T(1 - keep) * g;
    const T positive = to_odd * odd + to_even * even, negative = to_odd * even + to_even * odd;
    u = T(ahead) * positive - T(back) * negative;
  }
};
}  // namespace fn

struct positive_negative {
  double beta1 = 0.9, beta0 = 1;

  static std::string name() { return "positive_negative"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true, .average = 2});
    visit("beta0", self.beta0, range{.low = 0});
  }

  template <class S, class C>
  struct state {
    view<S> odd, even;
    view<C> parity;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.odd = l.matrix("odd_momentum"), s.even = l.matrix("even_momentum"), s.parity = l.scalar("parity");
  }

  template <class E, class St, class G, class U>
  auto accumulate(E& e, St& s, G g, U u) const {
    e.for_each(fn::next_parity{}, s.parity);
    return elementwise(fn::positive_negative{beta1, beta0}, s.odd, s.even, u, g, per_matrix(s.parity));
  }
};

}  // namespace MATOPT_NAMESPACE
