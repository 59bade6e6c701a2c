// The arguments of elementwise verbs and reductions along one line of a matrix, which is a row: of the transposed
// matrix where that has the shorter stride. Arguments that are constant along a line are loaded once.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/broadcast.hpp"
#include "../core/types.hpp"

namespace MATOPT_NAMESPACE::lines {

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

// Row `at` of matrix b. Along columns go the lines of the transposed matrix.
template <class T>
moving<T> line(const view<T>& v, index_t b, index_t at) {
  return {v.base(b) + at * v.row_stride, v.col_stride};
}
template <class T>
constant<T> line(const row_broadcast<T>& v, index_t b, index_t at) {
  return {static_cast<typename arithmetic<T>::type>(base_of(v.values, b)[at * v.values.row_stride])};
}
template <class T>
moving<const T> line(const column_broadcast<T>& v, index_t b, index_t) {
  return {base_of(v.values, b), v.values.col_stride};
}
template <class T>
constant<T> line(const matrix_broadcast<T>& v, index_t b, index_t) {
  return {static_cast<typename arithmetic<T>::type>(*base_of(v.values, b))};
}
inline counting line(row_number, index_t, index_t at) { return {at, 0}; }
inline counting line(column_number, index_t, index_t) { return {0, 1}; }

// The matrix is one line, elements side by side.
template <class T>
bool dense(const view<T>& v) {
  return v.col_stride == 1 && (v.rows == 1 || v.row_stride == v.cols);
}
template <class T>
bool dense(const matrix_broadcast<T>&) {
  return true;
}
template <class V>
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

}  // namespace MATOPT_NAMESPACE::lines
