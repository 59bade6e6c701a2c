// Caps of all singular values at once by odd matrix polynomials, after the inner step: no decomposition.
//
//   soft_cap   W <- p2(p1(W)),  p1(x) = x - a x^3,  p2(x) = x + a x^3          maps [0, k] into [0, most]
//              most = spectral_max
//              k = max(most, most (1 - lr decay) + lr scale update_norm), what a step can make of most
//              a = z / k^2,  (1 - z) + z (1 - z)^3 = most / k,  z in [0, 1];  a = 0 if k = most
//   hard_cap   W <- most f(W / most), f = four quintics, about min(1, x)
//
// soft_cap, and hard_cap where products are narrower than the arithmetic and sigma_1 <= 1.19 most, keep W and add a
// correction of products. That may have the rounding of its own size: in 16 bits on a GPU, as the update itself. With
// X = W / k, or W / most, and R = X X^T:
//
//   soft_cap   W <- W - k z^2 R^2 (3 I - 3 z R + z^2 R^2) X                       p2(p1(x)) = x - x (3t^2 - 3t^3 + t^4)
//   hard_cap   W <- A W + most e(R) X                    A: the product of the quintics' first coefficients
//
// There hard_cap has X and R from the products of the estimate by powers: X = W / ||W||_F, and R in proportion.
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
// State: the estimate's. FLOPs: 4 m^2 (n + m) (soft), 8 m^2 (2n + m) (hard; the correction: 4 m^2 n + 10 m^3), m <= n,
// of which symmetric products may save half. Needs: gemm.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <utility>

#include "../detail/gram_polynomial.hpp"
#include "../orthogonalizer/coefficients.hpp"
#include "spectral_normalize.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// The coefficient a, the bound k, and the factor that brings a larger sigma down to k; all in units of the cap.
struct soft_cap_coefficient {
  double most, decay, update;
  template <class T>
  MATOPT_HD void operator()(T& a, T& k, T& shrink, T sigma, T lr) const {
    const T step = T(most) * math::max(T(0), T(1) - lr * T(decay)) + lr * T(update);
    k = math::max(T(most), step);
    const T t = T(most) / k;
    T low = T(0), high = T(1);
    for (int i = 0; i < 60; ++i) {
      const T z = (low + high) / T(2), r = T(1) - z;
      (r + z * r * r * r > t ? low : high) = z;
    }
    a = k > T(most) ? (low + high) / T(2) / (k * k) : T(0);
    shrink = sigma > k ? k / sigma : T(1);
  }
};
// The factor that brings s down to `most` where it is larger.
struct shrink_to {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& shrink, T s) const {
    shrink = s > T(most) ? T(most) / s : T(1);
  }
};
// y = x t / (c k)
struct shrunk_over {
  double c;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T t, T k) const {
    y = x * t / (T(c) * k);
  }
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
// y = z^2 x2 - 3 z x, z = a k^2
struct soft_cap_rest {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T x2, T a, T k) const {
    const T z = a * k * k;
    y = z * (z * x2 - T(3) * x);
  }
};
// w = t w - c k z^2 y, z = a k^2
struct subtract_correction {
  double c;
  template <class T>
  MATOPT_HD void operator()(T& w, T y, T t, T a, T k) const {
    const T z = a * k * k;
    w = t * w - T(c) * k * z * z * y;
  }
};
// x = x (t n / bound)^2 / up
struct gram_of_bounded {
  double bound, up;
  template <class T>
  MATOPT_HD void operator()(T& x, T t, T n) const {
    const T root = t * n / T(bound);
    x *= root * root / T(up);
  }
};
// w = t (first w + n y / c)
struct add_correction {
  double first, c;
  template <class T>
  MATOPT_HD void operator()(T& w, T y, T t, T n) const {
    w = t * (T(first) * w + n / T(c) * y);
  }
};
}  // namespace fn

