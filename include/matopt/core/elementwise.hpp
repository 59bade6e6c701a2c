// elementwise: a formula together with its arguments, before it runs. An operation of a policy returns what remains of
// its work in this form, and the step joins it with its neighbours': one pass over memory instead of several, and
// intermediate matrices that are never stored.
//
//   elementwise(fn::momentum{...}, s.buffer, update_slot{}, g)      m <- ..., u <- ..., given g
//   either(amsgrad, x, y)                                           x if amsgrad, y otherwise: two types, one formula
//   x >> y                                                          x, and then y on the same u
//
// The arguments are those of for_each, with update_slot in the place of the update u. Of joined formulas each sees what
// memory held before, apart from u, and no two write the same matrix.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "broadcast.hpp"
#include "functors.hpp"
#include "work.hpp"

namespace MATOPT_NAMESPACE {

struct update_slot {};  // stands for the update u

namespace detail {
// f with u in the places that Slot marks and the other arguments in the rest, in their order.
template <class F, bool... Slot>
struct with_update_first {
  F f;
  template <class T, class... Rest>
  MATOPT_HD void operator()(T& u, Rest&... rest) const {
    T* const others[] = {&u, &rest...};
    call(others, std::make_index_sequence<sizeof...(Slot)>{});
  }

 private:
  // The place of argument i among `others`.
  static constexpr std::size_t place(std::size_t i) {
    constexpr bool slot[] = {Slot...};
    if (slot[i]) return 0;
    std::size_t n = 1;
    for (std::size_t k = 0; k < i; ++k) n += !slot[k];
    return n;
  }
  template <class T, std::size_t... I>
  MATOPT_HD void call(T* const* others, std::index_sequence<I...>) const {
    f(*others[place(I)]...);
  }
};

// First f, then g, on the same u: the first Count of the other arguments are f's.
template <class F, std::size_t Count, class G>
struct one_after_the_other {
  F f;
  G g;
  template <class T, class... Rest>
  MATOPT_HD void operator()(T& u, Rest&... rest) const {
    T* const others[] = {&u, &rest...};  // never empty
    call<0>(f, u, others, std::make_index_sequence<Count>{});
    call<Count>(g, u, others, std::make_index_sequence<sizeof...(Rest) - Count>{});
  }

