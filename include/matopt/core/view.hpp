// view<T>: a batch of same-shape matrices somewhere in memory; the only way the library looks at memory.
//
//   element (i, j) of matrix b  =  base(b)[i * row_stride + j * col_stride]
//   base(b)                     =  table ? table[b] + offset : data + b * batch_stride
//
// Rows are fan-out and columns fan-in, whatever the storage. Row- and column-major storage, transposition, sub-blocks
// and stacked layers are strides; matrices at scattered addresses are a table of base pointers. No operation here
// copies. A view does not own its memory. It is trivially copyable, so it can be an argument of a device kernel.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <type_traits>

#include "index.hpp"

namespace MATOPT_NAMESPACE {

template <class T>
struct view {
  T* data = nullptr;
  index_t rows = 0, cols = 0;
  index_t row_stride = 0, col_stride = 0;
  index_t batch = 1, batch_stride = 0;
  T* const* table = nullptr;  // one base pointer per matrix, in the memory that the backend works in
  index_t offset = 0;         // added to every table entry

  MATOPT_HD constexpr T* base(index_t b) const { return table ? table[b] + offset : data + b * batch_stride; }
  MATOPT_HD constexpr T& operator()(index_t i, index_t j, index_t b = 0) const {
    return base(b)[i * row_stride + j * col_stride];
  }
  constexpr bool empty() const { return !data && !table; }

  constexpr view t() const {
    view v = *this;
    v.rows = cols, v.cols = rows, v.row_stride = col_stride, v.col_stride = row_stride;
    return v;
  }
  constexpr view row_block(index_t first, index_t count) const {
    view v = advanced(first * row_stride);
    v.rows = count;
    return v;
  }
  constexpr view col_block(index_t first, index_t count) const { return t().row_block(first, count).t(); }
  // Of square matrices, as a row.
  constexpr view diagonal() const {
    view v = *this;
    v.rows = 1, v.col_stride = row_stride + col_stride, v.row_stride = v.cols * v.col_stride;
    return v;
  }
  // One matrix of a stacked batch.
  constexpr view matrix(index_t b) const {
    view v = advanced(b * batch_stride);
    v.batch = 1, v.batch_stride = 0;
    return v;
  }
  // Some matrices of a batch.
  constexpr view matrices(index_t first, index_t count) const {
    view v = table ? *this : advanced(first * batch_stride);
    if (table) v.table += first;
    v.batch = count;
    return v;
  }
  constexpr bool row_contiguous() const { return col_stride == 1 || cols == 1; }
  constexpr bool col_contiguous() const { return row_stride == 1 || rows == 1; }

  template <std::same_as<const T> U>
  requires(!std::is_const_v<T>) constexpr operator view<U>() const {
    return {data, rows, cols, row_stride, col_stride, batch, batch_stride, table, offset};
  }

 private:
  constexpr view advanced(index_t by) const {
    view v = *this;
    if (table)
      v.offset += by;
    else if (data)
      v.data += by;
    return v;
  }
};

template <class T>
constexpr view<const T> as_const(view<T> v) {
  return v;
}

namespace detail {
// Of sizes that only an error can tell apart from memory's, the product wraps around; check_view refuses the view.
constexpr index_t dense_stride(index_t rows, index_t cols) {
  return static_cast<index_t>(static_cast<std::make_unsigned_t<index_t>>(rows) *
                              static_cast<std::make_unsigned_t<index_t>>(cols));
}
}  // namespace detail

// Dense storage; a batch lies stacked, one matrix behind the other, unless a batch stride is given.
template <class T>
constexpr view<T> row_major(T* data, index_t rows, index_t cols, index_t batch = 1, index_t batch_stride = 0) {
  return {data, rows, cols, cols, 1, batch, batch_stride ? batch_stride : detail::dense_stride(rows, cols)};
}
template <class T>
constexpr view<T> col_major(T* data, index_t rows, index_t cols, index_t batch = 1, index_t batch_stride = 0) {
  return {data, rows, cols, 1, rows, batch, batch_stride ? batch_stride : detail::dense_stride(rows, cols)};
}

}  // namespace MATOPT_NAMESPACE
