// Momentum of orthogonalized gradients, instead of orthogonalized momentum: u = <G, P> Inner(P), P = polar(G).
//
// The polar_first form of PolarGrad (arXiv 2505.21799). The orthogonalizer slot then has nothing left to do. State:
// Inner's and the orthogonalizer's. Needs: what the orthogonalizer needs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "../orthogonalizer/nuclear_scaled.hpp"
#include "momentum.hpp"

namespace MATOPT_NAMESPACE {

template <class Orthogonalizer, class Inner = ema>
requires(!needs_reference<Inner>) struct polar_first {
  using decorates = Inner;
  static constexpr bool orthogonalizes = true;

  Orthogonalizer orthogonalizer{};
  Inner inner{};

  static std::string name() { return "polar_first<" + Orthogonalizer::name() + "," + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Orthogonalizer>) Orthogonalizer::settings(self.orthogonalizer, visit);
    Inner::settings(self.inner, visit);
  }

  void validate() const { detail::validate(orthogonalizer); }

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
    detail::init(orthogonalizer, e, s.orthogonalizer, w);
    detail::init(inner, e, s.inner, w);
  }
  template <class E, class St, class G, class U>
  requires detail::can_orthogonalize<Orthogonalizer, E, decltype(St::orthogonalizer)>
  auto accumulate(E& e, St& s, const G& g, view<U> u) const {
    const view<U> before = e.take_like(u), size = e.take(1, 1);
    e.for_each(fn::assign{}, before, as_const(g));
    e.for_each(fn::assign{}, u, as_const(before));
    detail::orthogonalize(orthogonalizer, e, s.orthogonalizer, u);
    e.reduce(fn::product{}, size, as_const(before), as_const(u));
    return detail::accumulate_on(inner, e, s.inner, u) >> elementwise(fn::multiply{}, update_slot{}, per_matrix(size));
  }
};

}  // namespace MATOPT_NAMESPACE
