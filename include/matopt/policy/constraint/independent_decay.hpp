// Decoupled decay whose strength does not follow the learning rate, or follows it otherwise.
//
//   W <- (1 - decay f(lr)) W - lr scale u
//   decay_rate = independent    f = 1                        what the paper of AdamW means by decoupled: its Alg. 2,
//                                                            line 12
//                coupled        f = lr                       decoupled_decay, as PyTorch has it
//                squared        f = lr^2 / decay_lr_max      "palm" with decay_lr_max = 1; AdamC with the peak rate
//
// AdamW: arXiv 1711.05101; AdamC: arXiv 2506.02285, for layers that a normalization follows: give them a group of their
// own. The three forms and "palm" are NVIDIA Emerging-Optimizers'. State: none. FLOPs: 4 per parameter. Needs:
// elementwise verbs. Nothing keeps decay f(lr) below 1; above 1 it turns the weight around.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <optional>
#include <string_view>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

enum class decay_rate { independent, coupled, squared };
constexpr auto enum_names(decay_rate) { return std::array<std::string_view, 3>{"independent", "coupled", "squared"}; }

namespace fn {
// w = w (1 - (c0 + c1 lr + c2 lr^2)) - lr scale u
struct polynomial_decay_and_step {
  double c0, c1, c2, scale;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T lr) const {
    w = w * (T(1) - (T(c0) + lr * (T(c1) + lr * T(c2)))) - lr * T(scale) * u;  // AdamW Alg. 2, line 12
  }
};
}  // namespace fn

struct independent_decay {
  double decay = 0;
  matopt::decay_rate rate = matopt::decay_rate::independent;
  double lr_max = 1;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "independent_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
    visit("decay_rate", self.rate);
    visit("decay_lr_max", self.lr_max, range{.low = 0, .low_open = true});
  }
  std::optional<double> decay_by_rate() const {
    return rate == matopt::decay_rate::coupled ? std::optional(decay) : std::nullopt;
  }

  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St&, view<W> w, U u, Rate lr, double scale) const {
    const auto strength = [&](matopt::decay_rate r) { return rate == r ? decay : 0; };
    return elementwise(
        fn::polynomial_decay_and_step{strength(matopt::decay_rate::independent), strength(matopt::decay_rate::coupled),
                                      strength(matopt::decay_rate::squared) / lr_max, scale},
        w, u, lr);
  }
};

}  // namespace MATOPT_NAMESPACE
