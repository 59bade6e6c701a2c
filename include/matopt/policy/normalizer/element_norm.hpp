// AdaMuon's normalizer: each entry of the update over the root of its running square; then the update gets a fixed RMS.
//
//   V <- beta V + (1 - beta) u^2       y = u / (sqrt(V) + eps)       u <- y rms sqrt(m n) / (||y||_F + eps)      Alg. 1
//
// AdaMuon (arXiv 2507.11005, Algorithm 1); written from the paper's equations (the official repository has no licence).
// No bias correction: the first update is rms times the sign of u, so a rounding that flips a tiny entry moves it by 2
// rms. The official Megatron file loses V outside of its distributed mode; that is not reproduced. Zero gives zero.
// State: 1 scalar per parameter. FLOPs: 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "neuron_norm.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// v <- beta v + (1 - beta) u^2, and the terms of ||y||, y = u / (sqrt(v) + eps)
struct running_root_norm : scaled_norm {
  double beta, eps, largest;  // largest: of u
  running_root_norm(double b, double e, double l) : beta(b), eps(e), largest(l) {}
  template <class T>
  MATOPT_HD terms<T, 3> operator()(T& v, T u) const {
    u = math::limited(u, T(largest));
    v = T(beta) * v + T(1 - beta) * u * u;  // AdaMuon Alg. 1: V
    return scaled_norm::operator()(u / (math::sqrt(v) + T(eps)));
  }
};
// u = u f / (sqrt(v) + eps)
struct over_running_root {
  double eps, largest;
  template <class T>
  MATOPT_HD void operator()(T& u, T v, T f) const {
    u = math::limited(u, T(largest)) / (math::sqrt(v) + T(eps)) * f;  // AdaMuon Alg. 1: gamma O / (sqrt(V) + eps)
  }
};
}  // namespace fn

struct element_norm {
  double beta = 0.95, eps = 1e-8, rms = 0.2;
  double norm_eps = 1e-8;  // of ||y||_F; the paper has none

  static std::string name() { return "element_norm"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("element_beta", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("element_eps", self.eps, range{.low = 0, .low_open = true});
    visit("element_norm_eps", self.norm_eps, range{.low = 0});
    visit("update_rms", self.rms, range{.low = 0, .low_open = true});
  }

  template <class S, class C>
  struct state {
    view<S> v;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.v = l.squares("update_second_moment");
  }

  template <class E, class St, class U>
  auto normalize(E& e, St& s, view<U> u) const {
    const auto norm = detail::take_norm(e);
    const auto factor = e.take(1, 1);
    const double largest = detail::square_limit<typename E::compute>(s.v);
    e.reduce(fn::running_root_norm{beta, eps, largest}, norm.pair, s.v, as_const(u));
    // AdaMuon Alg. 1: gamma = 0.2 sqrt(m n) / ||.||_F
    const double size = rms * std::sqrt(static_cast<double>(u.rows) * static_cast<double>(u.cols));
    e.for_each(fn::factor_to_norm{size, norm_eps}, factor, as_const(norm.scale), as_const(norm.squares));
    return elementwise(fn::over_running_root{eps, largest}, update_slot{}, as_const(s.v), per_matrix(factor));
  }
};

}  // namespace MATOPT_NAMESPACE