namespace detail {
template <class T, class E>
view<T> take_square(E& e, view<T> x) {
  return e.template take<T>(x.rows, x.rows);
}
}  // namespace detail

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
    using T = typename E::product;
    const view<C> a = e.take(1, 1), k = e.take(1, 1), shrink = e.take(1, 1);
    e.for_each(fn::over_constant{unit}, top.value, as_const(top.value));
    e.for_each(fn::soft_cap_coefficient{most, decay, scale * update_norm / unit}, a, k, shrink, as_const(top.value),
               lr);
    const view<T> whole = e.template take_like<T>(w), change = e.template take_like<T>(w);
    const bool tall = w.rows > w.cols;
    const view<T> x = tall ? whole.t() : whole, y = tall ? change.t() : change;
    const view<T> r = detail::take_square<T>(e, x), square = detail::take_square<T>(e, x),
                  rest = detail::take_square<T>(e, x);
    constexpr factor_entries of = factor_entries::bounded;  // x is at most 1
    e.for_each(fn::shrunk_over{unit}, whole, as_const(w), per_matrix(shrink), per_matrix(k));
    e.gemm_symmetric(C(1), x, x.t(), C(0), r, r, of);
    e.gemm_symmetric(C(1), r, r.t(), C(0), square, square, of);
    e.for_each(fn::soft_cap_rest{}, rest, as_const(r), as_const(square), per_matrix(a), per_matrix(k));
    e.gemm_symmetric(C(1), square, rest, C(3), square, r, of);
    e.gemm(C(1), r, x, C(0), y, y, of);
    e.for_each(fn::subtract_correction{unit}, w, as_const(change), per_matrix(shrink), per_matrix(a), per_matrix(k));
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
    const view<C> shrink = e.take(1, 1);
    if constexpr (sizeof(typename E::product) < sizeof(C)) {
      const detail::unit_products<E> formed(e, w);
      formed.form(e, w);
      if constexpr (requires { estimate.estimate(e, s, w, top, formed); })
        estimate.estimate(e, s, w, top, formed);
      else
        estimate.estimate(e, s, w, top);
      e.for_each(fn::shrink_to{3 * bound}, shrink, as_const(top.value));
      const view<status_word> close = e.take_words();
      e.reduce(fn::one_if_within{near_range * bound}, close, as_const(top.value));
      E beyond = e.only(close);
      view<C> capped;
      beyond.where_any([&] { capped = by_quintics(beyond, w, shrink, bound); });
      by_one_polynomial(e, w, shrink, bound, formed);
      beyond.for_each(fn::multiple{bound}, w, as_const(capped));
    } else {
      estimate.estimate(e, s, w, top);
      e.for_each(fn::shrink_to{3 * bound}, shrink, as_const(top.value));
      e.for_each(fn::multiple{bound}, w, as_const(by_quintics(e, w, shrink, bound)));
    }
  }

 private:
  static constexpr double near_range = 1.19;
  // e(s) of s = x^2 in [0, 1.44] within 6e-7 of f: least squares at 600 Chebyshev points
  static constexpr double near_coefficients[] = {0.21360019,  -0.11579901, -0.10044354, 0.02001381,
                                                 -0.05126793, 0.07248763,  -0.02607324, 0.00234267};
  static constexpr double first_coefficients() {
    double all = 1;
    for (const odd_polynomial& q : quintics) all *= q.a;
    return all;
  }
  // w <- A w + bound e(R) X,  e(R) = c1 R + R^2 (c2 + c3 R + R^2 (c4 + c5 R + R^2 (c6 + c7 R + c8 R^2)))
  template <class E, class W, class C>
  static void by_one_polynomial(E& e, view<W> w, view<C> shrink, double bound, const detail::unit_products<E>& formed) {
    using T = typename E::product;
    constexpr auto& c = near_coefficients;
    const auto frame = e.frame();
    const view<T> change = e.template take_like<T>(w), x = formed.wide(), y = w.rows > w.cols ? change.t() : change;
    const view<T> r = formed.gram, square = detail::take_square<T>(e, x);
    view<T> sum = detail::take_square<T>(e, x), next = detail::take_square<T>(e, x);
    e.for_each(fn::gram_of_bounded{bound, formed.up}, r, per_matrix(shrink), per_matrix(formed.norm));
    e.gemm_symmetric(C(1), r, r.t(), C(0), square, square);
    e.gemm_symmetric(C(c[7]), r, r.t(), C(c[6]), r, sum);
    for (int i = 5; i > 0; i -= 2, std::swap(sum, next)) {
      e.for_each(fn::shift{c[i]}, sum.diagonal());
      e.gemm_symmetric(C(1), square, sum, C(c[i - 1]), r, next);
    }
    const double up = std::sqrt(formed.up);  // the elements of X / ||X||_F are about 1/m, and what is added is less
    e.gemm(C(up), sum, x, C(0), y, y);
    e.for_each(fn::add_correction{first_coefficients(), up}, w, as_const(change), per_matrix(shrink),
               per_matrix(formed.norm));
  }
  // f(w / bound), in scratch.
  template <class E, class W, class C>
  static view<C> by_quintics(E& e, view<W> w, view<C> shrink, double bound) {
    constexpr factor_entries of = factor_entries::bounded;  // x is at most 3
    const view<C> whole = e.take_like(w);
    e.for_each(fn::shrunk_over{bound}, whole, as_const(w), per_matrix(shrink));
    const bool tall = w.rows > w.cols;
    view<C> x = tall ? whole.t() : whole, y = e.take_like(x);
    const view<C> gram = e.take(x.rows, x.rows), poly = e.take(x.rows, x.rows);
    for (const odd_polynomial q : quintics) {
      e.gemm_symmetric(C(1), x, x.t(), C(0), gram, gram, of);
      e.gemm_symmetric(C(q.c), gram, gram.t(), C(q.b), gram, poly, of);
      e.gemm(C(1), poly, x, C(q.a), x, y, of);
      std::swap(x, y);
    }
    return tall ? x.t() : x;
  }
};

}  // namespace MATOPT_NAMESPACE
