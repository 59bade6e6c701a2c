// A constraint that is an inner constraint plus something done to the update before, or to the weight after, its step.
//
//   P.before(pass, state, w, u, lr, scale)      adjusts the update u, given the weight (or the weight itself)
//   Inner.retract(...)                          moves the weight
//   P.after(pass, state, w, lr, scale)          corrects the weight
//
// A weight projection P has one of the two, or both; settings, state and init as every policy. Scratch that `before`
// takes without a frame lasts until the end of `after`. P may be nested: the outer one acts first before the step, and
// last after it. Without `before` the update need not be stored, and Inner's step joins with what comes before it.
//   using cap = projected<spectral_normalize<>, decoupled_decay>;
// Around a constraint that keeps a master copy of the weight, P's corrections would not last; it does not compile.
//
// P says `static constexpr bool takes_column_rates = true` if lr may be one per column; `needs_svd = true` if it runs
// e.svd; `needs_full_rank = true` if a rank budget would cut its own decompositions, too, and then none is allowed.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "decoupled_decay.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
using any_pass = pass<struct no_backend, float>;  // stands for a pass where only the form of a policy is looked at
}

// clang-format off
template <class P>
concept acts_before_step =
  requires(const P p, detail::any_pass& e, state_for<P, float, float>& s, view<float> w, matrix_broadcast<float> lr, double scale) {
    p.before(e, s, w, w, lr, scale);
  };
template <class P>
concept acts_after_step =
  requires(const P p, detail::any_pass& e, state_for<P, float, float>& s, view<float> w, matrix_broadcast<float> lr, double scale) {
    p.after(e, s, w, lr, scale);
  };
// `after` is called without the update; one that asks for it would never be called, and is refused.
template <class P>
concept acts_after_without_update =
  !requires(const P p, detail::any_pass& e, state_for<P, float, float>& s, view<float> w, matrix_broadcast<float> lr, double scale) {
    p.after(e, s, w, w, lr, scale);
  };
template <class P>
concept weight_projection = std::copyable<P> && requires { { P::name() } -> std::convertible_to<std::string>; } &&
  acts_after_without_update<P> && (acts_before_step<P> || acts_after_step<P>);
// clang-format on

template <weight_projection Projection, class Inner = decoupled_decay>
requires(master_is_outermost<Inner> && (!limits_rank<Inner> || !matopt::needs_full_rank<Projection>)) struct projected {
  using decorates = Inner;
  static constexpr bool takes_column_rates =
      matopt::takes_column_rates<Projection> && matopt::takes_column_rates<Inner>;
  static constexpr bool only_reads_update = !acts_before_step<Projection> && matopt::only_reads_update<Inner>;
  static constexpr bool needs_svd = matopt::needs_svd<Projection> || matopt::needs_svd<Inner>;
  static constexpr bool needs_full_rank = matopt::needs_full_rank<Projection> || matopt::needs_full_rank<Inner>;
  static constexpr bool orthogonalizes = matopt::orthogonalizes<Projection> || matopt::orthogonalizes<Inner>;

  Projection projection{};
  Inner inner{};

  static std::string name() { return "projected<" + Projection::name() + "," + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Projection>) Projection::settings(self.projection, visit);
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }
  void validate() const { detail::validate(projection); }
  double rank_budget(index_t step, index_t q) const requires limits_rank<Inner> { return inner.rank_budget(step, q); }

  template <class S, class C>
  struct state {
    state_for<Projection, S, C> projection{};
    state_for<Inner, S, C> inner{};
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(projection, l, s.projection);
    lay_out(inner, l, s.inner);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::init(projection, e, s.projection, w);
    detail::init(inner, e, s.inner, w);
  }
  template <class E, class St, class W>
  requires(detail::keeps_copy<Projection, E, decltype(St::projection), W>() ||
           detail::keeps_copy<Inner, E, decltype(St::inner), W>())  //
      void resync(E& e, St& s, view<W> w) const {
    detail::resync(projection, e, s.projection, w);
    detail::resync(inner, e, s.inner, w);
  }

  template <class E, class St, class W, class U, class Rate>
  requires((E::can_factor || !needs_svd) &&
           (detail::is_view<U> ||
            !acts_before_step<Projection>)&&detail::retracts_from<Inner, E, decltype(St::inner), W, U,
                                                                  Rate>) auto retract(E& e, St& s, view<W> w, U u,
                                                                                      Rate lr, double scale) const {
    if constexpr (acts_before_step<Projection>) projection.before(e, s.projection, w, u, lr, scale);
    return detail::retract(inner, e, s.inner, w, u, lr, scale);
  }
  template <class E, class St, class W, class Rate>
  void finish(E& e, St& s, view<W> w, Rate lr, double scale) const {
    detail::finish(inner, e, s.inner, w, lr, scale);
    if constexpr (acts_after_step<Projection>) projection.after(e, s.projection, w, lr, scale);
  }
};

}  // namespace MATOPT_NAMESPACE
