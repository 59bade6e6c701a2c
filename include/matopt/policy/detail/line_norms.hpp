// Norms of whole matrices, of their rows or of their columns, by a setting: one number per line.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "../../core/state_layout.hpp"
#include "norms.hpp"

namespace MATOPT_NAMESPACE {

enum class norm_axis { matrix, rows, columns };  // what a norm is taken of: all, each row, each column
constexpr auto enum_names(norm_axis) { return std::array<std::string_view, 3>{"matrix", "rows", "columns"}; }

namespace fn {
// sum x y / n, with 0 for n = 0: the part of x along y, if n = ||y||
struct part_along {
  template <class T>
  MATOPT_HD T operator()(T x, T y, T n) const {
    return x * math::divide_or_zero(y, n);
  }
};
// x = value
struct set_constant {
  double value;
  template <class T>
  MATOPT_HD void operator()(T& x) const {
    x = T(value);
  }
};
}  // namespace fn

namespace detail {

// Scratch, or state, of one number per line.
template <class E, class T>
auto take_lines(E& e, norm_axis axis, view<T> x) {
  return e.take(axis == norm_axis::rows ? x.rows : 1, axis == norm_axis::columns ? x.cols : 1);
}
template <class Layout>
auto line_state(Layout& l, norm_axis axis, std::string_view name) {
  return axis == norm_axis::rows ? l.rows(name) : axis == norm_axis::columns ? l.columns(name) : l.scalar(name);
}

// out = ||x||_F of each matrix
template <class E, class T, class C>
void matrix_norm(E& e, view<C> out, view<T> x) {
  const auto frame = e.frame();
  const auto n = frobenius(e, x);
  e.for_each(fn::scaled_root{}, out, as_const(n.scale), as_const(n.squares));
}
// out = ||line of x||, one number per line
template <class E, class T, class C>
void line_norms(E& e, norm_axis axis, view<C> out, view<T> x) {
  if (axis == norm_axis::matrix) return matrix_norm(e, out, x);
  const bool rows = axis == norm_axis::rows;
  row_norms(e, rows ? out : out.t(), rows ? x : x.t());
}
// out = the part of x along y, given y's norms
template <class E, class X, class Y, class C>
void line_parts(E& e, norm_axis axis, view<C> out, view<X> x, view<Y> y, view<C> norm) {
  if (axis == norm_axis::matrix) return e.reduce(fn::part_along{}, out, as_const(x), as_const(y), per_matrix(norm));
  const bool rows = axis == norm_axis::rows;
  e.reduce_rows(fn::part_along{}, rows ? out : out.t(), as_const(rows ? x : x.t()), as_const(rows ? y : y.t()),
                per_row(rows ? norm : norm.t()));
}

// f(per): per(v) gives each element the number of its line. (The three broadcasts are types of their own.)
template <class F>
void by_line(norm_axis axis, F f) {
  if (axis == norm_axis::matrix) f([](auto v) { return per_matrix(v); });
  if (axis == norm_axis::rows) f([](auto v) { return per_row(v); });
  if (axis == norm_axis::columns) f([](auto v) { return per_column(v); });
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
