// Step directions of norms that look at rows or columns one by one.
//
//   column_direction   u_:j <- u_:j / (||u_:j|| / sqrt(m) + eps)                       columns of norm sqrt(m)
//   row_direction      u_i: <- u_i: / (||u_i:|| sqrt(n) + eps), or without sqrt(n)     rows of norm 1 / sqrt(n), or 1
//
// m x n = rows x columns. Scion's ColNorm and RowNorm (arXiv 2502.07529, Table 2); eps sits where its official code has
// it; the code's is 1e-8 (scion), the default of the policies 1e-36 (negligible_norm). On a column vector
// column_direction is Scion's BiasRMS (Table 3). Zero lines stay zero. State: none. FLOPs: 4 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// x / (factor n + eps)
struct divide_by_norm {
  double factor, eps;
  template <class T>
  MATOPT_HD void operator()(T& x, T n) const {
    x = x / (T(factor) * n + T(eps));
  }
};
}  // namespace fn

struct column_direction {
  double eps = negligible_norm;

  static std::string name() { return "column_direction"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("norm_eps", self.eps, range{.low = 0, .low_open = true});
  }
  template <class E, class St, class C>
  void orthogonalize(E& e, St&, view<C> u) const {
    const auto frame = e.frame();
    const view<C> norm = e.take(1, u.cols);  // Scion, Table 2, 1 -> RMS: the columns to norm sqrt(m)
    detail::row_norms(e, norm.t(), u.t());   // the rows of the transpose are the columns
    e.for_each(fn::divide_by_norm{1 / std::sqrt(static_cast<double>(u.rows)), eps}, u, per_column(norm));
  }
};

struct row_direction {
  double eps = negligible_norm;
  bool root_mean_square = true;  // divide by sqrt(n), too

  static std::string name() { return "row_direction"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("norm_eps", self.eps, range{.low = 0, .low_open = true});
    visit("norm_root_mean_square", self.root_mean_square);
  }
  template <class E, class St, class C>
  void orthogonalize(E& e, St&, view<C> u) const {
    const auto frame = e.frame();
    const view<C> norm = e.take(u.rows, 1);  // Scion, Table 2, RMS -> infinity: the rows to norm 1 / sqrt(n)
    detail::row_norms(e, norm, u);
    const double factor = root_mean_square ? std::sqrt(static_cast<double>(u.cols)) : 1;
    e.for_each(fn::divide_by_norm{factor, eps}, u, per_row(norm));
  }
};

}  // namespace MATOPT_NAMESPACE
