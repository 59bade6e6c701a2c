// The polar factor of the weight itself, after the inner step Z.
//
//   nuclear_polar_decay   W <- Z - lr nuclear_strength polar(Z)          spectral weight decay
//   polar_retraction      W <- polar(Z)
//   stiefel<O>            projected<polar_retraction<O>, decoupled_decay>:  W <- polar((1 - lr decay) W - lr scale u)
//
// nuclear_polar_decay takes nuclear_strength lr from every singular value: where they all are larger it is the prox of
// the nuclear norm (nuclear_prox), a smaller one crosses zero. Reported strengths: 0.7 to 1 under Adam, 0.4 under Muon,
// 4 under Lion. polar_retraction: SPEL, Muon on the Stiefel manifold (arXiv 2601.21487; NVIDIA Emerging-Optimizers).
// The weight begins on it, or is put there by the first step; a zero weight with a zero update stays zero.
//
// The orthogonalizer is any that keeps no state; its settings have the prefix weight_. The retraction's default is
// exact: five quintic Newton-Schulz steps leave singular values in [0.7, 1.2], and W would shake by that in every step.
// An orthogonalizer that honours a rank budget would cut these factors, too, so there is no budget beside it. State:
// none. FLOPs, needs: the orthogonalizer's.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../orthogonalizer/newton_schulz.hpp"
#include "../orthogonalizer/svd_polar.hpp"
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

// clang-format off
// An orthogonalizer that may compute polar factors inside another policy.
template <class P>
concept stateless_orthogonalizer = std::copyable<P> && std::same_as<state_for<P, float, float>, no_state> &&
  requires { { P::name() } -> std::convertible_to<std::string>; };
// clang-format on

namespace fn {
// w = w - lr strength x
struct step_along {
  double strength;
  template <class T>
  MATOPT_HD void operator()(T& w, T x, T lr) const {
    w -= lr * T(strength) * x;
  }
};
}  // namespace fn

namespace detail {
// Visits the settings of a policy inside another one, with a prefix that tells them from those of the same policy in
// its own slot.
template <class P, class Visit>
void prefixed_settings(const char* prefix, P& policy, Visit& visit) {
  if constexpr (has_settings<P>)
    P::settings(policy, [&](std::string_view name, auto& value, auto... legal) {
      visit(prefix + std::string(name), value, legal...);
    });
}
// Runs an orthogonalizer outside its slot.
template <class O, class E, class C>
void polar(const O& orthogonalizer, E& e, view<C> x) {
  no_state none;
  detail::orthogonalize(orthogonalizer, e, none, x);
}
}  // namespace detail

template <stateless_orthogonalizer Orthogonalizer = newton_schulz<>>
struct nuclear_polar_decay {
  static constexpr bool needs_full_rank = honours_rank<Orthogonalizer>;

  double strength = 0.4;
  Orthogonalizer orthogonalizer{};

  static std::string name() { return "nuclear_polar_decay<" + Orthogonalizer::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("nuclear_strength", self.strength, range{.low = 0});
    detail::prefixed_settings("weight_", self.orthogonalizer, visit);
  }
  void validate() const { detail::validate(orthogonalizer); }
  template <class E, class St, class W, class C>
  void after(E& e, St&, view<W> w, matrix_broadcast<C> lr, double) const {
    const auto frame = e.frame();
    const view<C> x = e.take_like(w);
    e.for_each(fn::assign{}, x, as_const(w));
    detail::polar(orthogonalizer, e, x);
    e.for_each(fn::step_along{strength}, w, as_const(x), lr);
  }
};

template <stateless_orthogonalizer Orthogonalizer = svd_polar>
struct polar_retraction {
  static constexpr bool needs_full_rank = honours_rank<Orthogonalizer>;

  Orthogonalizer orthogonalizer{};

  static std::string name() { return "polar_retraction<" + Orthogonalizer::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    detail::prefixed_settings("weight_", self.orthogonalizer, visit);
  }
  void validate() const { detail::validate(orthogonalizer); }
  template <class E, class St, class W, class Rate>
  void after(E& e, St&, view<W> w, Rate, double) const {
    if constexpr (requires { orthogonalizer.orthogonalize_nearby(e, w); })
      if (orthogonalizer.orthogonalize_nearby(e, w)) return;
    const auto frame = e.frame();
    const auto x = e.take_like(w);
    e.for_each(fn::assign{}, x, as_const(w));
    detail::polar(orthogonalizer, e, x);
    e.for_each(fn::assign{}, w, as_const(x));
  }
};

template <stateless_orthogonalizer Orthogonalizer = svd_polar>
using stiefel = projected<polar_retraction<Orthogonalizer>, decoupled_decay>;

}  // namespace MATOPT_NAMESPACE
