// The arguments of for_each and reduce as kernels see them: strides along a line and from line to line, whatever kind
// of view or broadcast they were. A broadcast is a stride of 0, so that one kernel serves all kinds of one element
// type.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/broadcast.hpp"
#include "../core/functors.hpp"
#include "../core/types.hpp"

namespace matopt::cuda {

// Elements of one argument: element j of line i of matrix b at base(b) + i line_stride + j step.
template <class T>
struct memory_argument {
  using element = T;
  T* data;
  T* const* table;
  index_t offset, batch_stride, line_stride, step;

  MATOPT_HD T* base(index_t b) const { return table ? table[b] + offset : data + b * batch_stride; }
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
memory_argument<const T> argument(const matrix_broadcast<T>& v, line_along) {
  const view<const T>& x = v.values;
  return {x.data, x.table, x.offset, broadcast_stride(x), 0, 0};
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
inline bool joins_lines(const number_argument&, index_t) { return false; }

// P neighbouring elements of a line in the arithmetic type: what a thread works on at a time.
template <class A, int P>
struct pack {
  A at[P];
};
template <class T, int P>
struct alignas(sizeof(T) * P < 16 ? sizeof(T) * P : 16) stored_pack {
  T at[P];
};

template <class A, class T>
MATOPT_HD A to_arithmetic(T x) {
  return static_cast<A>(static_cast<typename arithmetic<T>::type>(x));
}

// Where the elements lie; loads and stores are one wide access where the address allows it.
template <class T, int P>
struct located {
  using stored = stored_pack<std::remove_const_t<T>, P>;
  T* p;
  index_t step;
  int count;

  MATOPT_HD bool wide() const {
    return step == 1 && count == P && reinterpret_cast<std::uintptr_t>(p) % alignof(stored) == 0;
  }
  template <class A>
  MATOPT_HD void load(pack<A, P>& x) const {
    if (step == 0) {
      const A value = to_arithmetic<A>(*p);
      for (int k = 0; k < P; ++k) x.at[k] = value;
    } else if (wide()) {
      const stored s = *reinterpret_cast<const stored*>(p);
      for (int k = 0; k < P; ++k) x.at[k] = to_arithmetic<A>(s.at[k]);
    } else {
      for (int k = 0; k < P; ++k) x.at[k] = k < count ? to_arithmetic<A>(p[k * step]) : A(0);
    }
  }
  template <class A>
  MATOPT_HD void store(const pack<A, P>& x) const {
    if constexpr (!std::is_const_v<T>) {
      using arithmetic_type = typename arithmetic<T>::type;
      if (wide()) {
        stored s;
        for (int k = 0; k < P; ++k) s.at[k] = static_cast<T>(static_cast<arithmetic_type>(x.at[k]));
        *reinterpret_cast<stored*>(p) = s;
      } else {
        for (int k = 0; k < P; ++k)
          if (k < count) p[k * step] = static_cast<T>(static_cast<arithmetic_type>(x.at[k]));
      }
    }
  }
};
template <int P>
struct located_number {
  index_t start, step;
  template <class A>
  MATOPT_HD void load(pack<A, P>& x) const {
    for (int k = 0; k < P; ++k) x.at[k] = static_cast<A>(start + k * step);
  }
  template <class A>
  MATOPT_HD void store(const pack<A, P>&) const {}
};

template <int P, class T>
MATOPT_HD located<T, P> locate(const memory_argument<T>& a, index_t b, index_t line, index_t j, int count) {
  return {a.base(b) + line * a.line_stride + j * a.step, a.step, count};
}
template <int P>
MATOPT_HD located_number<P> locate(const number_argument& a, index_t, index_t line, index_t j, int) {
  return {line * a.line_stride + j * a.step, a.step};
}

// take(f(x, y, ...)) for each of the elements, and the outputs stored back; f may return nothing.
template <class A, int P, class F, class Take, class... L>
MATOPT_HD void apply(const F& f, int count, Take&& take, const L&... at) {
  const auto run = [&](auto... x) {  // one pack per argument
    (at.load(x), ...);
    for (int k = 0; k < P; ++k) {
      if (k >= count) break;
      if constexpr (std::is_void_v<decltype(f(x.at[k]...))>)
        f(x.at[k]...);
      else
        take(f(x.at[k]...));
    }
    (at.store(x), ...);
  };
  run((static_cast<void>(at), pack<A, P>{})...);
}

}  // namespace matopt::cuda
