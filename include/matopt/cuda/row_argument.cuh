// The arguments of for_rows as its kernel sees them, and what a thread has of each in one row after the other.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/work.hpp"
#include "argument.cuh"
#include "extent.cuh"

namespace MATOPT_NAMESPACE::cuda {

// What only the arguments of rows can be: one number for each line, and what several works share.
template <class T>
struct line_argument {
  using element = T;
  memory_argument<const T> numbers;
};
template <int Number, class A>
struct shared_argument : A {};

template <class V>
auto row_argument(const V& v, line_along along) {
  return argument(v, along);
}
template <class T>
line_argument<T> row_argument(const row_broadcast<T>& v, line_along) {
  return {argument(v, line_along::columns)};
}
template <int Number, class V>
auto row_argument(const shared_view<Number, V>& v, line_along along) {
  return shared_argument<Number, decltype(row_argument(not_shared(v), along))>{row_argument(not_shared(v), along)};
}

// A thread takes packs number rank, rank + size, ... of its row. Of so many it keeps what lies in memory; what is left
// of a longer row is read twice.
template <class A>
inline constexpr int packs_kept = sizeof(A) <= 4 ? 6 : 3;

template <class A>
struct pack_of {
  A at[pack_size];
};

// Numbers: one for all of a row ...
template <class A, class T>
struct number_in_row {
  T value;

  __device__ static constexpr bool wide(index_t) { return true; }
  __device__ void begin(index_t) {}
  template <bool Whole>
  __device__ pack_of<A> pack(index_t, int) const {
    pack_of<A> x;
#pragma unroll
    for (A& each : x.at) each = to_arithmetic<A>(value);
    return x;
  }
};
template <class A, class T>
struct number_of_row : number_in_row<A, T> {
  const T* first;
  index_t stride;

  __device__ void begin(index_t line) { this->value = first[line * stride]; }
};
template <class A, int Number, class T>
struct given_number : number_in_row<A, T> {
  __device__ void take(T x) { this->value = x; }
};
// ... or that of the place.
template <class A>
struct place_in_row {
  number_argument v;
  index_t first = 0;

  __device__ static constexpr bool wide(index_t) { return true; }
  __device__ void begin(index_t line) { first = line * v.line_stride; }
  template <bool Whole>
  __device__ pack_of<A> pack(index_t j, int) const {
    pack_of<A> x;
#pragma unroll
    for (int k = 0; k < pack_size; ++k) x.at[k] = static_cast<A>(first + (j + k) * v.step);
    return x;
  }
};

// What lies in memory, kept in the type that it has there: nothing waits for a pack before all are asked for.
template <class A, class T>
struct elements_of_row {
  using stored = stored_pack<std::remove_const_t<T>, pack_size>;
  T* first;
  index_t line_stride, step;
  T* row = nullptr;
  stored kept[packs_kept<A>];

  // Whether every pack is one wide access.
  __device__ bool wide(index_t lines) const {
    return step == 1 && (lines == 1 || line_stride % pack_size == 0) &&
           reinterpret_cast<std::uintptr_t>(first) % alignof(stored) == 0;
  }
  __device__ void begin(index_t line) { row = first + line * line_stride; }
  // The elements from j on, `count` of them unless the pack is whole, then zeros.
  template <bool Whole>
  __device__ stored load(index_t j, int count) const {
    if constexpr (Whole) {
      return *reinterpret_cast<const stored*>(row + j);
    } else {
      stored x;
#pragma unroll
      for (int k = 0; k < pack_size; ++k) x.at[k] = k < count ? row[(j + k) * step] : stored_as<T>(A(0));
      return x;
    }
  }
  template <bool Whole>
  __device__ pack_of<A> pack(index_t j, int count) const {
    return in_arithmetic(load<Whole>(j, count));
  }
  __device__ static pack_of<A> in_arithmetic(const stored& s) {
    pack_of<A> x;
#pragma unroll
    for (int k = 0; k < pack_size; ++k) x.at[k] = to_arithmetic<A>(s.at[k]);
    return x;
  }
  template <bool Whole>
  __device__ void store(const pack_of<A>& x, index_t j, int count) const {
    if constexpr (!std::is_const_v<T>) {
      stored s;
#pragma unroll
      for (int k = 0; k < pack_size; ++k) s.at[k] = stored_as<T>(x.at[k]);
      if constexpr (Whole) {
        *reinterpret_cast<stored*>(row + j) = s;
      } else {
#pragma unroll
        for (int k = 0; k < pack_size; ++k)
          if (k < count) row[(j + k) * step] = s.at[k];
      }
    }
  }
};
template <class A, int Number, class T>
struct shared_elements : elements_of_row<A, T> {};

template <class A, class T>
__device__ number_in_row<A, T> in_row(const matrix_argument<T>& v, index_t b) {
  return {v.of(b)};
}
template <class A>
__device__ place_in_row<A> in_row(const number_argument& v, index_t) {
  return {v};
}
template <class A, class T>
__device__ number_of_row<A, T> in_row(const line_argument<T>& v, index_t b) {
  return {{}, v.numbers.base(b), v.numbers.line_stride};
}
template <class A, class T>
__device__ elements_of_row<A, T> in_row(const memory_argument<T>& v, index_t b) {
  return {v.base(b), v.line_stride, v.step};
}
template <class A, int Number, class T>
__device__ given_number<A, Number, T> in_row(const shared_argument<Number, line_argument<T>>&, index_t) {
  return {};
}
template <class A, int Number, class T>
__device__ shared_elements<A, Number, T> in_row(const shared_argument<Number, memory_argument<T>>& v, index_t b) {
  return {in_row<A, T>(static_cast<const memory_argument<T>&>(v), b)};
}

template <class X>
inline constexpr bool is_kept = requires(X x) {
  x.kept;
};
// Whether two are the same view.
template <class X, class Y>
inline constexpr bool same_view = false;
template <class A, int Number, class T, class U>
inline constexpr bool same_view<shared_elements<A, Number, T>, shared_elements<A, Number, U>> =
    std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>;
// The number of what is given or taken in registers.
template <class X>
inline constexpr int number_of = no_shared_number;
template <class A, int Number, class T>
inline constexpr int number_of<given_number<A, Number, T>> = Number;

}  // namespace MATOPT_NAMESPACE::cuda
