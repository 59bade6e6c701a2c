// Lion's two interpolations: the direction looks less far back than the mean that is kept.
//
//   u = beta1 M + (1 - beta1) G       M <- beta2 M + (1 - beta2) G              Lion Alg. 2
//
// Chen et al.: Lion (arXiv 2302.06675). With sign_direction behind it this is Lion; with an orthogonalizer it is the
// Muon of the Lion-K family (arXiv 2506.15054), where beta1 = beta_n beta_p, beta2 = beta_p. State: 1 scalar per
// parameter. FLOPs: 6 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct lion_momentum {
  double look, keep;
  template <class T>
  MATOPT_HD void operator()(T& m, T& u, T g) const {
    u = T(look) * m + T(1 - look) * g;  // Lion Alg. 2: the update, before its sign is taken
    m = T(keep) * m + T(1 - keep) * g;  // Lion Alg. 2: what is kept
  }
};
}  // namespace fn

struct lion_momentum {
  double beta1 = 0.9, beta2 = 0.99;

  static std::string name() { return "lion_momentum"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
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
    return elementwise(fn::lion_momentum{beta1, beta2}, s.buffer, u, g);
  }
};

}  // namespace MATOPT_NAMESPACE
