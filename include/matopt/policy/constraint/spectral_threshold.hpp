// Changes of all singular values by the exact decomposition W = U diag(s) V^T, after the inner step.
//
//   exact_hard_cap           s <- min(s, max)
//   spectral_clipped_decay   s <- (1 - c) s + c min(s, max)         c = min(1, lr clipped_decay)
//   nuclear_prox             s <- max(s - tau, 0)                   tau = lr nuclear_strength
//
// The first two: NVIDIA Emerging-Optimizers (spectral_hardcap, spectral-clipped decay; after Cesista), there by matrix
// signs, here by the decomposition. The third is the prox of tau ||W||_*; nuclear_polar_decay is its cheap form, and is
// reported to do no worse. All subtract U diag(amount) V^T, so a W without anything to cut stays as it is, to the bit.
// "Every k-th step" is not offered for the prox: a constraint runs the same verbs in every step, so a count in
// its state would save nothing. spectral_most counts in units of sqrt(fan_out / fan_in) unless spectral_relative is
// off. State: none. Needs: svd, gemm.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "spectral_normalize.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// u = u c (s - most)+
struct excess_amount {
  double most, fixed, by_lr;
  template <class T>
  MATOPT_HD void operator()(T& u, T s, T lr) const {
    u *= math::min(T(1), T(fixed) + T(by_lr) * lr) * math::max(T(0), s - T(most));
  }
};
// u = u min(s, tau)
struct threshold_amount {
  double strength;
  template <class T>
  MATOPT_HD void operator()(T& u, T s, T lr) const {
    u *= math::min(s, lr * T(strength));
  }
};
// w = w - x
struct take_off {
  template <class T>
  MATOPT_HD void operator()(T& w, T x) const {
    w -= x;
  }
};
}  // namespace fn

namespace detail {
// W <- W - sum amount_i u_i v_i^T; f makes u_i amount_i of (u_i, s_i, lr)
template <class E, class F, class W, class C>
void subtract_spectrum(E& e, F f, view<W> w, matrix_broadcast<C> lr) {
  const auto frame = e.frame();
  const auto [x, largest] = take_scaled(e, w);
  const index_t q = math::min(w.rows, w.cols);
  const view<C> u = e.take(w.rows, q, true), s = e.take(q, 1), v = e.take(w.cols, q, true);
  e.svd(x, u, s, v);
  e.for_each(fn::multiply{}, s, per_matrix(largest));
  e.for_each(f, u, per_column(s.t()), lr);
  e.gemm(C(1), u, v.t(), C(0), x, x);
  e.for_each(fn::take_off{}, w, as_const(x));
}
}  // namespace detail

struct exact_hard_cap {
  static constexpr bool needs_svd = true;

  double most = 1;
  bool relative = true;

  static std::string name() { return "exact_hard_cap"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("spectral_most", self.most, range{.low = 0, .low_open = true});
    visit("spectral_relative", self.relative);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St&, view<W> w, matrix_broadcast<C> lr, double) const {
    detail::subtract_spectrum(e, fn::excess_amount{most * detail::spectral_unit(relative, w.rows, w.cols), 1, 0}, w,
                              lr);
  }
};

struct spectral_clipped_decay {
  static constexpr bool needs_svd = true;

  double decay = 0.1;
  double most = 1;
  bool relative = true;

  static std::string name() { return "spectral_clipped_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("clipped_decay", self.decay, range{.low = 0});
    visit("spectral_most", self.most, range{.low = 0, .low_open = true});
    visit("spectral_relative", self.relative);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St&, view<W> w, matrix_broadcast<C> lr, double) const {
    detail::subtract_spectrum(e, fn::excess_amount{most * detail::spectral_unit(relative, w.rows, w.cols), 0, decay}, w,
                              lr);
  }
};

struct nuclear_prox {
  static constexpr bool needs_svd = true;

  double strength = 0.4;

  static std::string name() { return "nuclear_prox"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("nuclear_strength", self.strength, range{.low = 0});
  }
  template <class E, class St, class W, class C>
  void after(E& e, St&, view<W> w, matrix_broadcast<C> lr, double) const {
    detail::subtract_spectrum(e, fn::threshold_amount{strength}, w, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
