// Row-and-column scaling, the cheap relative of a matrix sign: rows to unit p-norm, then columns (or the other way).
//
//   row_col   X <- Diag(1 / ||X_i:||_p) X, then X <- X Diag(1 / ||X_:j||_p)         repeated `sweeps` times
//   col_row   columns first
//   joint     both norms taken of the same X
//
// REG (arXiv 2510.03691). FORMULA INFERRED: no official code exists and the paper's text was not at hand; the order,
// the number of sweeps and p are settings for that reason. Not the RACS of arXiv 2502.07752, another method. Norms are
// not less than eps (1e-36; 1e-8 by third-party accounts), so zero lines stay zero. State: none. FLOPs: 6 per parameter
// and sweep; no product.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"

namespace MATOPT_NAMESPACE {

enum class scaling_order { row_col, col_row, joint };
constexpr auto enum_names(scaling_order) { return std::array<std::string_view, 3>{"row_col", "col_row", "joint"}; }

namespace fn {
// sum (|x| / s)^p
struct scaled_power {
  double p;
  template <class T>
  MATOPT_HD T operator()(T x, T s) const {
    return s > T(0) ? math::pow(math::abs(x) / s, T(p)) : T(0);
  }
};
// n = s q^(1/p)
struct power_norm {
  double p;
  template <class T>
  MATOPT_HD void operator()(T& n, T s, T q) const {
    n = s * math::pow(q, T(1 / p));
  }
};
struct divide_by_floored {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& x, T n) const {
    x = x / math::max(n, T(eps));
  }
};
}  // namespace fn

struct row_column_scaling {
  double p = 2;
  scaling_order order = scaling_order::row_col;
  index_t sweeps = 1;
  double eps = negligible_norm;

  static std::string name() { return "row_column_scaling"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("p", self.p, range{.low = 1});
    visit("order", self.order);
    visit("sweeps", self.sweeps, range{.low = 1, .high = 1000});
    visit("racs_eps", self.eps, range{.low = 0, .low_open = true});
  }

  template <class E, class St, class C>
  void orthogonalize(E& e, St&, view<C> u) const {
    const auto frame = e.frame();
    const view<C> rows = e.take(u.rows, 1), columns = e.take(1, u.cols);
    const auto measure_rows = [&] { norms(e, rows, u); };
    const auto measure_columns = [&] { norms(e, columns.t(), u.t()); };
    const auto scale_rows = [&] { e.for_each(fn::divide_by_floored{eps}, u, per_row(rows)); };
    const auto scale_columns = [&] { e.for_each(fn::divide_by_floored{eps}, u, per_column(columns)); };
    for (index_t i = 0; i < sweeps; ++i) {
      if (order == scaling_order::row_col) measure_rows(), scale_rows(), measure_columns(), scale_columns();
      if (order == scaling_order::col_row) measure_columns(), scale_columns(), measure_rows(), scale_rows();
      if (order == scaling_order::joint) measure_rows(), measure_columns(), scale_rows(), scale_columns();
    }
  }

 private:
  template <class E, class C>
  void norms(E& e, view<C> out, view<C> x) const {
    if (p == 2) return detail::row_norms(e, out, x);
    const auto frame = e.frame();
    const view<C> largest = e.take(x.rows, 1), powers = e.take(x.rows, 1);
    e.reduce_rows(fn::abs_max{}, largest, as_const(x));
    e.reduce_rows(fn::scaled_power{p}, powers, as_const(x), per_row(largest));
    e.for_each(fn::power_norm{p}, out, as_const(largest), as_const(powers));
  }
};

}  // namespace MATOPT_NAMESPACE
