// The arguments of for_each and reduce as kernels see them: strides along a line and from line to line, whatever kind
// of view or broadcast they were. A broadcast is a stride of 0, so that one kernel serves all kinds of one element
// type.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/broadcast.hpp"
#include "../core/functors.hpp"
#include "../core/types.hpp"

namespace MATOPT_NAMESPACE::cuda {

// Elements of one argument: element j of line i of matrix b at base(b) + i line_stride + j step.
template <class T>
struct memory_argument {
  using element = T;
  T* data;
  T* const* table;
  index_t offset, batch_stride, line_stride, step;

  MATOPT_HD T* base(index_t b) const { return table ? table[b] + offset : data + b * batch_stride; }
};
// One number for each matrix.
template <class T>
struct matrix_argument {
  using element = T;
  const T* data;
  const T* const* table;
  index_t offset, batch_stride;

  MATOPT_HD T of(index_t b) const { return table ? table[b][offset] : data[b * batch_stride]; }
};
// The number of the line, or of the element in it.
struct number_argument {
  using element = float;
  index_t line_stride, step;
};

enum class line_along { columns, rows };  // a line is a row, and runs along the columns; or the other way round

// One matrix serves all of a batch where there is only one.
template <class T>
index_t broadcast_stride(const view<T>& v) {
  return v.batch == 1 ? 0 : v.batch_stride;
}

template <class T>
memory_argument<T> argument(const view<T>& v, line_along a) {
  return a == line_along::columns
             ? memory_argument<T>{v.data, v.table, v.offset, v.batch_stride, v.row_stride, v.col_stride}
             : memory_argument<T>{v.data, v.table, v.offset, v.batch_stride, v.col_stride, v.row_stride};
}
template <class T>
memory_argument<const T> argument(const row_broadcast<T>& v, line_along a) {
  const view<const T>& x = v.values;
  const index_t s = x.row_stride;
  return {x.data,
          x.table,
          x.offset,
          broadcast_stride(x),
          a == line_along::columns ? s : 0,
          a == line_along::columns ? 0 : s};
}
template <class T>
memory_argument<const T> argument(const column_broadcast<T>& v, line_along a) {
  const view<const T>& x = v.values;
  const index_t s = x.col_stride;
  return {x.data,
          x.table,
          x.offset,
          broadcast_stride(x),
          a == line_along::columns ? 0 : s,
          a == line_along::columns ? s : 0};
}
template <class T>
matrix_argument<T> argument(const matrix_broadcast<T>& v, line_along) {
  const view<const T>& x = v.values;
  return {x.data, x.table, x.offset, broadcast_stride(x)};
}
inline number_argument argument(row_number, line_along a) {
  return a == line_along::columns ? number_argument{1, 0} : number_argument{0, 1};
}
inline number_argument argument(column_number, line_along a) {
  return a == line_along::columns ? number_argument{0, 1} : number_argument{1, 0};
}

// All lines of a matrix are one long line: nothing lies between them, and nothing depends on the number of the line.
template <class T>
bool joins_lines(const memory_argument<T>& a, index_t length) {
  return a.line_stride == length * a.step;
}
template <class T>
bool joins_lines(const matrix_argument<T>&, index_t) {
  return true;
}
inline bool joins_lines(const number_argument&, index_t) { return false; }

// What a thread works on at a time: U packs of P neighbouring elements. Pack u begins with element j[u] of line[u], and
// has count[u] elements.
template <int P, int U>
struct spots {
  index_t line[U], j[U];
  int count[U];
  bool whole;  // all packs have P elements
};
// Its elements, in the arithmetic type.
template <class A, int P, int U>
struct values {
  A at[U][P];
};
template <class T, int P>
struct alignas(sizeof(T) * P < 16 ? sizeof(T) * P : 16) stored_pack {
  T at[P];
};

template <class A, class T>
__device__ A to_arithmetic(T x) {
  if constexpr (std::is_same_v<A, std::remove_const_t<T>>)
    return x;
  else
    return static_cast<A>(static_cast<typename arithmetic<T>::type>(x));
}

template <class T, class A>
__device__ T stored_as(A x) {
  return static_cast<T>(static_cast<typename arithmetic<T>::type>(x));
}

// An argument's elements in one matrix; a pack is one wide access where the addresses allow it.
template <class T, int P>
struct located {
  using stored = stored_pack<std::remove_const_t<T>, P>;
  T* base;
  index_t line_stride, step;
  bool wide;

