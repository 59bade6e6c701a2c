// Decay coupled into the gradient, before the momentum: an L2 penalty.
//
//   g' = G + decay W          W <- W - lr scale u
//
// Luon (github.com/JiaxuanZou0714/Luon) is Muon with it: where decay W outweighs the gradients, the step is along
// -polar(W), the nuclear norm's subgradient; elsewhere it tilts the polar factor, by an amount that depends on ||G||.
// Also the L2 form of SGD and of PNM (arXiv 2103.17182). Luon's decay is 0.5. Zero decay changes no bit. State: none.
// FLOPs: 4 per parameter. Needs: elementwise verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/limits.hpp"
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// u = g + decay w, which counts as the largest gradient where it is larger
struct penalized_gradient {
  double decay, most;
  template <class T>
  MATOPT_HD void operator()(T& u, T g, T w) const {
    u = math::limited(g + T(decay) * w, T(most));  // AdamW Alg. 2, line 6: the L2 form
  }
};
// w = w - lr scale u
struct plain_step {
  double scale;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T lr) const {
    w -= lr * T(scale) * u;
  }
};
}  // namespace fn

struct coupled_decay {
  double decay = 0;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "coupled_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
  }

  template <class E, class St, class W, class G>
  auto lift(E&, St&, view<W> w, G g) const {
    const fn::penalized_gradient penalized{decay, largest_input<typename E::compute>};
    return elementwise(penalized, update_slot{}, as_const(g), as_const(w));
  }
  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    return elementwise(fn::plain_step{scale}, w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
