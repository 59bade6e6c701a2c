// row_task: what for_rows does with a row, a functor with its arguments, and how a team of threads goes over one row
// after the other. What two tasks share stays in the registers of the first.
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#include "../core/work.hpp"
#include "argument.cuh"
#include "extent.cuh"

namespace matopt::cuda {

// What only the arguments of rows can be: one number for each line, and a view that sums and elements share.
template <class T>
struct line_argument {
  using element = T;
  memory_argument<const T> numbers;
};
template <int Number, class T>
struct shared_argument : memory_argument<T> {};

template <class V>
auto row_argument(const V& v, line_along along) {
  return argument(v, along);
}
template <class T>
line_argument<T> row_argument(const row_broadcast<T>& v, line_along) {
  return {argument(v, line_along::columns)};
}
template <int Number, class T>
shared_argument<Number, T> row_argument(const shared_view<Number, view<T>>& v, line_along along) {
  return {argument(not_shared(v), along)};
}

// How often a thread takes packs of its row that it keeps; what is left of a longer row is read twice.
inline constexpr int times_kept = 3;

// An argument in one row of a matrix after the other, and what a thread keeps of it: nothing of numbers ...
template <class A, class L>
struct number_in_row {
  L at;
  values<A, pack_size, packs_at_once<A>> one;

  __device__ void begin(index_t) {}
  __device__ void settle() {}
  template <class S>
  __device__ void load(int, const S&) {}
  template <class S>
  __device__ auto& packs(int, const S& s) {
    at.load(one, s);
    return one;
  }
  template <class S>
  __device__ void store(int, const S&) const {}
};
template <class A, class T>
struct number_of_row : number_in_row<A, located_number_of_matrix<T, pack_size>> {
  const T* first;
  index_t stride;
  const T* now;

  __device__ void begin(index_t line) { now = first + line * stride; }
  __device__ void settle() { this->at.value = *now; }
};
template <class A>
struct place_in_row : number_in_row<A, located_number<pack_size>> {
  __device__ void begin(index_t line) { this->at.first = line * this->at.line_stride; }
};
// ... and all packs of what lies in memory.
template <class A, class T>
struct elements_of_row {
  located<T, pack_size> at;
  T* first;
  values<A, pack_size, packs_at_once<A>> of[times_kept];

  __device__ void begin(index_t line) { at.base = first + line * at.line_stride; }
  __device__ void settle() {}
  template <class S>
  __device__ void load(int i, const S& s) {
    at.load(of[i], s);
  }
  template <class S>
  __device__ auto& packs(int i, const S&) {
    return of[i];
  }
  template <class S>
  __device__ void store(int i, const S& s) const {
    at.store(of[i], s);
  }
};
template <class A, int Number, class T>
struct shared_elements : elements_of_row<A, T> {};

template <class A, class T>
__device__ number_in_row<A, located_number_of_matrix<T, pack_size>> in_row(const matrix_argument<T>& v, index_t b,
                                                                           index_t lines) {
  return {locate<pack_size>(v, b, lines)};
}
template <class A>
__device__ place_in_row<A> in_row(const number_argument& v, index_t b, index_t lines) {
  return {{locate<pack_size>(v, b, lines)}};
}
template <class A, class T>
__device__ number_of_row<A, T> in_row(const line_argument<T>& v, index_t b, index_t) {
  return {{}, v.numbers.base(b), v.numbers.line_stride};
}
template <class A, class T>
__device__ elements_of_row<A, T> in_row(const memory_argument<T>& v, index_t b, index_t lines) {
  return {locate<pack_size>(v, b, lines), v.base(b)};
}
template <class A, int Number, class T>
__device__ shared_elements<A, Number, T> in_row(const shared_argument<Number, T>& v, index_t b, index_t lines) {
  return {in_row<A, T>(static_cast<const memory_argument<T>&>(v), b, lines)};
}

// Whether two are the same view.
template <class X, class Y>
inline constexpr bool same_view = false;
template <class A, int Number, class T, class U>
inline constexpr bool same_view<shared_elements<A, Number, T>, shared_elements<A, Number, U>> =
    std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>;

// A functor and its arguments in one row, which the threads of a team share. Lines of its spots count from the row.
template <class Team, class A, class F, class... X>
struct task_in_row {
  const F& f;
  index_t packs, length;
  std::tuple<X...> on;

