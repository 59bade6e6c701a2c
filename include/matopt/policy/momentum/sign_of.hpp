// The sign of another momentum's direction: u = sign(u), sign(0) = 0. AdaMuon orthogonalizes it (arXiv 2507.11005).
// State and FLOPs: the inner policy's. Near zero the sign is a matter of rounding: two element types can differ by 2 in
// an entry of u.
#pragma once
#include "../../core/policy.hpp"
#include "momentum.hpp"

namespace matopt {

namespace fn {
struct take_sign {
  template <class T>
  MATOPT_HD void operator()(T& u) const {
    u = math::sign(u);
  }
};
}  // namespace fn

template <class Inner = nesterov_ema>
struct sign_of {
  static constexpr bool needs_reference = matopt::needs_reference<Inner>;
  static constexpr bool rates_by_column = matopt::rates_by_column<Inner>;
  static constexpr index_t phases = phase_count<Inner>;

  Inner inner{};

  static std::string name() { return "sign_of<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }
  index_t phase(index_t step) const { return detail::phase_of(inner, step); }

  template <class S, class C>
  using state = state_for<Inner, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(inner, l, s);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    if constexpr (requires { inner.init(e, s, w); }) inner.init(e, s, w);
  }
  template <class E, class St, class G, class U>
  auto accumulate(E& e, St& s, const G& g, view<U> u) const {
    const auto lr = detail::accumulate(inner, e, s, g, u);
    e.for_each(fn::take_sign{}, u);
    return lr;
  }
};

}  // namespace matopt
