// MARS: a gradient corrected by how it changed, given to another momentum.
//
//   c = G + kappa (G - R)                          MARS Alg. 1, line 4, eq. 3.10; kappa = gamma beta / (1 - beta)
//   c <- c / ||c||_F  if ||c||_F > 1               MARS Alg. 1, line 5, eq. 3.5
//   u = Inner(c)                                   MARS Alg. 1, line 6, with an EMA; beta is Inner's (first) beta
//
//   mars<Inner>          R is the gradient of the last step: one gradient per step; costs a copy of it (MARS-approx,
//                        Remark 3.3)
//   two_gradients<Inner> R is handed in: the gradient of this batch at the last weights (MARS exact, Muon-MVR2,
//                        STORM), or of the last batch at these weights (Muon-MVR3). Two gradients per step
//
// In the first step R = 0. Yuan et al.: MARS (arXiv 2411.10438), MARS-M (arXiv 2510.21800); Chang et al.: Muon-MVR
// (arXiv 2509.15816). Follows AGI-Arena/MARS: R = 0 at first, so c = (1 + kappa) G (the paper has c = G); the clip is
// per matrix; second moments see c, not G. That code keeps the last gradient by reference, which turns MARS off when
// the gradient's memory is reused; here it is copied. With gamma = 1, no clip and an EMA this is the STORM estimator M
// = G + beta (M - R) (arXiv 1905.10018, Algorithm 1). Without clip mars<ema> is quasi_hyperbolic. State: Inner's and 1
// scalar per parameter (mars) or matrix (two_gradients). FLOPs: 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>

#include "../../core/limits.hpp"
#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "momentum.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct correct_by_last {
  double kappa, most;
  template <class T>
  MATOPT_HD void operator()(T& last, T& u, T g) const {
    u = math::limited(g + T(kappa) * (g - last), T(most));  // MARS Alg. 1, line 4, in the form of Remark 3.3
    last = g;
  }
};
struct correct_by_reference {
  double kappa, most;
  template <class T>
  MATOPT_HD void operator()(T& u, T g, T r, T started) const {
    u = math::limited(g + T(kappa) * (g - math::one_if<T>(started > T(0)) * r), T(most));  // MARS Alg. 1, line 4
  }
};
// x / n if n = largest sqrt(squares) is more than 1
struct clip_to_one {
  template <class T>
  MATOPT_HD void operator()(T& x, T largest, T squares) const {
    const T root = math::sqrt(squares), clips = math::one_if<T>(largest * root > T(1)), leaves = T(1) - clips;
    x = x / (clips * largest + leaves) / (clips * root + leaves);  // MARS Alg. 1, line 5
  }
};
}  // namespace fn

namespace detail {
template <class Momentum>
double first_beta(const Momentum& m) {
  if constexpr (requires { m.beta1; })
    return m.beta1;
  else if constexpr (decorator<Momentum>)
    return first_beta(m.inner);
  else
    return m.beta;
}
}  // namespace detail

template <class Inner, bool Given>
struct basic_mars {
  using decorates = Inner;
  static constexpr bool needs_reference = Given;

  Inner inner{};
  double gamma = 0.025;
  bool clip = true;

  static std::string name() { return (Given ? "two_gradients<" : "mars<") + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    Inner::settings(self.inner, visit);
    visit("gamma", self.gamma, range{.low = 0});
    visit("clip", self.clip);
  }

  template <class S, class C>
  struct state {
    view<S> last;
    view<C> started;
    state_for<Inner, S, C> inner;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    if constexpr (Given)
      s.started = l.scalar("reference_started");
    else
      s.last = l.matrix("last_gradient");
    lay_out(inner, l, s.inner);
  }

  template <class E, class St, class G, class U>
  requires(!Given || requires(const G& pair) { pair.reference; }) auto accumulate(E& e, St& s, const G& g,
                                                                                  view<U> u) const {
    // Of every gradient that a step takes, c is the published one up to kappa = 127; a huge gamma would make it infinite.
    constexpr double most = 0x1p8 * largest_input<typename E::compute>;
    const double beta = detail::first_beta(inner), kappa = std::min(gamma * beta / (1 - beta), most);
    if constexpr (Given) {
      e.for_each(fn::correct_by_reference{kappa, most}, u, as_const(g), as_const(g.reference), per_matrix(s.started));
      e.for_each(fn::set_one{}, s.started);
    } else {
      e.for_each(fn::correct_by_last{kappa, most}, s.last, u, as_const(g));
    }
    if (clip) {
      const auto frame = e.frame();
      const auto norm = detail::frobenius(e, u);
      e.for_each(fn::clip_to_one{}, u, per_matrix(norm.scale), per_matrix(norm.squares));
    }
    return detail::accumulate_on(inner, e, s.inner, u);
  }
};

template <class Inner = ema>
using mars = basic_mars<Inner, false>;
template <class Inner = ema>
using two_gradients = basic_mars<Inner, true>;

}  // namespace MATOPT_NAMESPACE
