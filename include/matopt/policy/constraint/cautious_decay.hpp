// Cautious decay: only the entries decay that the update shrinks anyway.
//
//   W <- W - lr (scale u + decay 1[u . W >= 0] . W)          u and W as they were before the step
//
// Cautious Weight Decay, arXiv 2510.12402, Algorithm 1. Where public implementations differ: the paper, microsoft/dion
// and the Muon of modded-nanogpt include u W = 0, the Adam of modded-nanogpt and its optimization track do not
// (cautious_strict). Included, a zero update decays all of W. State: none. FLOPs: 6 per parameter. Needs: elementwise
// verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct cautious_decay_and_step {
  double decay, scale;
  bool strict;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T lr) const {
    // The sign of u w, -1, 0 or 1, without the product, which may underflow.
    const T both = math::one_if_positive(math::abs(u)) * math::one_if_positive(math::abs(w));
    const T along = both * math::copysign(T(1), u) * math::copysign(T(1), w);
    const T above = math::one_if<T>(strict), from = T(1) - above;  // along > 0, or along >= 0
    const T shrinks = above * along * (along + T(1)) / T(2) + from * (T(1) - along * (along - T(1)) / T(2));
    w = w * (T(1) - shrinks * math::at_most(lr * T(decay), T(2))) - lr * T(scale) * u;  // Cautious Weight Decay, Alg. 1
  }
};
}  // namespace fn

struct cautious_decay {
  double decay = 0;
  bool strict = false;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "cautious_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
    visit("cautious_strict", self.strict);
  }
  double decay_by_rate() const { return decay; }

  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    return elementwise(fn::cautious_decay_and_step{decay, scale, strict}, w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
