// Decoupled decay of the weight that the step has made.
//
//   W <- W - lr scale u          W <- (1 - lr decay) W
//
// SOAP (arXiv 2409.11321; nikhilvyas/SOAP). The update decays with the weight, by a factor 1 - lr decay that the other
// order does not have. State: none. FLOPs: 4 per parameter. Needs: elementwise verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct step_and_decay {
  double decay, scale;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T lr) const {
    w -= lr * T(scale) * u;
    w -= math::at_most(lr * T(decay), T(2)) * w;
  }
};
}  // namespace fn

struct decay_after {
  double decay = 0;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "decay_after"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
  }
  double decay_by_rate() const { return decay; }

  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    return elementwise(fn::step_and_decay{decay, scale}, w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
