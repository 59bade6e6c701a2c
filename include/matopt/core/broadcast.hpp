// Read-only arguments of for_each and reduce that have one value per row, per column or per matrix, or are the number
// of a row or column.
//
//   for_each(f, x, per_row(r), per_matrix(s))   calls   f(x(i, j, b), r(i, 0, b), s(0, 0, b))
//
// That an argument is constant along a row is said in its type, so a backend can load it once per row and vectorise the
// rest. A broadcast view with one matrix serves every matrix of a batch.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "types.hpp"
#include "view.hpp"

namespace MATOPT_NAMESPACE {

template <class T>
struct row_broadcast {
  view<const T> values;  // rows x 1
};
template <class T>
struct column_broadcast {
  view<const T> values;  // 1 x cols
};
template <class T>
struct matrix_broadcast {
  view<const T> values;  // 1 x 1
};

template <class T>
constexpr row_broadcast<std::remove_const_t<T>> per_row(view<T> v) {
  return {v};
}
template <class T>
constexpr column_broadcast<std::remove_const_t<T>> per_column(view<T> v) {
  return {v};
}
template <class T>
constexpr matrix_broadcast<std::remove_const_t<T>> per_matrix(view<T> v) {
  return {v};
}

// The values of some matrices of a batch.
template <class T>
constexpr matrix_broadcast<T> members(matrix_broadcast<T> v, index_t first, index_t count) {
  return v.values.batch == 1 ? v : matrix_broadcast<T>{v.values.matrices(first, count)};
}

// The number of the row or column, counted from 0, as an argument.
struct row_number {};
struct column_number {};

// The type in which all arguments of a verb meet; a number takes on the type of the others.
template <class V>
struct element_of {
  using type = float;
};
template <class T>
struct element_of<view<T>> {
  using type = T;
};
template <class T>
struct element_of<row_broadcast<T>> {
  using type = T;
};
template <class T>
struct element_of<column_broadcast<T>> {
  using type = T;
};
template <class T>
struct element_of<matrix_broadcast<T>> {
  using type = T;
};
template <class... V>
using common_arithmetic = arithmetic_t<typename element_of<V>::type...>;

}  // namespace MATOPT_NAMESPACE
