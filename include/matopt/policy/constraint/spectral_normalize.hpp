// Bounds on the spectral norm that act through its estimate, after the inner step. (sigma, u, v): leading triple of W.
//
//   spectral_normalize   W <- W / max(1, sigma / max)             scales all singular values
//   spectral_hammer      W <- W + (max - sigma) u v^T             sets the largest; raises it, too
//   spectral_decay       W <- W - strength sigma u v^T            decays the largest; strength = lr spectral_decay
//
// From Training Transformers with Enforced Lipschitz Bounds (arXiv 2507.13338). spectral_most counts in units of
// sqrt(fan_out / fan_in) unless spectral_relative is off. The paper's decay is a number per step; here it follows lr,
// as every decay does (spectral_decay_times_lr). State, FLOPs, accuracy: those of the estimate (spectral_norm.hpp), and
// 4 per parameter. Several equal largest singular values: the hammer and the decay meet one of them per step.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "spectral_norm.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// x = x / max(1, s / most)
struct normalize_above {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& x, T s) const {
    const T shrinks = math::one_if<T>(s > T(most)), stays = T(1) - shrinks;
    x = x / (shrinks * s + stays) * (shrinks * T(most) + stays);
  }
};
// w = w + (most - s) u v, of a matrix that has a direction
struct set_largest {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T v, T s) const {
    w += (T(most) - s) * u * v;
  }
};
// w = w - (fixed + by_lr lr) s u v
struct decay_largest {
  double fixed, by_lr;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T v, T s, T lr) const {
    w -= (T(fixed) + T(by_lr) * lr) * s * u * v;
  }
};
}  // namespace fn

namespace detail {
// What 1 means for the spectral norm of a rows x cols weight.
inline double spectral_unit(bool relative, index_t rows, index_t cols) {
  return relative ? std::sqrt(static_cast<double>(rows) / static_cast<double>(cols)) : 1;
}
}  // namespace detail

template <norm_estimate Estimate = power_iteration>
struct spectral_normalize {
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;

  Estimate estimate{};
  double most = 1;
  bool relative = true;

  static std::string name() { return "spectral_normalize<" + Estimate::name() + ">"; }
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
    const auto frame = e.frame();
    const auto top = detail::take_triple(e, w);
    estimate.estimate(e, s, w, top);
    e.for_each(fn::normalize_above{most * detail::spectral_unit(relative, w.rows, w.cols)}, w, per_matrix(top.value));
  }
};

template <norm_estimate Estimate = power_iteration>
struct spectral_hammer {
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;

  Estimate estimate{};
  double most = 1;
  bool relative = true;

  static std::string name() { return "spectral_hammer<" + Estimate::name() + ">"; }
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
    const auto frame = e.frame();
    const auto top = detail::take_triple(e, w);
    estimate.estimate(e, s, w, top);
    e.for_each(fn::set_largest{most * detail::spectral_unit(relative, w.rows, w.cols)}, w, per_row(top.left),
               per_column(top.right.t()), per_matrix(top.value));
  }
};

template <norm_estimate Estimate = power_iteration>
struct spectral_decay {
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;

  Estimate estimate{};
  double strength = 0.1;
  bool times_lr = true;

  static std::string name() { return "spectral_decay<" + Estimate::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Estimate>) Estimate::settings(self.estimate, visit);
    visit("spectral_decay_strength", self.strength, range{.low = 0});
    visit("spectral_decay_times_lr", self.times_lr);
  }
  template <class S, class C>
  using state = state_for<Estimate, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(estimate, l, s);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C> lr, double) const {
    const auto frame = e.frame();
    const auto top = detail::take_triple(e, w);
    estimate.estimate(e, s, w, top);
    e.for_each(fn::decay_largest{times_lr ? 0 : strength, times_lr ? strength : 0}, w, per_row(top.left),
               per_column(top.right.t()), per_matrix(top.value), lr);
  }
};

}  // namespace MATOPT_NAMESPACE
