// row_numbers: the formula on the numbers of a row. Every thread of a team has them in registers; they come from memory
// before the sums, from the sums, and go on to the formula on elements and, by one thread, to memory.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#include "row_argument.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class A, class V>
struct row_number;
template <class A, int Number, class T>
inline constexpr int number_of<row_number<A, shared_argument<Number, memory_argument<T>>>> = Number;
template <class A, class T>
struct row_number<A, memory_argument<T>> {
  T* first;
  index_t step;
  A value;

  __device__ row_number(const memory_argument<T>& v, index_t b) : first(v.base(b)), step(v.step) {}
  __device__ void load(index_t line) { value = to_arithmetic<A>(first[line * step]); }
  __device__ void store(index_t line) const {
    if constexpr (!std::is_const_v<T>) first[line * step] = stored_as<T>(value);
  }
};
template <class A, class T>
struct row_number<A, matrix_argument<T>> {
  A of_matrix, value;

  __device__ row_number(const matrix_argument<T>& v, index_t b) : of_matrix(to_arithmetic<A>(v.of(b))) {}
  __device__ void load(index_t) { value = of_matrix; }
  __device__ void store(index_t) const {}
};
template <class A>
struct row_number<A, number_argument> {
  index_t step;
  A value;

  __device__ row_number(const number_argument& v, index_t) : step(v.step) {}
  __device__ void load(index_t line) { value = static_cast<A>(line * step); }
  __device__ void store(index_t) const {}
};
template <class A, int Number, class T>
struct row_number<A, shared_argument<Number, memory_argument<T>>> : row_number<A, memory_argument<T>> {
  using row_number<A, memory_argument<T>>::row_number;
  using element = std::remove_const_t<T>;

  __device__ void take(element x) { this->value = to_arithmetic<A>(x); }
  __device__ element given() const { return stored_as<element>(this->value); }
};

// The results of a row's sums, as they are where they lie in memory.
template <class T, int Count>
struct row_sums {
  T at[Count];
  static constexpr int count = Count;

  template <class X>
  __device__ void give(X& x) const {
    if constexpr (number_of<X> != no_shared_number && number_of<X> < 0 && number_of<X> >= -Count)
      x.take(at[-1 - number_of<X>]);
  }
};

template <class T, class A, int Count>
__device__ row_sums<T, Count> results_of_row(const fn::terms<A, Count>& results) {
  row_sums<T, Count> sums;
  for (int k = 0; k < Count; ++k) sums.at[k] = static_cast<T>(results.at[k]);
  return sums;
}

template <class A, class F, class... X>
struct row_numbers {
  const F& f;
  std::tuple<X...> on;

  __device__ void load(index_t line) {
    std::apply([&](X&... x) { (x.load(line), ...); }, on);
  }
  template <class Sums>
  __device__ void run(const Sums& sums) {
    std::apply([&](X&... x) { (sums.give(x), ...), f(x.value...); }, on);
  }
  __device__ void store(index_t line) const {
    std::apply([&](const X&... x) { (x.store(line), ...); }, on);
  }
  template <class Y>
  __device__ void give(Y& y) const {
    std::apply([&](const X&... x) { (give_one(x, y), ...); }, on);
  }

 private:
  template <class Z, class Y>
  __device__ static void give_one(const Z& x, Y& y) {
    if constexpr (number_of<Y> != no_shared_number && number_of<Z> == number_of<Y>) y.take(x.given());
  }
};

}  // namespace MATOPT_NAMESPACE::cuda
