// Muon-NSR and Muon-VS: momentum divided, entry by entry, by an estimate of the noise, before it is orthogonalized.
//
//   V <- beta V + beta (1 - beta) (M - G)^2, with the old M       M <- beta M + (1 - beta) G
//   m = G + beta / (1 - beta) M / (1 - beta^t)                    v = V / (1 - beta^t)
//   noise_to_signal     u = m / (sqrt(m^2 + alpha v) + eps)
//   variance_scaled     u = m / (sqrt(v) + eps)
//
// Variance-Adaptive Muon (arXiv 2601.14603); follows the NanoGPT suite of the official code. Nesterov is built in. In
// the first step both are a constant times the sign of G. Where the published suites differ: Suite B first amplifies a
// gradient whose norm is below g_norm up to it (`amplify_below`; 0, off, by default: it is described as clipping, but
// only enlarges); Suite A's variance_scaled takes (M - G)^2 after M moved, which is beta^2 times V (`late_variance`);
// alpha is 10 in the NanoGPT suite, 1000 in the others; the paper may have eps inside the root. State: 2 scalars per
// parameter and 1 per matrix. FLOPs: 16 per parameter. An entry of a gradient counts as at most largest_squared (1 -
// beta) / 4.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "../detail/line_norms.hpp"
#include "corrected_ema.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct variance_adaptive {
  double beta, alpha, eps, largest;  // largest: of g
  bool signal, late;
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& u, T g, T c, T gain) const {
    g = math::limited(g * gain, T(largest));
    const T before = m;
    m = T(beta) * m + T(1 - beta) * g;
    const T is_late = math::one_if<T>(late);
    const T d = is_late * m + (T(1) - is_late) * before - g;
    v = T(beta) * v + T(beta * (1 - beta)) * (d * d);
    const T looked = g + T(beta / (1 - beta)) * m / c, noise = v / c;
    const T with_signal = math::one_if<T>(signal), of_noise = with_signal * T(alpha) + (T(1) - with_signal);
    const T under = math::saturated(with_signal * (looked * looked) + of_noise * noise);
    u = looked / (math::moment_root(under) + T(eps));
  }
};
// max(1, least / (n + 1e-8)), n = scale sqrt(squares)
struct amplification {
  double least;
  template <class T>
  MATOPT_HD void operator()(T& gain, T scale, T squares) const {
    gain = math::max(T(1), math::saturated(T(least) / (scale * math::sqrt(squares) + T(1e-8))));
  }
};
}  // namespace fn

template <bool Signal>
struct variance_adaptive {
  double beta = 0.95;
  double alpha = 10;  // only noise_to_signal
  double eps = 1e-8;
  double amplify_below = 0;
  bool late_variance = false;

  static std::string name() { return Signal ? "noise_to_signal" : "variance_scaled"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("momentum", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    if constexpr (Signal) visit("alpha", self.alpha, range{.low = 0});
    visit("variance_eps", self.eps, range{.low = 0, .low_open = true});
    visit("amplify_below", self.amplify_below, range{.low = 0});
    visit("late_variance", self.late_variance);
  }

  template <class S, class C>
  struct state {
    view<S> buffer, variance;
    view<C> correction;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.buffer = l.matrix("momentum"), s.variance = l.squares("variance"), s.correction = l.scalar("momentum_correction");
  }

  template <class E, class St, class G, class U>
  requires(!std::is_same_v<G, update_slot>)  // its norm may be needed
      auto accumulate(E& e, St& s, G g, U u) const {
    const auto gain = e.take(1, 1);
    e.for_each(fn::set_constant{1}, gain);
    if (amplify_below > 0) {
      const auto norm = detail::frobenius(e, g);
      e.for_each(fn::amplification{amplify_below}, gain, as_const(norm.scale), as_const(norm.squares));
    }
    e.for_each(fn::bias_correction{beta}, s.correction);
    // `looked` is up to 1 / (1 - beta) times as large as g.
    const double largest = detail::square_limit<typename E::compute>(s.variance) * (1 - beta) / 4;
    return elementwise(fn::variance_adaptive{beta, alpha, eps, largest, Signal, late_variance}, s.buffer, s.variance, u,
                       g, per_matrix(s.correction), per_matrix(gain));
  }
};

using noise_to_signal = variance_adaptive<true>;
using variance_scaled = variance_adaptive<false>;

}  // namespace MATOPT_NAMESPACE