  __device__ void begin(index_t line) {
    each([&](auto& x) { x.begin(line); });
  }
  // Reads what is kept, but for the views that `other` has read or will.
  template <class... Other>
  __device__ void load(const Other&...) {
    each([&](auto& x) {
      if constexpr (!(Other::template has<std::remove_cvref_t<decltype(x)>> || ...))
        each_kept([&](int i, const auto& s) { x.load(i, s); });
    });
  }
  // Takes over the views that `other` has read, and reads the numbers of the row.
  template <class... Other>
  __device__ void settle(const Other&... other) {
    each([&](auto& x) { x.settle(), (other.give(x), ...); });
  }
  template <class Y>
  __device__ void give(Y& to) const {
    std::apply([&](const auto&... x) { (give_one(to, x), ...); }, on);
  }
  template <class Y>
  static constexpr bool has = (same_view<X, Y> || ...);

  // take(f(...)) for the elements.
  template <class Take>
  __device__ void run(Take&& take) {
    std::apply(
        [&](auto&... x) {
          each_kept([&](int i, const auto& s) {
            evaluate<A>(f, s, take, x.packs(i, s)...);
            (x.store(i, s), ...);
          });
          constexpr index_t step = index_t{Team::size} * packs_at_once<A>;
          for (index_t at = Team::rank() + step * times_kept; at < packs; at += step)
            apply<A>(f, spots_from(at), take, x.at...);
        },
        on);
  }

 private:
  template <class Use>
  __device__ void each(Use&& use) {
    std::apply([&](auto&... x) { (use(x), ...); }, on);
  }
  template <class Use>
  __device__ void each_kept(Use&& use) const {
#pragma unroll
    for (int i = 0; i < times_kept; ++i)
      if (const index_t at = Team::rank() + index_t{i * Team::size} * packs_at_once<A>; at < packs)
        use(i, spots_from(at));
  }
  __device__ auto spots_from(index_t at) const {
    return packs_of_line<packs_at_once<A>>(extent{1, length, 1}, 0, at, Team::size);
  }
  template <class Y, class Z>
  __device__ static void give_one(Y& to, const Z& x) {
    if constexpr (same_view<Z, Y>)
#pragma unroll
      for (int i = 0; i < times_kept; ++i) to.of[i] = x.of[i];
  }
};

// What a kernel does, with its arguments as the kernel sees them.
template <class A, class F, class... V>
struct row_task {
  using arithmetic = A;
  using functor = F;
  static constexpr int views = (0 + ... + (requires { &V::line_stride; } && !std::is_same_v<V, number_argument>));
  F f;
  std::tuple<V...> on;

  template <class Team>
  __device__ auto in_rows(const extent& e, index_t b) const {
    return in_rows<Team>(e, b, std::index_sequence_for<V...>{});
  }
  // For element j of the only line. One thread does this while others wait: no more than it takes.
  __device__ void at(index_t b, index_t j) const {
    std::apply(
        [&](const auto&... v) {
          const auto run = [&](auto... x) {
            f(x...);
            (write(v, b, j, x), ...);
          };
          run(read(v, b, j)...);
        },
        on);
  }

 private:
  template <class Team, std::size_t... I>
  __device__ auto in_rows(const extent& e, index_t b, std::index_sequence<I...>) const {
    using on_rows = std::tuple<decltype(in_row<A>(std::get<I>(on), b, e.lines))...>;
    return task_in_row<Team, A, F, decltype(in_row<A>(std::get<I>(on), b, e.lines))...>{
        f, e.packs_per_line(), e.length, on_rows{in_row<A>(std::get<I>(on), b, e.lines)...}};
  }
  template <class T>
  __device__ static A read(const memory_argument<T>& v, index_t b, index_t j) {
    return to_arithmetic<A>(v.base(b)[j * v.step]);
  }
  template <class T>
  __device__ static A read(const matrix_argument<T>& v, index_t b, index_t) {
    return to_arithmetic<A>(v.of(b));
  }
  __device__ static A read(const number_argument& v, index_t, index_t j) { return static_cast<A>(j * v.step); }
  template <class Number>
  __device__ static void write(const Number&, index_t, index_t, A) {}
  template <class T>
  requires(!std::is_const_v<T>) __device__ static void write(const memory_argument<T>& v, index_t b, index_t j, A x) {
    v.base(b)[j * v.step] = static_cast<T>(static_cast<typename matopt::arithmetic<T>::type>(x));
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

}  // namespace matopt::cuda
