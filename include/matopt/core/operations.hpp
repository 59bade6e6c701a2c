// Operations of policies as the step and other policies run them: with what remains of each as a formula.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <type_traits>
#include <utility>

#include "elementwise.hpp"
#include "markers.hpp"
#include "pass.hpp"
#include "scaled_norm.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class V>
inline constexpr bool is_view = false;
template <class T>
inline constexpr bool is_view<view<T>> = true;

// --- what an operation takes ---
template <class P, class E, class St, class G, class U>
concept accumulates = requires(const P p, E& e, St& s, const G g, U u) {
  p.accumulate(e, s, g, u);
};
// ... with a formula as its result, or with memory for it.
template <class P, class E, class St, class G>
concept takes_gradient = accumulates<P, E, St, G, update_slot> || accumulates<P, E, St, G, view<typename E::compute>>;
template <class P, class E, class St, class U>
concept orthogonalizes_as = requires(const P p, E& e, St& s, U u) {
  p.orthogonalize(e, s, u);
};
template <class P, class E, class St, class U>
concept normalizes = requires(const P p, E& e, St& s, U u) {
  p.normalize(e, s, u);
};
// Whether an operation does nothing: it takes an update that does not lie in memory, and returns nothing to be done.
template <class P, class E, class St>
concept leaves_direction = requires(const P p, E& e, St& s) {
  { p.orthogonalize(e, s, update_slot{}) } -> std::same_as<void>;
};
template <class P, class E, class St>
concept leaves_update = requires(const P p, E& e, St& s) {
  { p.normalize(e, s, update_slot{}) } -> std::same_as<void>;
};
template <class P, class E, class St, class W, class U, class Rate>
concept retracts = requires(const P p, E& e, St& s, view<W> w, U u, Rate lr) {
  p.retract(e, s, w, u, lr, 1.0);
};
template <class P, class E, class St, class W, class G>
constexpr bool has_lift() {
  if constexpr (requires(const P p, E& e, St& s, view<W> w, const G g) { p.lift(e, s, w, g); })
    return true;
  else if constexpr (decorator<P>)
    return has_lift<typename P::decorates, E,
                    std::remove_reference_t<decltype(inner_state(std::declval<const P&>(), std::declval<St&>()))>, W,
                    G>();
  else
    return false;
}
template <class P, class E, class St, class W, class G>
concept lifts = has_lift<P, E, St, W, G>();

// What `run` returns, with `nothing` for void.
template <class Run>
auto remains(Run run) {
  if constexpr (std::is_void_v<decltype(run())>) {
    run();
    return nothing{};
  } else {
    return run();
  }
}

template <class P, class E, class St, class W, class G>
requires lifts<P, E, St, W, G>
auto lift(const P& constraint, E& e, St& s, view<W> w, const G& g) {
  if constexpr (requires { constraint.lift(e, s, w, g); })
    return remains([&] { return constraint.lift(e, s, w, g); });
  else
    return lift(constraint.inner, e, inner_state(constraint, s), w, g);
}
template <class P, class E, class St, class W, class G>
inline constexpr bool changes_gradient = false;
template <class P, class E, class St, class W, class G>
requires lifts<P, E, St, W, G>
inline constexpr bool changes_gradient<P, E, St, W, G> =
    !std::is_same_v<decltype(lift(std::declval<const P&>(), std::declval<E&>(), std::declval<St&>(),
                                  std::declval<view<W>>(), std::declval<const G&>())),
                    nothing>;

// --- for decorators, and for policies that use others: each returns what remains ---

// A momentum's operation, with u in memory, or with an update_slot for it if the policy takes that.
template <class P, class E, class St, class G, class U>
requires accumulates<P, E, St, G, U>
auto accumulate(const P& momentum, E& e, St& s, const G& g, U u) {
  return remains([&] { return momentum.accumulate(e, s, g, u); });
}
// The same of a gradient that lies in u.
template <class P, class E, class St, class C>
auto accumulate_on(const P& momentum, E& e, St& s, view<C> u) {
  if constexpr (accumulates<P, E, St, update_slot, update_slot>)
    return momentum.accumulate(e, s, update_slot{}, update_slot{});
  else if constexpr (accumulates<P, E, St, view<const C>, update_slot>)
    return momentum.accumulate(e, s, as_const(u), update_slot{});
  else
    return accumulate(momentum, e, s, as_const(u), u);
}
// The same with nothing left to be done: the direction is written to u.
template <class P, class E, class St, class G, class C>
requires takes_gradient<P, E, St, G>
void accumulate_all(const P& momentum, E& e, St& s, const G& g, view<C> u) {
  if constexpr (accumulates<P, E, St, G, update_slot>)
    run_formula(e, momentum.accumulate(e, s, g, update_slot{}), u);
  else
    run_formula(e, accumulate(momentum, e, s, g, u), u);
}

// Where an orthogonalizer that takes a norm is to leave its result: in u; or, for the least work, in u's memory, in
// scratch, and in an element type of its own. A function of (view, first member, count) gets it in parts.
struct in_place {};
struct anywhere {};
template <class To>
concept to_memory = std::same_as<To, in_place> || std::same_as<To, anywhere>;

template <class P, class E, class St>
constexpr bool takes_update() {
  using C = typename E::compute;
  if constexpr (takes_norm<P>) return requires(const P p, E& e, St& s, view<C> u, scaled_norm<C> norm) {
      p.orthogonalize(e, s, u, norm, in_place{});
    };
  else
    return orthogonalizes_as<P, E, St, view<C>> || orthogonalizes_as<P, E, St, update_slot>;
}
template <class P, class E, class St>
concept can_orthogonalize = takes_update<P, E, St>();

// An orthogonalizer's operation with nothing left to be done: the result replaces u.
template <class P, class E, class St, class C>
requires can_orthogonalize<P, E, St>
void orthogonalize(const P& orthogonalizer, E& e, St& s, view<C> u) {
  if constexpr (takes_norm<P>) {
    const auto frame = e.frame();
    const auto norm = take_norm(e);
    e.reduce(fn::scaled_norm{}, norm.pair, as_const(u));
    orthogonalizer.orthogonalize(e, s, u, norm, in_place{});
  } else if constexpr (orthogonalizes_as<P, E, St, update_slot>) {
    run_formula(e, remains([&] { return orthogonalizer.orthogonalize(e, s, update_slot{}); }), u);
  } else {
    const auto frame = e.frame();
    const auto result = remains([&] { return orthogonalizer.orthogonalize(e, s, u); });
    if constexpr (is_formula<std::decay_t<decltype(result)>>)
      run_formula(e, result, u);
    else
      e.for_each(fn::assign{}, u, as_const(result));
  }
}

// What a constraint leaves of a step along u, which a decorator has in memory or hands on as an update_slot.
template <class P, class E, class St, class W, class U, class Rate>
concept retracts_from = retracts<P, E, St, W, update_slot, Rate> ||(is_view<U>&& retracts<P, E, St, W, U, Rate>);
template <class P, class E, class St, class W, class U, class Rate>
requires retracts_from<P, E, St, W, U, Rate>
auto retract(const P& constraint, E& e, St& s, view<W> w, U u, Rate lr, double scale) {
  if constexpr (retracts<P, E, St, W, update_slot, Rate>)
    return remains([&] { return constraint.retract(e, s, w, update_slot{}, lr, scale); });
  else
    return remains([&] { return constraint.retract(e, s, w, u, lr, scale); });
}

}  // namespace MATOPT_NAMESPACE::detail
