// The arguments of elementwise verbs and reductions along one line of a matrix. A line runs along the shorter stride;
// arguments that are constant along it are loaded once.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/broadcast.hpp"
#include "../core/types.hpp"

namespace matopt::lines {

enum class axis { rows, columns };  // what a line runs over: the rows of one column, or the columns of one row

// One argument along one line: elements with a stride, one number, or the numbers from `start` in steps of 0 or 1.
template <class T>
struct moving {
  T* p;
  index_t stride;
};
template <class T>
struct constant {
  typename arithmetic<T>::type x;
};
struct counting {
  index_t start, step;
};

template <class V>
constexpr bool is_view = false;
template <class T>
constexpr bool is_view<view<T>> = true;

// The matrix of a broadcast that serves matrix b.
template <class T>
const T* base_of(const view<const T>& v, index_t b) {
  return v.base(v.batch == 1 ? 0 : b);
}

template <axis Along, class T>
auto line(const view<T>& v, index_t b, index_t at) {
  return Along == axis::columns ? moving<T>{v.base(b) + at * v.row_stride, v.col_stride}
                                : moving<T>{v.base(b) + at * v.col_stride, v.row_stride};
}
template <axis Along, class T>
auto line(const row_broadcast<T>& v, index_t b, index_t at) {
  if constexpr (Along == axis::columns)
    return constant<T>{static_cast<typename arithmetic<T>::type>(base_of(v.values, b)[at * v.values.row_stride])};
  else
    return moving<const T>{base_of(v.values, b), v.values.row_stride};
}
template <axis Along, class T>
auto line(const column_broadcast<T>& v, index_t b, index_t at) {
  if constexpr (Along == axis::rows)
    return constant<T>{static_cast<typename arithmetic<T>::type>(base_of(v.values, b)[at * v.values.col_stride])};
  else
    return moving<const T>{base_of(v.values, b), v.values.col_stride};
}
template <axis Along, class T>
auto line(const matrix_broadcast<T>& v, index_t b, index_t) {
  return constant<T>{static_cast<typename arithmetic<T>::type>(*base_of(v.values, b))};
}

template <axis Along>
auto line(row_number, index_t, index_t at) {
  return Along == axis::columns ? counting{at, 0} : counting{0, 1};
}
template <axis Along>
auto line(column_number, index_t, index_t at) {
  return Along == axis::columns ? counting{0, 1} : counting{at, 0};
}

// The matrix is one line, elements side by side.
template <axis Along, class T>
bool dense(const view<T>& v) {
  const bool by_rows = Along == axis::columns;
  const index_t length = by_rows ? v.cols : v.rows, count = by_rows ? v.rows : v.cols;
  const index_t along = by_rows ? v.col_stride : v.row_stride, across = by_rows ? v.row_stride : v.col_stride;
  return along == 1 && (count == 1 || across == length);
}
template <axis Along, class T>
bool dense(const matrix_broadcast<T>&) {
  return true;
}
template <axis Along, class V>
bool dense(const V&) {
  return false;
}

// An argument of a verb on the transposed matrix.
template <class T>
view<T> transposed(const view<T>& v) {
  return v.t();
}
template <class T>
column_broadcast<T> transposed(const row_broadcast<T>& v) {
  return {v.values.t()};
}
template <class T>
row_broadcast<T> transposed(const column_broadcast<T>& v) {
  return {v.values.t()};
}
template <class T>
matrix_broadcast<T> transposed(const matrix_broadcast<T>& v) {
  return v;
}

inline column_number transposed(row_number) { return {}; }
inline row_number transposed(column_number) { return {}; }

}  // namespace matopt::lines
