// The Frank-Wolfe step on a norm ball: u is the ball's linear minimisation oracle, of unit norm.
//
//   constrained:    W <- (1 - lr) W - lr radius scale u        stays in the ball of norm radius scale once it is inside
//                                                              Scion Alg. 2, line 4 (SCG)
//   unconstrained:  W <- W - lr radius scale u                 Scion Alg. 1, line 4 (uSCG)
//
// Scion (arXiv 2502.07529; LIONS-EPFL/scion): scale = sqrt(fan_out / fan_in) with a spectral u; radius 50 for hidden
// layers and 3000 for the head in the authors' nanoGPT. 1 - lr is decoupled decay of strength 1, so there is none
// besides, and a rate above 2 is refused. State: none. FLOPs: 4 per parameter. Needs: elementwise verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "decoupled_decay.hpp"

namespace MATOPT_NAMESPACE {

struct frank_wolfe {
  double radius = 1;
  bool constrained = true;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "frank_wolfe"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("radius", self.radius, range{.low = 0, .low_open = true});
    visit("constrained", self.constrained);
  }
  double decay_by_rate() const { return constrained ? 1 : 0; }

  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    // Scion Alg. 2, line 4, and Alg. 1, line 4; u is the negative of the paper's lmo.
    return elementwise(fn::decay_and_step{constrained ? 1.0 : 0.0, radius * scale}, w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
