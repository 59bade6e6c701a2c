// Quasi-hyperbolic momentum: a mean of gradients, mixed with the present one.
//
//   M <- beta M + (1 - beta) G       u = gamma G + (1 - gamma) M
//
// Ma, Yarats: QHM (arXiv 1810.06801, nu = 1 - gamma). One policy for several: gamma = 0 is `ema`, gamma = 1 - beta is
// `nesterov_ema`, and any gamma is MARS-M in its approximate form without clipping (the "efficient" form of the
// official code, arXiv 2510.21800, keeps a multiple of M). State: 1 scalar per parameter. FLOPs: 6 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct quasi_hyperbolic {
  double beta, gamma;
  template <class T>
  MATOPT_HD void operator()(T& m, T& u, T g) const {
    m = T(beta) * m + T(1 - beta) * g;
    u = T(gamma) * g + T(1 - gamma) * m;
  }
};
}  // namespace fn

struct quasi_hyperbolic {
  double beta = 0.95, gamma = 0.025;

  static std::string name() { return "quasi_hyperbolic"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("momentum", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("gamma", self.gamma, range{.low = 0, .high = 1});
  }

  template <class S, class C>
  struct state {
    view<S> buffer;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.buffer = l.matrix("momentum");
  }

  template <class E, class St, class G, class U>
  auto accumulate(E&, St& s, G g, U u) const {
    return elementwise(fn::quasi_hyperbolic{beta, gamma}, s.buffer, u, g);
  }
};

}  // namespace MATOPT_NAMESPACE