 private:
  template <std::size_t From, class H, class T, std::size_t... I>
  MATOPT_HD static void call(const H& h, T& u, T* const* others, std::index_sequence<I...>) {
    h(u, *others[1 + From + I]...);
  }
};

// f with a u of its own.
template <class F>
struct with_own_update {
  F f;
  template <class T, class... Rest>
  MATOPT_HD void operator()(T& first, Rest&... rest) const {
    T u{};
    f(u, first, rest...);
  }
};

// f, and then the terms of the reduction R of u.
template <class F, class R>
struct then_reduce : R {
  F f;
  MATOPT_HD constexpr then_reduce(F formula) : f(formula) {}
  template <class T, class... Rest>
  MATOPT_HD auto operator()(T& u, Rest&... rest) const {
    f(u, rest...);
    return R::operator()(u);
  }
};

template <class A>
auto unless_slot(A a) {
  if constexpr (std::is_same_v<A, update_slot>)
    return std::tuple<>{};
  else
    return std::tuple<A>{a};
}
}  // namespace detail

// f(u, arguments...): the form that elementwise() brings every formula into.
template <class F, class... A>
struct update_formula {
  F f;
  std::tuple<A...> arguments;
};

template <class F, class... A>
auto elementwise(F f, A... a) {
  if constexpr ((detail::is_scaled<A> || ...)) {
    return detail::spread(
        [&](auto... part) { return elementwise(detail::with_products<F, detail::is_scaled<A>...>(f), part...); },
        std::tuple_cat(detail::parts_of(a)...));
  } else {
    const auto of = [&]<class... B>(std::tuple<B...> arguments) {
      using first = detail::with_update_first<F, std::is_same_v<A, update_slot>...>;
      return update_formula<first, B...>{{f}, arguments};
    };
    return of(std::tuple_cat(detail::unless_slot(a)...));
  }
}

// A formula whose numbers per row come from sums over that row: the arguments of for_rows, but for u.
template <class T, class Sums, class Numbers, class Formula>
struct row_formula {
  Sums sums;
  view<T> out;
  Numbers numbers;
  Formula formula;
};
template <class T, class Sums, class Numbers, class Formula>
row_formula(Sums, view<T>, Numbers, Formula) -> row_formula<T, Sums, Numbers, Formula>;

// One of two formulas, by a setting.
template <class X, class Y>
struct either_formula {
  bool first;
  X x;
  Y y;
};
template <class X, class Y>
either_formula<X, Y> either(bool first, const X& x, const Y& y) {
  return {first, x, y};
}

// What remains where nothing does.
struct nothing {};

namespace detail {
template <class F>
inline constexpr bool is_formula = std::is_same_v<F, nothing>;
template <class F, class... A>
inline constexpr bool is_formula<update_formula<F, A...>> = true;
template <class T, class Sums, class Numbers, class Formula>
inline constexpr bool is_formula<row_formula<T, Sums, Numbers, Formula>> = true;
template <class X, class Y>
inline constexpr bool is_formula<either_formula<X, Y>> = true;
template <class F>
inline constexpr bool is_either = false;
template <class X, class Y>
inline constexpr bool is_either<either_formula<X, Y>> = true;

template <class F, class... A, class G, class... B>
auto joined(const update_formula<F, A...>& x, const update_formula<G, B...>& y) {
  return update_formula<one_after_the_other<F, sizeof...(A), G>, A..., B...>{{x.f, y.f},
                                                                             std::tuple_cat(x.arguments, y.arguments)};
}
template <class T, class Sums, class Numbers, class Formula, class G, class... B>
auto joined(const row_formula<T, Sums, Numbers, Formula>& x, const update_formula<G, B...>& y) {
  return row_formula{x.sums, x.out, x.numbers, joined(x.formula, y)};
}
}  // namespace detail

// x, and then y on the same u.
template <class X, class Y>
requires(detail::is_formula<X>&& detail::is_formula<Y>) auto operator>>(const X& x, const Y& y) {
  if constexpr (std::is_same_v<X, nothing>)
    return y;
  else if constexpr (std::is_same_v<Y, nothing>)
    return x;
  else if constexpr (detail::is_either<X>)
    return either(x.first, x.x >> y, x.y >> y);
  else if constexpr (detail::is_either<Y>)
    return either(y.first, x >> y.x, x >> y.y);
  else
    return detail::joined(x, y);
}

// The formula on u; with a reduction of u besides; or without storing u.
template <class F, class... A, class U>
auto work_of(const update_formula<F, A...>& x, view<U> u) {
  return detail::spread([&](auto... a) { return work_on(x.f, u, a...); }, x.arguments);
}
template <class R, class F, class... A, class U>
auto work_of_and_reduce(const update_formula<F, A...>& x, view<U> u) {
  return detail::spread([&](auto... a) { return work_on(detail::then_reduce<F, R>(x.f), u, a...); }, x.arguments);
}
template <class F, class... A>
auto work_of(const update_formula<F, A...>& x) {
  return detail::spread([&](auto... a) { return work_on(detail::with_own_update<F>{x.f}, a...); }, x.arguments);
}

// Runs a formula on u ...
template <class E, class F, class... A, class U>
void run_formula(E& e, const update_formula<F, A...>& x, view<U> u) {
  detail::spread([&](auto... a) { e.for_each(x.f, u, a...); }, x.arguments);
}
// ... on u, with a reduction of it in the same pass ...
template <class E, class R, class F, class... A, class U, class T>
void run_formula_and_reduce(E& e, R, view<T> out, const update_formula<F, A...>& x, view<U> u) {
  detail::spread([&](auto... a) { e.reduce(detail::then_reduce<F, R>(x.f), out, u, a...); }, x.arguments);
}
// ... or without storing u.
template <class E, class F, class... A>
void run_formula(E& e, const update_formula<F, A...>& x) {
  detail::spread([&](auto... a) { e.for_each(detail::with_own_update<F>{x.f}, a...); }, x.arguments);
}

template <class E, class T, class Sums, class Numbers, class Formula, class U>
void run_formula(E& e, const row_formula<T, Sums, Numbers, Formula>& x, view<U> u) {
  e.for_rows(x.sums, x.out, x.numbers, work_of(x.formula, u));
}
template <class E, class R, class T, class Sums, class Numbers, class Formula, class U, class V>
void run_formula_and_reduce(E& e, R, view<V> out, const row_formula<T, Sums, Numbers, Formula>& x, view<U> u) {
  e.for_rows_and_reduce(x.sums, x.out, x.numbers, work_of_and_reduce<R>(x.formula, u), out);
}
template <class E, class T, class Sums, class Numbers, class Formula>
void run_formula(E& e, const row_formula<T, Sums, Numbers, Formula>& x) {
  e.for_rows(x.sums, x.out, x.numbers, work_of(x.formula));
}
template <class E, class X, class Y, class... U>
void run_formula(E& e, const either_formula<X, Y>& f, U... u) {
  f.first ? run_formula(e, f.x, u...) : run_formula(e, f.y, u...);
}
template <class E, class R, class X, class Y, class U, class T>
void run_formula_and_reduce(E& e, R r, view<T> out, const either_formula<X, Y>& f, view<U> u) {
  f.first ? run_formula_and_reduce(e, r, out, f.x, u) : run_formula_and_reduce(e, r, out, f.y, u);
}
template <class E, class... U>
void run_formula(E&, nothing, U...) {}
template <class E, class R, class U, class T>
void run_formula_and_reduce(E& e, R r, view<T> out, nothing, view<U> u) {
  e.reduce(r, out, as_const(u));
}

}  // namespace MATOPT_NAMESPACE
