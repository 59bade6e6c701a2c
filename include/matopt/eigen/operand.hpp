// The arguments of elementwise verbs and reductions with their element types forgotten, so that what cuts a verb into
// lines is compiled once for all verbs. A line is a row: of the transposed matrix where that has the shorter stride.
// Arguments that are constant along a line are loaded once.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../core/broadcast.hpp"
#include "lines.hpp"

namespace MATOPT_NAMESPACE::lines {

enum class role { matrix, per_row, per_column, per_matrix, row_number, column_number };

template <class A>
struct operand {
  role is;
  bool is_output = false;
  const element_kind<A>* kind = nullptr;
  std::byte* data = nullptr;
  const std::byte* table = nullptr;  // of addresses
  index_t rows = 0, cols = 0, row_stride = 0, col_stride = 0, batch = 1, batch_stride = 0, offset = 0;

  template <class T>
  [[gnu::noinline]] operand(const view<T>& v, role r = role::matrix)
      : is(r),
        is_output(!std::is_const_v<T>),
        kind(&elements<A, std::remove_const_t<T>>::kind),
        data(reinterpret_cast<std::byte*>(const_cast<std::remove_const_t<T>*>(v.data))),
        table(reinterpret_cast<const std::byte*>(v.table)),
        rows(v.rows),
        cols(v.cols),
        row_stride(v.row_stride),
        col_stride(v.col_stride),
        batch(v.batch),
        batch_stride(v.batch_stride),
        offset(v.offset) {}
  template <class T>
  operand(const row_broadcast<T>& v) : operand(v.values, role::per_row) {}
  template <class T>
  operand(const column_broadcast<T>& v) : operand(v.values, role::per_column) {}
  template <class T>
  operand(const matrix_broadcast<T>& v) : operand(v.values, role::per_matrix) {}
  operand(row_number) : is(role::row_number) {}
  operand(column_number) : is(role::column_number) {}

  bool row_contiguous() const { return col_stride == 1 || cols == 1; }
  bool col_contiguous() const { return row_stride == 1 || rows == 1; }
  // One line serves all rows of all matrices.
  bool constant() const { return is == role::per_matrix && batch == 1; }
  // Lines lie as the kernels want them, or are numbers.
  bool direct() const {
    if (is == role::row_number || is == role::column_number) return false;
    return is == role::per_row || is == role::per_matrix || (kind->is_arithmetic && col_stride == 1);
  }
  // The matrix is one line, elements side by side.
  bool dense() const {
    return is == role::per_matrix || (is == role::matrix && col_stride == 1 && (rows == 1 || row_stride == cols));
  }
  // The argument of the verb on transposed matrices.
  void transpose() {
    constexpr role other[] = {role::matrix,     role::per_column,    role::per_row,
                              role::per_matrix, role::column_number, role::row_number};
    is = other[static_cast<int>(is)];
    std::swap(rows, cols), std::swap(row_stride, col_stride);
  }
  // Of `count` matrices of 1 x 1: one row. One number serves all.
  void numbers_in_line(index_t count) {
    rows = 1, cols = count, row_stride = 0, col_stride = batch == 1 ? 0 : batch_stride, batch = 1, batch_stride = 0;
  }

  // What matrix b begins with; one matrix serves all.
  std::byte* base(index_t b) const {
    const index_t matrix = batch == 1 ? 0 : b;
    std::byte* p = data;
    if (table) std::memcpy(&p, table + matrix * static_cast<index_t>(sizeof p), sizeof p);
    return advanced(p, table ? offset : matrix * batch_stride);
  }
  // Row `at` of matrix b.
  line<A> line_at(index_t b, index_t at) const {
    if (is == role::row_number) return line<A>::of_counts(at, 0);
    if (is == role::column_number) return line<A>::of_counts(0, 1);
    std::byte* const p = row(b, at);
    if (has_elements()) return {kind, p, col_stride, is_output, false, A(0), 0, 0};
    return line<A>::of_number(number_at(p));
  }
  // What a kernel gets of such a line, from element i on, if lines are direct.
  slot<A> slot_at(index_t b, index_t at, index_t i) const {
    std::byte* const p = row(b, at);
    if (has_elements()) return {reinterpret_cast<A*>(p) + i, A(0)};
    return {nullptr, number_at(p)};
  }

 private:
  bool has_elements() const { return is == role::matrix || is == role::per_column; }
  std::byte* row(index_t b, index_t at) const {
    std::byte* const from = base(b);
    return is == role::matrix || is == role::per_row ? advanced(from, at * row_stride) : from;
  }
  A number_at(const std::byte* p) const {
    if (kind->is_arithmetic) return *reinterpret_cast<const A*>(p);
    A x;
    kind->load(&x, p, 1, 1, 1);
    return x;
  }
  std::byte* advanced(std::byte* p, index_t elements_on) const {
    return p + elements_on * static_cast<index_t>(kind->size);
  }
};

// How a kernel takes an argument of type V, along rows and along columns.
template <class A, class V>
struct passed {
  using straight = input<A>;
  using transposed = input<A>;
};
template <class A, class T>
requires(!std::is_const_v<T>) struct passed<A, view<T>> {
  using straight = output<A>;
  using transposed = output<A>;
};
template <class A, class T>
struct passed<A, row_broadcast<T>> {
  using straight = number<A>;
  using transposed = input<A>;
};
template <class A, class T>
struct passed<A, column_broadcast<T>> {
  using straight = input<A>;
  using transposed = number<A>;
};
template <class A, class T>
struct passed<A, matrix_broadcast<T>> {
  using straight = number<A>;
  using transposed = number<A>;
};

// The kernels of functor F for arguments of the types V.
template <class F, class... V>
struct map_kernels {
  using A = common_arithmetic<V...>;
  static_assert(sizeof...(V) <= most_arguments);
  static constexpr map_kernel<A> straight = map_slots<A, F, typename passed<A, V>::straight...>;
  static constexpr map_kernel<A> transposed = map_slots<A, F, typename passed<A, V>::transposed...>;
};
template <class F, class... V>
struct reduce_kernels {
  using A = common_arithmetic<V...>;
  static_assert(sizeof...(V) <= most_arguments && fn::sums_of<F> <= most_sums);
  static constexpr reduce_kernel<A> straight = reduce_slots<A, F, typename passed<A, V>::straight...>;
  static constexpr reduce_kernel<A> transposed = reduce_slots<A, F, typename passed<A, V>::transposed...>;
};

}  // namespace MATOPT_NAMESPACE::lines
