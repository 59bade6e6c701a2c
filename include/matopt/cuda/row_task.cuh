// row_task: what for_rows does with a row, a functor with its arguments, and how a team of threads goes over one row
// after the other. What two tasks share stays in the registers of the first.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#include "row_numbers.cuh"

namespace MATOPT_NAMESPACE::cuda {

// A functor and its arguments in one row, which the threads of a team share. Whole: all packs have all of their
// elements, and each is one wide access.
template <class Team, class A, class F, class... X>
struct task_in_row {
  const F& f;
  index_t length;
  std::tuple<X...> on;

  __device__ bool wide(index_t lines) const {
    return std::apply([&](const X&... x) { return length % pack_size == 0 && (x.wide(lines) && ...); }, on);
  }
  // Reads numbers, and what is kept, but for the views that `other` reads.
  template <bool Whole, class... Other>
  __device__ void load(index_t line, const Other&...) {
    std::apply([&](X&... x) { (x.begin(line), ...); }, on);
#pragma unroll
    for (int i = 0; i < keeps<Whole>; ++i)
      if (const index_t j = place(i); j < length)
        std::apply([&](X&... x) { (load_one<Whole, Other...>(x, i, j), ...); }, on);
  }
  template <class... Giver>
  __device__ void take(const Giver&... giver) {
    const auto from = [&](auto& x) { (giver.give(x), ...); };
    std::apply([&](X&... x) { (from(x), ...); }, on);
  }
  template <class Y>
  __device__ void give(Y& to) const {
    std::apply([&](const X&... x) { (give_one(to, x), ...); }, on);
  }
  template <class Y>
  static constexpr bool has = (same_view<X, Y> || ...);

  // take(f(...)) for the elements. f may return nothing.
  template <bool Whole, class Take>
  __device__ void run(Take&& take) {
#pragma unroll
    for (int i = 0; i < keeps<Whole>; ++i)
      if (const index_t j = place(i); j < length)
        std::apply([&](const X&... x) { work<Whole>(take, j, kept<Whole>(x, i, j)...); }, on);
    for (index_t j = place(keeps<Whole>); j < length; j += Team::size * pack_size)
      std::apply([&](const X&... x) { work<Whole>(take, j, x.template pack<Whole>(j, count(j))...); }, on);
  }

 private:
  // What is not whole is not kept: every pack has branches then, and many packs of them would cost more than they save.
  template <bool Whole>
  static constexpr int keeps = Whole ? packs_kept<A> : 0;
  __device__ static index_t place(int i) { return (Team::rank() + index_t{i * Team::size}) * pack_size; }
  __device__ int count(index_t j) const { return static_cast<int>(min(length - j, index_t{pack_size})); }

  template <bool Whole, class... Other, class Y>
  __device__ void load_one(Y& x, int i, index_t j) const {
    if constexpr (is_kept<Y> && !(Other::template has<Y> || ...)) x.kept[i] = x.template load<Whole>(j, count(j));
  }
  template <bool Whole, class Y>
  __device__ pack_of<A> kept(const Y& x, int i, index_t j) const {
    if constexpr (is_kept<Y>)
      return Y::in_arithmetic(x.kept[i]);
    else
      return x.template pack<Whole>(j, count(j));
  }
  template <bool Whole, class Take, class... Pack>
  __device__ void work(Take&& take, index_t j, Pack... x) const {
    const int n = Whole ? pack_size : count(j);
#pragma unroll
    for (int k = 0; k < pack_size; ++k)
      if (k < n) {
        if constexpr (std::is_void_v<decltype(f(x.at[k]...))>)
          f(x.at[k]...);
        else
          take(f(x.at[k]...));
      }
    store<Whole>(j, n, std::index_sequence_for<X...>{}, x...);
  }
  template <bool Whole, std::size_t... I, class... Pack>
  __device__ void store(index_t j, int n, std::index_sequence<I...>, const Pack&... x) const {
    const auto one = [&](const auto& to, const pack_of<A>& values) {
      if constexpr (requires { to.template store<Whole>(values, j, n); }) to.template store<Whole>(values, j, n);
    };
    (one(std::get<I>(on), x), ...);
  }
  template <class Y, class Z>
  __device__ static void give_one(Y& to, const Z& x) {
    if constexpr (same_view<Z, Y>)
#pragma unroll
      for (int i = 0; i < packs_kept<A>; ++i) to.kept[i] = x.kept[i];
  }
};

// What a kernel does, with its arguments as the kernel sees them.
template <class A, class F, class... V>
struct row_task {
  using arithmetic = A;
  using functor = F;
  F f;
  std::tuple<V...> on;

  template <class Team>
  __device__ auto in_rows(const extent& e, index_t b) const {
    return in_rows<Team>(e, b, std::index_sequence_for<V...>{});
  }
  __device__ auto numbers(index_t b) const { return numbers(b, std::index_sequence_for<V...>{}); }

 private:
  template <class Team, std::size_t... I>
  __device__ auto in_rows(const extent& e, index_t b, std::index_sequence<I...>) const {
    return task_in_row<Team, A, F, decltype(in_row<A>(std::get<I>(on), b))...>{
        f, e.length, std::tuple{in_row<A>(std::get<I>(on), b)...}};
  }
  template <std::size_t... I>
  __device__ auto numbers(index_t b, std::index_sequence<I...>) const {
    return row_numbers<A, F, row_number<A, V>...>{f, std::tuple{row_number<A, V>(std::get<I>(on), b)...}};
  }
};
template <class F, class... V>
auto row_task_of(const work<F, V...>& w, line_along along) {
  return std::apply(
      [&](const auto&... v) {
        using A = common_arithmetic<decltype(not_shared(v))...>;
        return row_task<A, F, decltype(row_argument(v, along))...>{w.f, {row_argument(v, along)...}};
      },
      w.on);
}

}  // namespace MATOPT_NAMESPACE::cuda
