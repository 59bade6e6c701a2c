// The five slots. A policy is an aggregate of hyperparameters; what each slot's operation must look like stands above
// its concept. E is a pass<Backend, Compute>, St the policy's state, G/U views of gradients and updates.
#pragma once
#include <concepts>
#include <string>

#include "elementwise.hpp"
#include "gradient_pair.hpp"
#include "pass.hpp"
#include "settings.hpp"
#include "state_layout.hpp"
#include "types.hpp"

namespace matopt {

namespace detail {
template <class P>
index_t phase_of(const P& momentum, index_t step) {
  if constexpr (requires { P::phases; })
    return momentum.phase(step);
  else
    return 0;
}

// What a verb may read although it is also written elsewhere: a view as a const one.
template <class T>
view<const T> readable(view<T> v) {
  return v;
}
template <class G>
const G& readable(const G& g) {
  return g;
}

struct any_use {
  template <class F>
  void operator()(const F&) const {}
};
// P's work is one elementwise formula, given the gradient as a G.
template <class P, class E, class St, class G>
concept has_formula = requires(const P p, E& e, St& s, G g) {
  p.formula(e, s, g, any_use{});
};
template <class P>
concept has_plain_formula = requires(const P p) {
  p.formula();
};
template <class P, class E, class St, class W>
concept has_retract_formula = requires(const P p, E& e, St& s, view<W> w) {
  p.retract_formula(e, s, w, e.lr(), 1.0);
};
template <class P, class E, class St, class W, class G>
concept has_lift_formula = requires(const P p, E& e, St& s, view<W> w, G g) {
  p.lift_formula(e, s, w, g);
};

// An operation has one form. A policy that has two (a formula beside it) says that they are the same work by
// `using both_forms_agree = itself;`. A policy derived from it inherits the formula, and not that word, so an operation
// of its own is never passed over in silence.
template <class P>
concept both_forms_agree = requires {
  requires std::same_as<typename P::both_forms_agree, P>;
};

// Runs an orthogonalizer in place, whatever it returns.
template <class P, class E, class St, class C>
void orthogonalize(const P& orthogonalizer, E& e, St& s, view<C> u) {
  if constexpr (std::is_void_v<decltype(orthogonalizer.orthogonalize(e, s, u))>)
    orthogonalizer.orthogonalize(e, s, u);
  else
    e.for_each(fn::assign{}, u, as_const(orthogonalizer.orthogonalize(e, s, u)));
}
// Runs a momentum policy; the learning rate of the step, which is the pass's unless the policy says otherwise.
template <class P, class E, class St, class G, class U>
requires(has_formula<P, E, St, G> || requires(const P p, E& e, St& s, const G& g, view<U> u) {
  p.accumulate(e, s, g, u);
}) auto accumulate(const P& momentum, E& e, St& s, const G& g, view<U> u) {
  if constexpr (has_formula<P, E, St, G>) {
    momentum.formula(e, s, readable(g), [&](const auto& f) { run_formula(e, f, u); });
    return e.lr();
  } else if constexpr (std::is_void_v<decltype(momentum.accumulate(e, s, g, u))>) {
    momentum.accumulate(e, s, g, u);
    return e.lr();
  } else {
    return momentum.accumulate(e, s, g, u);
  }
}
// Runs a normalizer in place.
template <class P, class E, class St, class C>
requires(has_formula<P, E, St, view<const C>> || requires(const P p, E& e, St& s, view<C> u) {
  p.normalize(e, s, u);
}) void normalize(const P& normalizer, E& e, St& s, view<C> u) {
  if constexpr (has_formula<P, E, St, view<const C>>) {
    const auto frame = e.frame();
    normalizer.formula(e, s, as_const(u), [&](const auto& f) { run_formula(e, f, u); });
  } else {
    normalizer.normalize(e, s, u);
  }
}
// Runs a constraint's retract.
template <class P, class E, class St, class W, class U, class Rate>
requires(
    requires(const P p, E& e, St& s, view<W> w, Rate lr) { p.retract_formula(e, s, w, lr, 1.0); } ||
    requires(const P p, E& e, St& s, view<W> w, view<U> u, Rate lr) {
      p.retract(e, s, w, u, lr, 1.0);
    }) void retract(const P& constraint, E& e, St& s, view<W> w, view<U> u, Rate lr, double scale) {
  if constexpr (requires { constraint.retract_formula(e, s, w, lr, scale); })
    run_formula(
        e, elementwise(fn::assign{}, update_slot{}, as_const(u)) >> constraint.retract_formula(e, s, w, lr, scale));
  else
    constraint.retract(e, s, w, u, lr, scale);
}
}  // namespace detail

template <class P, class Types>
using state_of = state_for<P, typename Types::state, typename Types::compute>;

// clang-format off
// Every policy: static std::string name(); with state also template <class S, class C> struct state and void layout(l, state) const.
template <class P, class Types>
concept policy = std::copyable<P> && requires(const P p, state_layout<typename Types::state, typename Types::compute>& l, state_of<P, Types>& s) {
  { P::name() } -> std::convertible_to<std::string>;
  lay_out(p, l, s);
};

// Momentum: accumulate(pass, state, g, u) takes the gradient g into its state and writes the direction u. u may be g.
//   In its place, where that is one elementwise formula: formula(pass, state, g, use) calls use(elementwise(...)) with it. It may run
//   verbs before. If it takes update_slot as g, it may be joined with a constraint's lift; if it takes a scaled_view, the step's
//   gradient scale is a factor in it, and no scaled copy is stored.
//   It returns nothing. A policy has accumulate or formula, not both.
//   `static constexpr bool needs_reference = true`: g is a gradient_pair.
//   It may return the learning rate of this step in place of pass.lr(): one per matrix, or, with
//   `static constexpr bool rates_by_column = true`, one per column. Scratch that it takes without a frame lasts until the end of retract.
template <class P>
concept needs_reference = requires { requires P::needs_reference; };
template <class P>
concept rates_by_column = requires { requires P::rates_by_column; };

//   If what it does depends on the number of the step (SOAP renews its bases now and then): `static constexpr index_t phases` and
//   phase(step), in [0, phases), for a step counted from 0; it then acts by pass.phase(). The verbs may differ from phase to phase.
template <class P>
inline constexpr index_t phase_count = 1;
template <class P> requires requires { P::phases; }
inline constexpr index_t phase_count<P> = P::phases;

template <class P, class T>
using gradient_for = std::conditional_t<needs_reference<P>, gradient_pair<const T>, view<const T>>;

template <class P, class E, class St, class G, class U>
concept one_form_of_accumulate = detail::both_forms_agree<P> || !detail::has_formula<P, E, St, G> ||
  !requires(const P p, E& e, St& s, const G& g, U u) { p.accumulate(e, s, g, u); };
template <class P, class E, class St, class G>
concept formula_returns_no_rate = !detail::has_formula<P, E, St, G> ||
  requires(const P p, E& e, St& s, G g) { { p.formula(e, s, g, detail::any_use{}) } -> std::same_as<void>; };
template <class P>
concept phases_are_declared = requires { P::phases; } || !requires(const P p, index_t step) { p.phase(step); };
// Only a momentum has phases.
template <class P>
concept has_no_phases = !requires { P::phases; };

template <class P, class B, class Types>
concept momentum_policy = policy<P, Types> && phases_are_declared<P> &&
  one_form_of_accumulate<P, pass<B, typename Types::compute>, state_of<P, Types>, gradient_for<P, typename Types::gradient>, view<typename Types::compute>> &&
  formula_returns_no_rate<P, pass<B, typename Types::compute>, state_of<P, Types>, gradient_for<P, typename Types::gradient>> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, gradient_for<P, typename Types::gradient> g,
           gradient_for<P, typename Types::compute> lifted, view<typename Types::compute> u) {
    detail::accumulate(p, e, s, g, u);
    detail::accumulate(p, e, s, lifted, u);
  };

