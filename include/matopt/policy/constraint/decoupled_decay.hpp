// The unconstrained weight with decoupled decay.
//
//   g' = G                    W <- (1 - lr decay) W - lr scale u              Moonlight eq. 3; NuMuon eq. 5 and 6
//
// Loshchilov, Hutter (arXiv 1711.05101). In NuMuon (arXiv 2603.03597) eq. 5 is the step without decay, and eq. 6 the
// step with it, as one of Frank and Wolfe. As in every public Muon the decay takes the base rate: the scale never
// multiplies it. With decay > 0 and ||u||_2 <= 1 the step is Frank-Wolfe on ||W||_2 <= scale / decay (Lion-K, arXiv
// 2506.15054). State: none. FLOPs: 4 per parameter. Needs: elementwise verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// w = w (1 - lr decay) - lr scale u. lr decay above 2 would make w grow by a factor in every step. begin_step() refuses
// that; a rate that the momentum finds is not known then, so the product counts as 2.
struct decay_and_step {
  double decay, scale;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T lr) const {
    const T lost = math::at_most(lr * T(decay), T(2));
    w = w * (T(1) - lost) - lr * T(scale) * u;  // Moonlight eq. 3, 4; NuMuon eq. 6; Scion Alg. 2, line 4
  }
};
}  // namespace fn

struct decoupled_decay {
  double decay = 0;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "decoupled_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
  }
  double decay_by_rate() const { return decay; }

  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    return elementwise(fn::decay_and_step{decay, scale}, w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
