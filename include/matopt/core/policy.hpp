// The five slots of a rule, and the one protocol that they all follow. A policy is an aggregate of hyperparameters; E
// is a pass<Backend, Compute>, s the policy's state.
//
//   momentum         accumulate(e, s, g, u)                  takes the gradient g into its state; u: the direction
//   orthogonalizer   orthogonalize(e, s, u)                  the direction of its geometry
//   normalizer       normalize(e, s, u)                      rescales u
//   constraint       lift(e, s, w, g)                        the gradient in the coordinates that are optimised;
//                                                            without it, g
//                    retract(e, s, w, u, lr, scale)          moves the weight by -lr scale u in those coordinates
//                    finish(e, s, w, lr, scale)              what follows when the weight is written, if anything does
//   scale            factor(fan_out, fan_in)                 a number fixed by the shape
//
// **Each operation exists once.** It runs verbs of the pass, and returns what remains of its work as one elementwise
// formula (elementwise.hpp), or nothing. The step joins what remains with the next operation; a policy never does.
//
// **A parameter that is declared as a view asks for memory.** One that is declared by its whole type (`U u`, `G g`) may
// also be an update_slot, a value that exists in the formula alone, or a scaled_view; it goes into the formula as it
// is:
//
//   template <class E, class St, class G, class U>
//   auto accumulate(E&, St& s, G g, U u) const { return elementwise(fn::lion_momentum{...}, s.buffer, u, g); }
//
// What each slot may return besides stands above its concept. lift returns the lifted gradient: as a formula with
// update_slot for it, or in a view of its own; if it only looks at g, nothing. Scratch that an operation takes without
// a frame lasts until the end of the step.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <string>

#include "gradient_pair.hpp"
#include "markers.hpp"
#include "operations.hpp"
#include "pass.hpp"
#include "settings.hpp"
#include "state_layout.hpp"
#include "types.hpp"