// Orthogonalizer: orthogonalize(pass, state, u) replaces u by the step direction of its geometry. One that keeps to pass.rank()
// and pass.tail() says so by `static constexpr bool honours_rank = true`. If it is one elementwise formula, formula() gives that, too.
//   It may return a view of its own with the result, in u's memory or taken before any frame, in place of void; and may take the norm of u as a fourth
//   argument, a detail::scaled_norm that the step then has measured while u was written. It may besides
//   take as a fifth who gets the result, some members of the bucket at a time: use(view, first, count); then it returns nothing.
template <class P, class E, class St, class U>
concept one_form_of_orthogonalize = detail::both_forms_agree<P> || !detail::has_plain_formula<P> ||
  !requires(const P p, E& e, St& s, U u) { p.orthogonalize(e, s, u); };

template <class P, class B, class Types>
concept orthogonalizer_policy = policy<P, Types> && has_no_phases<P> &&
  one_form_of_orthogonalize<P, pass<B, typename Types::compute>, state_of<P, Types>, view<typename Types::compute>> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<typename Types::compute> u) { p.orthogonalize(e, s, u); };

// Normalizer: normalize(pass, state, u) rescales u in place. In its place, where that ends in one elementwise formula:
//   formula(pass, state, u, use), which only reads u, of any element type, runs verbs and calls use(elementwise(...)); or formula(), if
//   it need not look at u. `static constexpr bool leaves_update = true`: it does nothing.
template <class P, class E, class St, class C>
concept one_form_of_normalize = detail::both_forms_agree<P> ||
  !(detail::has_plain_formula<P> || detail::has_formula<P, E, St, view<const C>>) ||
  !requires(const P p, E& e, St& s, view<C> u) { p.normalize(e, s, u); };

