// The sign of another momentum's direction: u = sign(u), sign(0) = 0. AdaMuon orthogonalizes it (arXiv 2507.11005,
// Algorithm 1). State and FLOPs: the inner policy's. Near zero the sign is a matter of rounding: two element types can
// differ by 2 in an entry of u.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "momentum.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct take_sign {
  template <class T>
  MATOPT_HD void operator()(T& u) const {
    u = math::sign(u);  // AdaMuon Alg. 1; Lion Alg. 2; MARS Alg. 3, line 7
  }
};
}  // namespace fn

template <class Inner = nesterov_ema>
struct sign_of {
  using decorates = Inner;

  Inner inner{};

  static std::string name() { return "sign_of<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }

  template <class E, class St, class G, class U>
  requires detail::accumulates<Inner, E, St, G, U>
  auto accumulate(E& e, St& s, const G& g, U u) const {
    return detail::accumulate(inner, e, s, g, u) >> elementwise(fn::take_sign{}, update_slot{});
  }
};

}  // namespace MATOPT_NAMESPACE
