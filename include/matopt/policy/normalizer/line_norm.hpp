// Muon+'s normalizer: rows or columns of the update to unit length, or one after the other.
//
//   row: u_i: / sqrt(sum_j u_ij^2 + eps)    col: u_:j / sqrt(sum_i u_ij^2 + eps)    row_col, col_row: in that order
//
// Muon+ (arXiv 2602.21545, eq. 3 to 8 by third-party accounts); written from its equations (the official repository has
// no licence). eps is inside the root and 1e-7, as in the official code, whose own option for it is ignored there; the
// paper's listing has 1e-8 by third-party accounts. ||u||_F^2 ends as m for row and col_row, n for col and row_col,
// against min(m, n) for Muon: the same rate is a larger step on matrices that are not square. State: none. FLOPs: 4 per
// parameter and pass.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

enum class line_order { none, row, col, row_col, col_row };
constexpr auto enum_names(line_order) {
  return std::array<std::string_view, 5>{"none", "row", "col", "row_col", "col_row"};
}

namespace fn {
struct divide_by_root_of {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& x, T squares) const {
    x = x / math::sqrt(squares + T(eps));  // Muon+, eq. 3 to 8
  }
};
}  // namespace fn

struct line_norm {
  line_order order = line_order::none;
  double eps = 1e-7;

  static std::string name() { return "line_norm"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("norm_order", self.order);
    visit("line_eps", self.eps, range{.low = 0, .low_open = true});
  }

  template <class E, class St, class C>
  void normalize(E& e, St&, view<C> u) const {
    if (order == line_order::row || order == line_order::row_col) rows(e, u);
    if (order != line_order::none && order != line_order::row) rows(e, u.t());
    if (order == line_order::col_row) rows(e, u);
  }

 private:
  template <class E, class C>
  void rows(E& e, view<C> u) const {
    const auto frame = e.frame();
    const view<C> squares = e.take(u.rows, 1);
    e.reduce_rows(fn::square{}, squares, as_const(u));
    e.for_each(fn::divide_by_root_of{eps}, u, per_row(squares));
  }
};

}  // namespace MATOPT_NAMESPACE
