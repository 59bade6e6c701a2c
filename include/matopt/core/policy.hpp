// The five slots. A policy is an aggregate of hyperparameters; what each slot's operation must look like stands above
// its concept. E is a pass<Backend, Compute>, St the policy's state, G/U views of gradients and updates.
#pragma once
#include <concepts>
#include <string>

#include "pass.hpp"
#include "settings.hpp"
#include "state_layout.hpp"
#include "types.hpp"

namespace matopt {

template <class P, class Types>
using state_of = state_for<P, typename Types::state, typename Types::compute>;

// clang-format off
// Every policy: static std::string name(); with state also template <class S, class C> struct state and static void layout(l, state).
template <class P, class Types>
concept policy = std::copyable<P> && requires(state_layout<typename Types::state, typename Types::compute>& l, state_of<P, Types>& s) {
  { P::name() } -> std::convertible_to<std::string>;
  lay_out<P>(l, s);
};

// Momentum: accumulate(pass, state, g, u) takes the gradient g into its state and writes the direction u. u may be g.
template <class P, class B, class Types>
concept momentum_policy = policy<P, Types> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<const typename Types::gradient> g, view<typename Types::compute> u) {
    p.accumulate(e, s, g, u);
    p.accumulate(e, s, as_const(u), u);
  };

// Orthogonalizer: orthogonalize(pass, state, u) replaces u by the step direction of its geometry. One that keeps to pass.rank()
// and pass.tail() says so by `static constexpr bool honours_rank = true`.
template <class P, class B, class Types>
concept orthogonalizer_policy = policy<P, Types> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<typename Types::compute> u) { p.orthogonalize(e, s, u); };

// Normalizer: normalize(pass, state, u) rescales u in place.
template <class P, class B, class Types>
concept normalizer_policy = policy<P, Types> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<typename Types::compute> u) { p.normalize(e, s, u); };

// Constraint: lift(pass, state, w, g, u) returns the gradient in the coordinates that are optimised: g itself, or u after
// writing it. Scratch that lift takes without a frame lasts until the end of retract. retract(pass, state, w, u, scale) writes the weight, moved by -lr * scale * u in those coordinates.
template <class P, class B, class Types>
concept constraint_policy = policy<P, Types> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<typename Types::weight> w,
           view<const typename Types::gradient> g, view<typename Types::compute> u, double scale) {
    p.lift(e, s, w, g, u);
    p.retract(e, s, w, u, scale);
  };

// Scale: factor(fan_out, fan_in), a number fixed by the shape.
template <class P>
concept scale_policy = std::copyable<P> && requires(const P p, index_t n) {
  { P::name() } -> std::convertible_to<std::string>;
  { p.factor(n, n) } -> std::convertible_to<double>;
};

// A constraint that caps the rank: rank_budget(step, q) is the allowed sum of singular values in units of the largest, in
// (0, q]; ceil of it is the rank. q = min(rows, cols); the first step is 0.
template <class P>
concept limits_rank = requires(const P p, index_t n) { { p.rank_budget(n, n) } -> std::convertible_to<double>; };

template <class P>
concept honours_rank = requires { requires P::honours_rank; };

// A rank budget with an orthogonalizer that would ignore it is no rule.
template <class Orthogonalizer, class Constraint>
concept rank_budget_is_honoured = !limits_rank<Constraint> || honours_rank<Orthogonalizer>;
// clang-format on

}  // namespace matopt
