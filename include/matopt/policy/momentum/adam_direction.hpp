// The direction of Adam: entry by entry the first moment over the root of the second, both corrected for their bias.
//
//   m <- beta1 m + (1 - beta1) G         v <- beta2 v + (1 - beta2) G^2                     AdamW Alg. 2, lines 7, 8
//   c1 = 1 - beta1^t                     c2 = 1 - beta2^t                                   AdamW Alg. 2, lines 9, 10
//   corrected:    u = (m / c1) / (sqrt(v / c2) + eps)                                       AdamW Alg. 2, line 12
//   uncorrected:  u = (sqrt(c2) / c1) m / (sqrt(v) + eps)
//   nesterov:     beta1 m / (1 - beta1^(t+1)) + (1 - beta1) G / c1 in the place of m / c1
//   amsgrad:      the largest v so far in the place of v
//
// Kingma, Ba: Adam (arXiv 1412.6980, Algorithm 1); Loshchilov, Hutter: AdamW (arXiv 1711.05101).
//
// Where public implementations differ: PyTorch, optax and Keller Jordan add eps to the corrected root; Moonlight,
// Megatron, Muon+ and NAMO to the uncorrected one, which is a larger eps in early steps. The default follows PyTorch.
// nesterov is NAdam in optax's form, amsgrad Reddi et al. in that of MARS and AdaPNM (same correction). c1 and c2 are
// kept as state (c <- beta c + 1 - beta), so a skipped step does not advance them. State: 2 scalars per parameter, 3
// with amsgrad. FLOPs: 12 per parameter. Needs: elementwise verbs. An entry of a gradient counts as at most
// largest_squared (5e18 in float), in m and in v.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

enum class adam_eps { corrected, uncorrected };
constexpr auto enum_names(adam_eps) { return std::array<std::string_view, 2>{"corrected", "uncorrected"}; }

namespace fn {
// c <- beta c + (1 - beta): 1 - beta^t after t steps
struct bias_corrections {
  double beta1, beta2;
  template <class T>
  MATOPT_HD void operator()(T& c1, T& c2) const {
    c1 = T(beta1) * c1 + T(1 - beta1);  // AdamW Alg. 2, line 9
    c2 = T(beta2) * c2 + T(1 - beta2);  // AdamW Alg. 2, line 10
  }
};
struct adam {
  double beta1, beta2, eps, largest;  // largest: of g
  bool corrected, nesterov = false;
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& u, T g, T c1, T c2) const {
    g = math::limited(g, T(largest));
    v = T(beta2) * v + T(1 - beta2) * g * g;  // AdamW Alg. 2, line 8; MARS Alg. 2, line 7
    u = quotient(m, v, g, c1, c2);
  }
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& most, T& u, T g, T c1, T c2) const {
    g = math::limited(g, T(largest));
    v = T(beta2) * v + T(1 - beta2) * g * g;
    most = math::max(most, v);
    u = quotient(m, most, g, c1, c2);
  }
  // What depends on c1, c2 and the settings alone is worked out without a branch, so that a compiler takes it out of
  // the loop: per element there is one division and one root.
  template <class T>
  MATOPT_HD T quotient(T& m, T v, T g, T c1, T c2) const {
    const T is_corrected(corrected), is_nesterov(nesterov), inverse1 = T(1) / c1, inverse2 = T(1) / c2;
    const T up = is_corrected + (T(1) - is_corrected) * math::sqrt(c2);
    const T of_v = is_corrected * inverse2 + (T(1) - is_corrected);
    const T ahead = T(beta1) / (T(beta1) * c1 + T(1 - beta1));
    const T of_m = up * (is_nesterov * ahead + (T(1) - is_nesterov) * inverse1);
    const T of_g = up * is_nesterov * T(1 - beta1) * inverse1;
    m = T(beta1) * m + T(1 - beta1) * g;                                    // AdamW Alg. 2, line 7; MARS Alg. 2, line 6
    return (of_m * m + of_g * g) / (math::moment_root(of_v * v) + T(eps));  // the quotient of line 12; of MARS, line 9
  }
};
}  // namespace fn

struct adam_direction {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  adam_eps eps_mode = adam_eps::corrected;
  bool nesterov = false, amsgrad = false;

  static std::string name() { return "adam_direction"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("eps", self.eps, range{.low = 0, .low_open = true});
    visit("eps_mode", self.eps_mode);
    visit("nesterov", self.nesterov);
    visit("amsgrad", self.amsgrad);
  }

  template <class S, class C>
  struct state {
    view<S> m, v, largest;
    view<C> c1, c2;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.m = l.matrix("first_moment"), s.v = l.squares("second_moment");
    if (amsgrad) s.largest = l.squares("largest_second_moment");
    s.c1 = l.scalar("first_correction"), s.c2 = l.scalar("second_correction");
  }

  template <class E, class St, class G, class U>
  auto accumulate(E& e, St& s, G g, U u) const {
    e.for_each(fn::bias_corrections{beta1, beta2}, s.c1, s.c2);
    const fn::adam adam{
        beta1, beta2, eps, detail::square_limit<typename E::compute>(s.v), eps_mode == adam_eps::corrected, nesterov};
    return either(amsgrad, elementwise(adam, s.m, s.v, s.largest, u, g, per_matrix(s.c1), per_matrix(s.c2)),
                  elementwise(adam, s.m, s.v, u, g, per_matrix(s.c1), per_matrix(s.c2)));
  }
};

}  // namespace MATOPT_NAMESPACE
