// Decoupled decay and step under rates that adapt and may grow large: both are clamped.
//
//   W <- max(0, 1 - decay min(lr, 1)) W - min(lr scale, 1) u
//
// NAMO and NAMO-D (arXiv 2602.17080), after the authors' code (minxin-zhg/namo); their paper has no clamps. lr is the
// adapted rate, one per matrix or per column. State: none. FLOPs: 4 per parameter. Needs: elementwise verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct clamped_decay_and_step {
  double decay, scale;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T lr) const {
    const T step = lr * T(scale), below = math::one_if_less(lr, T(1)), shorter = math::one_if_less(step, T(1));
    const T kept = math::max(T(0), T(1) - T(decay) * (below * lr + (T(1) - below)));
    w = w * kept - (shorter * step + (T(1) - shorter)) * u;
  }
};
}  // namespace fn

struct clamped_decay {
  double decay = 0;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "clamped_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
  }

  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    return elementwise(fn::clamped_decay_and_step{decay, scale}, w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
