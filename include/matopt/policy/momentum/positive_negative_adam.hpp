// AdaPNM's direction: positive-negative momentum over the root of a second moment.
//
//   d = positive_negative(G)       v <- beta2 v + (1 - beta2) G^2       v^ = max(v^, v) with amsgrad, v without
//   u = d / (sqrt(v^) / sqrt(1 - beta2^t) + eps) / (1 - beta1^t)
//
// Xie et al. (arXiv 2103.17182); follows the official code, amsgrad by default. Its correction 1 - beta1^t does not
// match buffers that decay by beta1^2 every second step; it is kept, so that results agree. State: 4 scalars per
// parameter, 3 without amsgrad. FLOPs: 20 per parameter. An entry of a gradient counts as at most largest_squared.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "adam_direction.hpp"
#include "positive_negative.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct positive_negative_root {
  double beta2, eps;
  template <class T>
  MATOPT_HD void operator()(T& v, T& largest, T& u, T g, T c1, T c2) const {
    v = T(beta2) * v + T(1 - beta2) * g * g;
    largest = math::max(largest, v);
    u = u / (math::moment_root(largest) / math::sqrt(c2) + T(eps)) / c1;
  }
  template <class T>
  MATOPT_HD void operator()(T& v, T& u, T g, T c1, T c2) const {
    v = T(beta2) * v + T(1 - beta2) * g * g;
    u = u / (math::moment_root(v) / math::sqrt(c2) + T(eps)) / c1;
  }
};
}  // namespace fn

struct positive_negative_adam {
  double beta1 = 0.9, beta2 = 0.999, beta0 = 1, eps = 1e-8;
  bool amsgrad = true;

  static std::string name() { return "positive_negative_adam"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true, .average = 2});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("beta0", self.beta0, range{.low = 0});
    visit("eps", self.eps, range{.low = 0, .low_open = true});
    visit("amsgrad", self.amsgrad);
  }

  template <class S, class C>
  struct state {
    view<S> odd, even, v, largest;
    view<C> parity, c1, c2;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.odd = l.matrix("odd_momentum"), s.even = l.matrix("even_momentum"), s.v = l.squares("second_moment");
    if (amsgrad) s.largest = l.squares("largest_second_moment");
    s.parity = l.scalar("parity"), s.c1 = l.scalar("first_correction"), s.c2 = l.scalar("second_correction");
  }

  template <class E, class St, class G, class U>
  void accumulate(E& e, St& s, view<G> g, view<U> u) const {
    const auto frame = e.frame();
    const auto kept = e.take_like(u);  // u may be g
    e.for_each(fn::limited{detail::square_limit<typename E::compute>(s.v)}, kept, as_const(g));
    e.for_each(fn::next_parity{}, s.parity);
    e.for_each(fn::bias_corrections{beta1, beta2}, s.c1, s.c2);
    e.for_each(fn::positive_negative{beta1, beta0}, s.odd, s.even, u, as_const(kept), per_matrix(s.parity));
    const fn::positive_negative_root root{beta2, eps};
    if (amsgrad)
      e.for_each(root, s.v, s.largest, u, as_const(kept), per_matrix(s.c1), per_matrix(s.c2));
    else
      e.for_each(root, s.v, u, as_const(kept), per_matrix(s.c1), per_matrix(s.c2));
  }
};

}  // namespace MATOPT_NAMESPACE