  template <class A, int U>
  __device__ void load(values<A, P, U>& x, const spots<P, U>& s) const {
    if (step == 0) {
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const A value = s.count[u] > 0 ? to_arithmetic<A>(base[s.line[u] * line_stride]) : A(0);
#pragma unroll
        for (int k = 0; k < P; ++k) x.at[u][k] = value;
      }
    } else if (wide && s.whole) {
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const stored pack = *reinterpret_cast<const stored*>(base + s.line[u] * line_stride + s.j[u]);
#pragma unroll
        for (int k = 0; k < P; ++k) x.at[u][k] = to_arithmetic<A>(pack.at[k]);
      }
    } else {
#pragma unroll
      for (int u = 0; u < U; ++u)
#pragma unroll
        for (int k = 0; k < P; ++k)
          x.at[u][k] = k < s.count[u] ? to_arithmetic<A>(base[s.line[u] * line_stride + (s.j[u] + k) * step]) : A(0);
    }
  }
  template <class A, int U>
  __device__ void store(const values<A, P, U>& x, const spots<P, U>& s) const {
    if constexpr (!std::is_const_v<T>) {
      if (wide && s.whole) {
#pragma unroll
        for (int u = 0; u < U; ++u) {
          stored pack;
#pragma unroll
          for (int k = 0; k < P; ++k) pack.at[k] = stored_as<T>(x.at[u][k]);
          *reinterpret_cast<stored*>(base + s.line[u] * line_stride + s.j[u]) = pack;
        }
      } else {
#pragma unroll
        for (int u = 0; u < U; ++u)
#pragma unroll
          for (int k = 0; k < P; ++k)
            if (k < s.count[u]) base[s.line[u] * line_stride + (s.j[u] + k) * step] = stored_as<T>(x.at[u][k]);
      }
    }
  }
};
template <class T, int P>
struct located_number_of_matrix {
  T value;
  template <class A, int U>
  __device__ void load(values<A, P, U>& x, const spots<P, U>&) const {
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int k = 0; k < P; ++k) x.at[u][k] = to_arithmetic<A>(value);
  }
  template <class A, int U>
  __device__ void store(const values<A, P, U>&, const spots<P, U>&) const {}
};
template <int P>
struct located_number {
  index_t first, line_stride, step;
  template <class A, int U>
  __device__ void load(values<A, P, U>& x, const spots<P, U>& s) const {
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int k = 0; k < P; ++k) x.at[u][k] = static_cast<A>(first + s.line[u] * line_stride + (s.j[u] + k) * step);
  }
  template <class A, int U>
  __device__ void store(const values<A, P, U>&, const spots<P, U>&) const {}
};

template <int P, class T>
__device__ located<T, P> locate(const memory_argument<T>& a, index_t b, index_t lines) {
  T* const base = a.base(b);
  const bool wide = a.step == 1 && (lines == 1 || a.line_stride % P == 0) &&
                    reinterpret_cast<std::uintptr_t>(base) % alignof(stored_pack<T, P>) == 0;
  return {base, a.line_stride, a.step, wide};
}
template <int P, class T>
__device__ located_number_of_matrix<T, P> locate(const matrix_argument<T>& a, index_t b, index_t) {
  return {a.of(b)};
}
template <int P>
__device__ located_number<P> locate(const number_argument& a, index_t, index_t) {
  return {0, a.line_stride, a.step};
}

// take(f(x, y, ...)) for each of the elements; f may return nothing. Where a pack has less than P elements, f is called
// with zeros, too, and the result dropped: so nothing has to be loaded that f overwrites.
template <class A, int P, int U, class F, class Take, class... X>
__device__ void evaluate(const F& f, const spots<P, U>& s, Take&& take, X&... x) {
  if constexpr (std::is_void_v<decltype(f(x.at[0][0]...))>) {
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int k = 0; k < P; ++k) f(x.at[u][k]...);
  } else if (s.whole) {  // without a question for each element
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int k = 0; k < P; ++k) take(f(x.at[u][k]...));
  } else {
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int k = 0; k < P; ++k) {
        const auto term = f(x.at[u][k]...);
        if (k < s.count[u]) take(term);
      }
  }
}
// The same on what lies in memory; outputs are stored back.
template <class A, int P, int U, class F, class Take, class... L>
__device__ void apply(const F& f, const spots<P, U>& s, Take&& take, const L&... at) {
  const auto run = [&](auto... x) {  // the values of each argument
    (at.load(x, s), ...);
    evaluate<A>(f, s, take, x...);
    (at.store(x, s), ...);
  };
  run((static_cast<void>(at), values<A, P, U>{})...);
}

}  // namespace MATOPT_NAMESPACE::cuda
