// Exponential momentum without the bias of its start.
//
//   M <- beta M + (1 - beta) G
//   corrected_ema             u = M / (1 - beta^t)
//   corrected_nesterov_ema    u = beta M / (1 - beta^(t+1)) + (1 - beta) G / (1 - beta^t)
//
// The momentum of optax.contrib.muon, which has both t + 1 and t in its Nesterov form. After a scale-free
// orthogonalizer the plain form differs from `ema` only through the orthogonalizer's eps; the Nesterov form differs in
// direction while t is small. 1 - beta^t is kept as state (c <- beta c + 1 - beta), so a skipped step does not advance
// it. State: 1 scalar per parameter and 1 per matrix. FLOPs: 6 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// c <- beta c + (1 - beta): 1 - beta^t after t steps
struct bias_correction {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& c) const {
    c = T(beta) * c + T(1 - beta);
  }
};
struct corrected_momentum {
  double beta;
  bool nesterov;
  template <class T>
  MATOPT_HD void operator()(T& m, T& u, T g, T c) const {
    m = T(beta) * m + T(1 - beta) * g;
    const T ahead = math::one_if<T>(nesterov), here = T(1) - ahead;
    u = (ahead * T(beta) / (T(beta) * c + T(1 - beta)) + here / c) * m + ahead * T(1 - beta) / c * g;
  }
};
}  // namespace fn

template <bool Nesterov>
struct basic_corrected_ema {
  double beta = 0.95;

  static std::string name() { return Nesterov ? "corrected_nesterov_ema" : "corrected_ema"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("momentum", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
  }

  template <class S, class C>
  struct state {
    view<S> buffer;
    view<C> correction;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.buffer = l.matrix("momentum"), s.correction = l.scalar("momentum_correction");
  }

  template <class E, class St, class G, class U>
  auto accumulate(E& e, St& s, G g, U u) const {
    e.for_each(fn::bias_correction{beta}, s.correction);
    return elementwise(fn::corrected_momentum{beta, Nesterov}, s.buffer, u, g, per_matrix(s.correction));
  }
};

using corrected_ema = basic_corrected_ema<false>;
using corrected_nesterov_ema = basic_corrected_ema<true>;

}  // namespace MATOPT_NAMESPACE
