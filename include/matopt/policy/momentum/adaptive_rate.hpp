// NAMO's learning rates: Adam's quotient of the first moment and the root of the second, but of norms: one per matrix,
// or one per column.
//
//   u = Inner(G)       b = lr sqrt(1 - mu2^t) / (1 - beta^t + 1e-12), beta the (first) beta of Inner
//   norm_rate      r^2 <- mu2 r^2 + (1 - mu2) ||G||_F^2          rate   = b ||u||_F / (r + eps)
//   column_rate    r_j^2 <- mu2 r_j^2 + (1 - mu2) ||G_:j||^2     d_j    = ||u_:j|| / (r_j + eps)
//                  d_j kept in [c d', d' / c], d' = mean d      rate_j = b d_j
//
// NAMO and NAMO-D (arXiv 2602.17080); follows the official code, with Nesterov: its ||u|| is the Nesterov direction's,
// but the correction is Adam's, so the first rate is (1 + beta) lr. The paper has no Nesterov (`ema`). A column is an
// input feature. c = 0 turns the clamp off; c = 1 gives every column the mean. The rate replaces lr in the constraint,
// decay included. r itself is kept, because its square would overflow or vanish: gradients of 1e20 and, with a smaller
// eps, of 1e-30 give the same rates as gradients of 1. State: Inner's, 1 scalar per matrix or column, and 2 per matrix.
// FLOPs: 4 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>
#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "adam_direction.hpp"
#include "mars.hpp"
#include "momentum.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// r^2 <- beta r^2 + (1 - beta) n^2, without squares of either
struct root_mean_square {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& r, T n) const {
    const T before = math::sqrt(T(beta)) * r, now = math::sqrt(T(1 - beta)) * n;
    const T larger = math::max(before, now), smaller = math::min(before, now);
    const T ratio = math::divide_or_zero(smaller, larger);
    r = larger * math::sqrt(T(1) + ratio * ratio);
  }
};
struct norm_over_root {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& d, T r) const {
    d = d / (r + T(eps));
  }
};
// d into [c d', d' / c], d' = sum / count
struct clamp_to_mean {
  double c, count;
  template <class T>
  MATOPT_HD void operator()(T& d, T sum) const {
    // Where the mean is 0 or not finite, d stays as it is: the lower bound is then 0, the upper one infinite or NaN.
    const T mean = sum / T(count), inverse = math::divide_or_zero(T(1), mean);
    const T is_mean = math::one_if_positive(inverse);
    d = math::min(math::max(d, T(c) * math::min(mean, std::numeric_limits<T>::max()) * is_mean),
                  mean / (T(c) * is_mean));
  }
};
struct adapted_rate {
  template <class T>
  MATOPT_HD void operator()(T& d, T lr, T c1, T c2) const {
    d = lr * math::sqrt(c2) / (c1 + T(1e-12)) * d;
  }
};
}  // namespace fn

template <bool ByColumn, class Inner = nesterov_ema>
requires(!rates_by_column<Inner>) struct adaptive_rate {
  using decorates = Inner;
  static constexpr bool rates_by_column = ByColumn;

  Inner inner{};
  double mu2 = 0.99, eps = 1e-8;
  double clamp = 0.75;  // c; only column_rate

  static std::string name() { return (ByColumn ? "column_rate<" : "norm_rate<") + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    Inner::settings(self.inner, visit);
    visit("mu2", self.mu2, range{.low = 0, .high = 1, .high_open = true});
    visit("rate_eps", self.eps, range{.low = 0, .low_open = true});
    if constexpr (ByColumn) visit("clamp", self.clamp, range{.low = 0, .high = 1});
  }

  template <class S, class C>
  struct state {
    view<C> r, c1, c2;
    view<C> rate;  // scratch, from accumulate to the end of the step
    state_for<Inner, S, C> inner;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.r = ByColumn ? l.columns("column_root_mean_square") : l.scalar("norm_root_mean_square");
    s.c1 = l.scalar("rate_first_correction"), s.c2 = l.scalar("rate_second_correction");
    lay_out(inner, l, s.inner);
  }

  template <class E, class St, class G, class U>
  void accumulate(E& e, St& s, const G& g, view<U> u) const {
    const view<U> rate = s.rate = e.take(1, s.r.cols);
    const auto frame = e.frame();
    norms(e, rate, as_const(g));
    e.for_each(fn::root_mean_square{mu2}, s.r, as_const(rate));
    e.for_each(fn::bias_corrections{detail::first_beta(inner), mu2}, s.c1, s.c2);
    detail::accumulate_all(inner, e, s.inner, g, u);

    norms(e, rate, u);
    e.for_each(fn::norm_over_root{eps}, rate, as_const(s.r));
    if constexpr (ByColumn)
      if (clamp > 0) {
        const view<U> sum = e.take(1, 1);
        e.reduce(fn::identity{}, sum, as_const(rate));
        e.for_each(fn::clamp_to_mean{clamp, static_cast<double>(rate.cols)}, rate, per_matrix(sum));
      }
    e.for_each(fn::adapted_rate{}, rate, detail::rate(inner, e, s.inner), per_matrix(s.c1), per_matrix(s.c2));
  }
  template <class E, class St>
  auto rate(E&, St& s) const {
    if constexpr (ByColumn)
      return per_column(s.rate);
    else
      return per_matrix(s.rate);
  }

 private:
  template <class E, class C, class V>
  static void norms(E& e, view<C> out, V u) {
    if constexpr (ByColumn) {
      detail::row_norms(e, out.t(), u.t());  // the rows of the transpose are the columns
    } else {
      const auto norm = detail::frobenius(e, u);
      e.for_each(fn::scaled_root{}, out, as_const(norm.scale), as_const(norm.squares));
    }
  }
};

template <class Inner = nesterov_ema>
using norm_rate = adaptive_rate<false, Inner>;
template <class Inner = nesterov_ema>
using column_rate = adaptive_rate<true, Inner>;

}  // namespace MATOPT_NAMESPACE