template <class P, class B, class Types>
concept normalizer_policy = policy<P, Types> && has_no_phases<P> &&
  one_form_of_normalize<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::compute> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<typename Types::compute> u) { detail::normalize(p, e, s, u); };

// Constraint: lift(pass, state, w, g, u) returns the gradient in the coordinates that are optimised: g itself, or u after
// writing it; `static constexpr bool changes_gradient = true` says the latter. `using leaves_gradient = itself;` says that lift
// does nothing at all, and need not be called; any other lift is called in every step, also one that only looks at g. Scratch that lift takes without a frame lasts
// until the end of retract. retract(pass, state, w, u, lr, scale) writes the weight, moved by -lr * scale * u in those
// coordinates. lr is one number per matrix; `static constexpr bool takes_column_rates = true`: one per column will do, too.
//   `static constexpr bool only_reads_update = true`: retract leaves u alone and takes it in any element type.
//   In the place of retract, where that is one elementwise formula: retract_formula(pass, state, w, lr, scale). Where lift ends in one,
//   lift_formula(pass, state, w, g) gives that, too; g may be a scaled_view.
template <class P>
concept leaves_gradient = requires { requires std::same_as<typename P::leaves_gradient, P>; };  // not so of a policy derived from P
template <class P>
concept changes_gradient = requires { requires P::changes_gradient; };

template <class P, class E, class St, class W, class G, class U>
concept one_form_of_lift = detail::both_forms_agree<P> || !detail::has_lift_formula<P, E, St, W, view<const G>> ||
  !requires(const P p, E& e, St& s, view<W> w, view<const G> g, view<U> u) { p.lift(e, s, w, g, u); };
template <class P, class E, class St, class W, class U>
concept one_form_of_retract = detail::both_forms_agree<P> || !detail::has_retract_formula<P, E, St, W> ||
  !requires(const P p, E& e, St& s, view<W> w, view<U> u) { p.retract(e, s, w, u, e.lr(), 1.0); };
// A lift that returns u says so. (Asked with gradients of another type than u, so that the two can be told apart.)
template <class P, class E, class St, class W, class G, class U>
concept says_that_it_changes_gradient = changes_gradient<P> || leaves_gradient<P> ||
  !requires(const P p, E& e, St& s, view<W> w, view<const G> g, view<U> u) { p.lift(e, s, w, g, u); } ||
  requires(const P p, E& e, St& s, view<W> w, view<const G> g, view<U> u) { { p.lift(e, s, w, g, u) } -> std::same_as<view<const G>>; };

template <class P, class B, class Types>
concept constraint_policy = policy<P, Types> && has_no_phases<P> &&
  one_form_of_lift<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::weight, typename Types::gradient, typename Types::compute> &&
  one_form_of_retract<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::weight, typename Types::compute> &&
  says_that_it_changes_gradient<P, pass<B, typename Types::compute>, state_of<P, Types>, typename Types::weight,
                                std::conditional_t<std::is_same_v<typename Types::compute, float>, double, float>, typename Types::compute> &&
  requires(const P p, pass<B, typename Types::compute>& e, state_of<P, Types>& s, view<typename Types::weight> w,
           view<const typename Types::gradient> g, view<const typename Types::compute> scaled, view<typename Types::compute> u,
           matrix_broadcast<typename Types::compute> lr, double scale) {
    p.lift(e, s, w, g, u);
    p.lift(e, s, w, scaled, u);
    detail::retract(p, e, s, w, u, lr, scale);
  };
template <class P>
concept takes_column_rates = requires { requires P::takes_column_rates; };
template <class P>
concept only_reads_update = requires { requires P::only_reads_update; };
template <class P>
concept leaves_update = requires { requires P::leaves_update; };

//   `static constexpr bool keeps_master = true`: what retract writes is a copy of its state, so that a change of the weight
//   by anyone else does not last. A decorator that would change it is not allowed around such a constraint.
template <class P>
concept keeps_master = requires { requires P::keeps_master; };
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
concept limits_rank = requires(const P p, index_t n) { { p.rank_budget(n, n) } -> std::convertible_to<double>; };

template <class P>
concept honours_rank = requires { requires P::honours_rank; };

// What no rule may combine:
// a rank budget with an orthogonalizer that would ignore it;
template <class Orthogonalizer, class Constraint>
concept rank_budget_is_honoured = !limits_rank<Constraint> || honours_rank<Orthogonalizer>;
// a reference gradient, taken at other weights, with a constraint that maps gradients by the present ones;
template <class Momentum, class Constraint>
concept reference_is_comparable = !needs_reference<Momentum> || !changes_gradient<Constraint>;
// a learning rate per column with a constraint that has no use for it.
template <class Momentum, class Constraint>
concept column_rates_are_taken = !rates_by_column<Momentum> || takes_column_rates<Constraint>;
// clang-format on

}  // namespace matopt
