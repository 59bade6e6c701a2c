// Momentum of orthogonalized gradients, instead of orthogonalized momentum: u = <G, P> Inner(P), P = polar(G).
//
// The polar_first form of PolarGrad (arXiv 2505.21799). The orthogonalizer slot then has nothing left to do. State:
// Inner's and the orthogonalizer's. Needs: what the orthogonalizer needs.
#pragma once
#include "../../core/policy.hpp"
#include "../orthogonalizer/nuclear_scaled.hpp"
#include "momentum.hpp"

namespace matopt {

template <class Orthogonalizer, class Inner = ema>
requires(!needs_reference<Inner>) struct polar_first {
  static constexpr bool rates_by_column = matopt::rates_by_column<Inner>;
  static constexpr index_t phases = phase_count<Inner>;

  Orthogonalizer orthogonalizer{};
  Inner inner{};

  static std::string name() { return "polar_first<" + Orthogonalizer::name() + "," + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Orthogonalizer>) Orthogonalizer::settings(self.orthogonalizer, visit);
    Inner::settings(self.inner, visit);
  }

  index_t phase(index_t step) const { return detail::phase_of(inner, step); }

  template <class S, class C>
  struct state {
    state_for<Orthogonalizer, S, C> orthogonalizer;
    state_for<Inner, S, C> inner;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(orthogonalizer, l, s.orthogonalizer);
    lay_out(inner, l, s.inner);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    if constexpr (requires { orthogonalizer.init(e, s.orthogonalizer, w); })
      orthogonalizer.init(e, s.orthogonalizer, w);
    if constexpr (requires { inner.init(e, s.inner, w); }) inner.init(e, s.inner, w);
  }
  template <class E, class St, class G, class U>
  requires requires(const Orthogonalizer& o, E& e, St& s, view<U> u) { o.orthogonalize(e, s.orthogonalizer, u); }
  auto accumulate(E& e, St& s, view<G> g, view<U> u) const {
    // No frame: a rate that Inner returns lasts until the end of the step.
    const view<U> before = e.take_like(u), size = e.take(1, 1);
    e.for_each(fn::assign{}, before, as_const(g));
    e.for_each(fn::assign{}, u, as_const(before));
    detail::orthogonalize(orthogonalizer, e, s.orthogonalizer, u);
    e.reduce(fn::product{}, size, as_const(before), as_const(u));
    const auto lr = detail::accumulate(inner, e, s.inner, as_const(u), u);
    e.for_each(fn::multiply{}, u, per_matrix(size));
    return lr;
  }
};

}  // namespace matopt
