// Cautious decay of the weight that the rest of the constraint has made, masked by the step's signs.
//
//   mask = 1[u . W > 0]          W <- inner step          W <- W - lr cautious_decay_after mask . W
//
// The "post-pin" Cautious Weight Decay (arXiv 2510.12402) of the optimization track of modded-nanogpt, 0.025 there:
// what it takes is not given back by a rescaling of the norm, which happens inside. Outermost it is the last to act on
// the weight, and sees the update before the inner constraint adjusts it. State: none; scratch: 1 scalar per parameter
// from before the step to after it. FLOPs: 5 per parameter. Needs: elementwise verbs.
//   projected<cautious_decay_after, projected<radial_brake, projected<first_order_radius>>>
//
// SPDX-License-Identifier: MIT
#pragma once
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// m = 1 where the step -u shrinks w
struct shrinking {
  template <class T>
  MATOPT_HD void operator()(T& m, T u, T w) const {
    m = T(math::sign(u) * math::sign(w) > T(0));  // Cautious Weight Decay, Alg. 1, but for u W = 0
  }
};
// w = w - min(lr decay, 2) m w
struct masked_decay {
  double decay;
  template <class T>
  MATOPT_HD void operator()(T& w, T m, T lr) const {
    w -= math::at_most(lr * T(decay), T(2)) * m * w;
  }
};
}  // namespace fn

struct cautious_decay_after {
  double decay = 0.025;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "cautious_decay_after"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("cautious_after_decay", self.decay, range{.low = 0});
  }
  template <class S, class C>
  struct state {
    view<C> mask;  // scratch, from before to after
  };
  template <class Layout, class St>
  void layout(Layout&, St&) const {}
  template <class E, class St, class W, class U, class Rate>
  void before(E& e, St& s, view<W> w, view<U> u, Rate, double) const {
    s.mask = e.take_like(w);
    e.for_each(fn::shrinking{}, s.mask, as_const(u), as_const(w));
  }
  template <class E, class St, class W, class Rate>
  void after(E& e, St& s, view<W> w, Rate lr, double) const {
    e.for_each(fn::masked_decay{decay}, w, as_const(s.mask), lr);
  }
};

}  // namespace MATOPT_NAMESPACE
