// Momentum over the root of a running mean square, entry by entry.
//
//   M <- beta M + (1 - beta) G       m = M, or Nesterov's (1 - beta) G + beta M
//   V <- beta2 V + (1 - beta2) G^2
//   u = m / (sqrt(V) + eps), or m / sqrt(V + eps) (eps_place = inside)
//
// Muon^2 (arXiv 2604.09967) whitens by it before the orthogonalizer; as in its public code there is no bias correction,
// which would be a factor of the whole matrix. The first step is a constant times the sign of G, up to eps: its
// magnitudes are lost, and a matrix of signs is often singular. An entry whose gradient has always been zero gives
// zero. State: 2 scalars per parameter. FLOPs: 10 per parameter. An entry of a gradient counts as at most
// largest_squared.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

enum class eps_place { outside, inside };  // of the root
constexpr auto enum_names(eps_place) { return std::array<std::string_view, 2>{"outside", "inside"}; }

namespace fn {
struct moment_scaled {
  double beta, beta2, eps, largest;  // largest: of g
  bool nesterov, inside;
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& u, T g) const {
    g = math::limited(g, T(largest));
    m = T(beta) * m + T(1 - beta) * g;
    v = T(beta2) * v + T(1 - beta2) * (g * g);
    const T ahead = math::one_if<T>(nesterov), in = math::one_if<T>(inside);
    const T direction = ahead * T(1 - beta) * g + (ahead * T(beta) + (T(1) - ahead)) * m;
    u = direction / (math::moment_root(v + in * T(eps)) + (T(1) - in) * T(eps));
  }
};
}  // namespace fn

template <bool Nesterov>
struct basic_moment_scaled {
  double beta = 0.95, beta2 = 0.95, eps = 1e-10;
  matopt::eps_place eps_place = matopt::eps_place::outside;

  static std::string name() { return Nesterov ? "nesterov_moment_scaled" : "moment_scaled"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("momentum", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("moment_beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("moment_eps", self.eps, range{.low = 0});
    visit("moment_eps_place", self.eps_place);
  }

  template <class S, class C>
  struct state {
    view<S> buffer, moment;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.buffer = l.matrix("momentum"), s.moment = l.squares("second_moment");
  }

  template <class E, class St, class G, class U>
  auto accumulate(E&, St& s, G g, U u) const {
    const double largest = detail::square_limit<typename E::compute>(s.moment);
    const bool inside = eps_place == matopt::eps_place::inside;
    return elementwise(fn::moment_scaled{beta, beta2, eps, largest, Nesterov, inside}, s.buffer, s.moment, u, g);
  }
};

using moment_scaled = basic_moment_scaled<false>;
using nesterov_moment_scaled = basic_moment_scaled<true>;

}  // namespace MATOPT_NAMESPACE
