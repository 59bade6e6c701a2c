// Caps of all singular values at once by odd matrix polynomials, after the inner step: no decomposition.
//
//   soft_cap   W <- p2(p1(W)),  p1(x) = x - a x^3,  p2(x) = x + a x^3          maps [0, k] into [0, most]
//              most = spectral_max
//              k = max(most, most (1 - lr decay) + lr scale update_norm), what a step can make of most
//              a = z / k^2,  (1 - z) + z (1 - z)^3 = most / k,  z in [0, 1];  a = 0 if k = most
//   hard_cap   W <- most f(W / most), f = four quintics, about min(1, x)
//
// From Training Transformers with Enforced Lipschitz Bounds (arXiv 2507.13338; Cesista's quintics). The root in z is
// the paper's quartic in a. Its left side falls from 1 to 0 on [0, 1]: 60 bisections per matrix, in a 1 x 1 formula.
//
// Outside [0, k], or [0, 3 most] for hard_cap, a polynomial throws singular values out. So a weight that the estimate
// finds above that (loaded, or begun so) is first divided down to it, and is at its bound after one step. p2(p1) rises
// on [0, k] for k <= 1.306 most; a step that makes more than that of most leaves singular values above most. The
// quintics are rough: f(.1) = .095, f(.5) = .498, f(1) = .966, f(3) = 1.001.
//
// cap_update_norm is ||u||_2 at most: 1 for an exact polar factor; the authors take 1.14502 * 1.05 for a quintic
// Newton-Schulz. cap_decay is the inner constraint's decay, or 0, which only makes k larger. spectral_most counts in
// units of sqrt(fan_out / fan_in) unless spectral_relative is off.
//
// State: the estimate's. FLOPs: 8 m^2 n (soft), 8 m^2 (2n + m) (hard), m <= n. Needs: gemm.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <utility>

#include "../orthogonalizer/coefficients.hpp"
#include "spectral_normalize.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// a from k, the bound before the cap, and what brings a larger sigma to k; all in units of the cap's own
struct soft_cap_coefficient {
  double most, decay, update;
  template <class T>
  MATOPT_HD void operator()(T& a, T& shrink, T sigma, T lr) const {
    const T step = T(most) * math::max(T(0), T(1) - lr * T(decay)) + lr * T(update);
    const T k = math::max(T(most), step), t = T(most) / k;
    T low = T(0), high = T(1);
    for (int i = 0; i < 60; ++i) {
      const T z = (low + high) / T(2), r = T(1) - z;
      (r + z * r * r * r > t ? low : high) = z;
    }
    a = k > T(most) ? (low + high) / T(2) / (k * k) : T(0);
    shrink = sigma > k ? k / sigma : T(1);
  }
};
// y = x t / c
struct shrunk_over_constant {
  double c;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T t) const {
    y = x * t / T(c);
  }
};
// y = x / c
struct over_constant {
  double c;
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = x / T(c);
  }
};
// y = c x
struct times_constant {
  double c;
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = T(c) * x;
  }
};
// x = x + c a y
struct add_multiple {
  double c;
  template <class T>
  MATOPT_HD void operator()(T& x, T y, T a) const {
    x += T(c) * a * y;
  }
};
// y = x / max(s, low), for s > low scaled to `low` otherwise divided by c: x in units of c, at most `low / c`
struct over_constant_below {
  double c, low;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s) const {
    y = s > T(low) ? x / s * T(low / c) : x / T(c);
  }
};
}  // namespace fn

template <norm_estimate Estimate = power_iteration>
struct soft_cap {
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;

  Estimate estimate{};
  double most = 1;
  bool relative = true;
  double update_norm = 1.14502 * 1.05;
  double decay = 0;

  static std::string name() { return "soft_cap<" + Estimate::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Estimate>) Estimate::settings(self.estimate, visit);
    visit("spectral_most", self.most, range{.low = 0, .low_open = true});
    visit("spectral_relative", self.relative);
    visit("cap_update_norm", self.update_norm, range{.low = 0});
    visit("cap_decay", self.decay, range{.low = 0});
  }
  template <class S, class C>
  using state = state_for<Estimate, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(estimate, l, s);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C> lr, double scale) const {
    const auto frame = e.frame();
    const double unit = detail::spectral_unit(relative, w.rows, w.cols);
    const auto top = detail::take_triple(e, w);
    estimate.estimate(e, s, w, top);
    const view<C> whole = e.take_like(w), a = e.take(1, 1), shrink = e.take(1, 1);
    e.for_each(fn::over_constant{unit}, top.value, as_const(top.value));
    e.for_each(fn::soft_cap_coefficient{most, decay, scale * update_norm / unit}, a, shrink, as_const(top.value), lr);
    e.for_each(fn::shrunk_over_constant{unit}, whole, as_const(w), per_matrix(shrink));
    const view<C> x = whole.rows > whole.cols ? whole.t() : whole, cube = e.take_like(x), gram = e.take(x.rows, x.rows);
    for (const double sign : {-1.0, 1.0}) {
      e.gemm_symmetric(C(1), x, x.t(), C(0), gram, gram, factor_entries::bounded);  // x is at most k, near 1
      e.gemm(C(1), gram, x, C(0), cube, cube, factor_entries::bounded);
      e.for_each(fn::add_multiple{sign}, x, as_const(cube), per_matrix(a));
    }
    e.for_each(fn::times_constant{unit}, w, as_const(whole));
  }
};

template <norm_estimate Estimate = power_iteration>
struct hard_cap {
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;
  static constexpr std::array quintics{
      odd_polynomial{.805032, .206361, -.019763}, odd_polynomial{.649867, .162935, -.011150},
      odd_polynomial{1.810259, -.200265, .008251}, odd_polynomial{1.004384, -.183490, .014413}};

  Estimate estimate{};
  double most = 1;
  bool relative = true;

  static std::string name() { return "hard_cap<" + Estimate::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Estimate>) Estimate::settings(self.estimate, visit);
    visit("spectral_most", self.most, range{.low = 0, .low_open = true});
    visit("spectral_relative", self.relative);
  }
  template <class S, class C>
  using state = state_for<Estimate, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(estimate, l, s);
  }
  template <class E, class St, class W, class Rate>
  void after(E& e, St& s, view<W> w, Rate, double) const {
    using C = typename E::compute;
    const auto frame = e.frame();
    const double bound = most * detail::spectral_unit(relative, w.rows, w.cols);
    const auto top = detail::take_triple(e, w);
    estimate.estimate(e, s, w, top);
    view<C> x = e.take_like(w);
    e.for_each(fn::over_constant_below{bound, 3 * bound}, x, as_const(w), per_matrix(top.value));
    const bool tall = x.rows > x.cols;
    if (tall) x = x.t();
    view<C> y = e.take_like(x);
    const view<C> gram = e.take(x.rows, x.rows), poly = e.take(x.rows, x.rows);
    for (const odd_polynomial q : quintics) {
      e.gemm_symmetric(C(1), x, x.t(), C(0), gram, gram, factor_entries::bounded);  // x is at most 3
      e.gemm_symmetric(C(q.c), gram, gram, C(q.b), gram, poly, factor_entries::bounded);
      e.gemm(C(1), poly, x, C(q.a), x, y, factor_entries::bounded);
      std::swap(x, y);
    }
    e.for_each(fn::times_constant{bound}, w, as_const(tall ? x.t() : x));
  }
};

}  // namespace MATOPT_NAMESPACE