namespace MATOPT_NAMESPACE {

template <class P, class Types>
using state_of = state_for<P, typename Types::state, typename Types::compute>;

// clang-format off
// Every policy: static std::string name(); with state also template <class S, class C> struct state and void layout(l, state) const.
template <class P, class Types>
concept policy = std::copyable<P> && requires(const P p, state_layout<typename Types::state, typename Types::compute>& l, state_of<P, Types>& s) {
  { P::name() } -> std::convertible_to<std::string>;
  lay_out(p, l, s);
};

// Momentum: u may be the memory of g. If the learning rate is its own, rate(e, s) returns it, one number per matrix or, with
// `rates_by_column`, per column, in scratch that accumulate took and left in s. If what it does depends on the number of the step (SOAP
// renews its bases now and then): `static constexpr index_t phases` and phase(step), or phase(step, bucket) for the place of a bucket
// among those of the rule, in [0, phases), for a step counted from 0; it then acts by pass.phase(). The verbs may differ from phase to
// phase.
template <class P>
inline constexpr index_t phase_count = detail::count_phases<P>();

template <class P, class T>
using gradient_for = std::conditional_t<needs_reference<P>, gradient_pair<const T>, view<const T>>;

template <class P>
concept phases_are_declared = requires { P::phases; } || !(requires(const P p, index_t n) { p.phase(n); } || requires(const P p, index_t n) { p.phase(n, n); });
// Only a momentum has phases.
template <class P>
concept has_no_phases = phase_count<P> == 1 && !requires { P::phases; };

template <class P, class B, class Types>
concept momentum_policy = policy<P, Types> && phases_are_declared<P> &&
  ((!needs_reference<P> && detail::takes_gradient<P, pass<B, typename Types::compute>, state_of<P, Types>,
                                                   scaled_view<typename Types::gradient, typename Types::compute>>) ||
   detail::takes_gradient<P, pass<B, typename Types::compute>, state_of<P, Types>, gradient_for<P, typename Types::gradient>>);

// Orthogonalizer: instead of a formula it may return a view of its own with the result, in scratch or in u's memory, of any element type.
// With `takes_norm` its form is orthogonalize(e, s, u, norm, to): norm is a detail::scaled_norm that was measured while u was written,
// and `to` says where the result shall be: detail::in_place, or detail::anywhere, for which it returns a view. With `gives_parts` it may
// also be a function to(view, first, count) that gets some members of the bucket at a time; they need not be kept then.
template <class P, class B, class Types>
concept orthogonalizer_policy = policy<P, Types> && has_no_phases<P> &&
  detail::can_orthogonalize<P, pass<B, typename Types::compute>, state_of<P, Types>>;

// Normalizer: if it returns a formula, it only reads u, which may be of any element type.
template <class P, class B, class Types>
concept normalizer_policy = policy<P, Types> && has_no_phases<P> &&
  (detail::normalizes<P, pass<B, typename Types::compute>, state_of<P, Types>, update_slot> ||
   detail::normalizes<P, pass<B, typename Types::compute>, state_of<P, Types>, view<typename Types::compute>>);

// Constraint: lr is one number per matrix; with `takes_column_rates` one per column will do, too.
template <class P, class E, class St, class W, class G, class U>
concept lift_has_four_parameters = !requires(const P p, E& e, St& s, view<W> w, view<const G> g, view<U> u) { p.lift(e, s, w, g, u); };

template <class P, class B, class Types>
concept constraint_policy = policy<P, Types> && has_no_phases<P> &&
  lift_has_four_parameters<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::weight, typename Types::gradient, typename Types::compute> &&
  detail::retracts_from<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::weight, view<typename Types::compute>,
                        matrix_broadcast<typename Types::compute>>;
// It maps gradients.
template <class P, class B, class Types>
concept changes_gradient = detail::changes_gradient<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::weight,
                                                    view<const typename Types::gradient>>;

// A decorator that would change the weight is not allowed around a constraint that keeps a copy of it.
template <class P>
concept master_is_outermost = !keeps_master<P>;

// Scale: factor(fan_out, fan_in), a number fixed by the shape. It keeps no state.
template <class P>
concept scale_policy = std::copyable<P> && !requires { typename P::template state<float, float>; } && requires(const P p, index_t n) {
  { P::name() } -> std::convertible_to<std::string>;
  { p.factor(n, n) } -> std::convertible_to<double>;
};

// A constraint that caps the rank: rank_budget(step, q) is the allowed sum of singular values in units of the largest, in
// (0, q]; ceil of it is the rank. q = min(rows, cols); the first step is 0.
template <class P>
concept limits_rank = requires(const P p, index_t n) { { p.rank_budget(n, n) } -> std::convertible_to<double>; } ||
  (decorator<P> && requires(const P p, index_t n) { p.inner.rank_budget(n, n); });

// What no rule may combine:
// a rank budget with an orthogonalizer that would ignore it;
template <class Orthogonalizer, class Constraint>
concept rank_budget_is_honoured = !limits_rank<Constraint> || honours_rank<Orthogonalizer>;
// a reference gradient, taken at other weights, with a constraint that maps gradients by the present ones;
template <class Momentum, class Constraint, class B, class Types>
concept reference_is_comparable = !needs_reference<Momentum> || !changes_gradient<Constraint, B, Types>;
// a learning rate per column with a constraint that has no use for it;
template <class Momentum, class Constraint>
concept column_rates_are_taken = !rates_by_column<Momentum> || takes_column_rates<Constraint>;
// a momentum with an orthogonalizer that has a buffer of its own in its place;
template <class Momentum, class Orthogonalizer>
concept momentum_is_kept_once = !replaces_momentum<Orthogonalizer> || remembers_nothing<Momentum>;
// two that orthogonalize: the second one would do so with what the first one has flattened.
template <class Momentum, class Orthogonalizer, class Constraint, class B, class Types>
concept orthogonalized_once = !(orthogonalizes<Momentum> && orthogonalizes<Constraint>) &&
  (!(orthogonalizes<Momentum> || orthogonalizes<Constraint>) ||
   detail::leaves_direction<Orthogonalizer, pass<B, typename Types::compute>, state_of<Orthogonalizer, Types>>);
// clang-format on

}  // namespace MATOPT_NAMESPACE
