// A = L L^T, and X <- L^-1 X or L^-T X, by blocks, for a batch, from a backend's own products.
//
//   of each block of columns k:   A_:k <- A_:k - L_:,<k (L_k,<k)^T     products with all that is finished
//                                 L_kk = chol(A_kk)                    a small factor
//                                 L_ik = A_ik L_kk^-T                  rows, one as good as the other
//   X_k <- L_kk^-1 (X_k - L_k,<k X_<k)          X_k <- L_kk^-T (X_k - (L_>k,k)^T X_>k)
//
// A block of A is read and written once, and what is before it only read. FLOPs: n^3 / 3, and n^2 per column of X.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "backend.hpp"
#include "broadcast.hpp"
#include "math.hpp"
#include "view.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct lower_part {
  template <class T>
  MATOPT_HD void operator()(T& x, T row, T column) const {
    x = row < column ? T(0) : x;
  }
};
}  // namespace fn

namespace detail {

// v with its rows in reverse order.
template <class T>
view<T> upside_down(const view<T>& v) {
  view<T> r = v.row_block(v.rows - 1, v.rows);
  r.row_stride = -v.row_stride;
  return r;
}

// `solve(r, p)` solves Q R = P in place: each row of P by the upper triangular R (b x b, b at most `width`; what is
// below its diagonal is not read). R's and P's strides may be negative. Matrices have one unit stride.
template <class T>
struct block_cholesky {
  static constexpr index_t width = 32;

  // `factor(a, first)` makes a (b x b) its lower Cholesky factor, with zeros above the diagonal, and raises the status
  // of a matrix that has a pivot which is not positive; `first`: whether the status begins with this block.
  template <class Backend, class Factor, class Solve>
  static void factorize(Backend& verbs, const status_word* guard, const view<T>& a, const Factor& factor,
                        const Solve& solve) {
    const index_t n = a.rows;
    for (index_t first = 0; first < n; first += width) {
      const index_t w = math::min(width, n - first), below = first + w;
      const view<T> rows = a.row_block(first, n - first), block = rows.col_block(first, w),
                    diagonal = block.row_block(0, w), done = rows.col_block(0, first);
      if (first > 0) verbs.template gemm<T>(guard, T(-1), done, done.row_block(0, w).t(), T(1), block, block);
      factor(diagonal, first == 0);
      if (below < n) solve(as_const(diagonal.t()), block.row_block(w, n - below));
    }
    if (n > width) verbs.for_each(guard, fn::lower_part{}, a, row_number{}, column_number{});
  }

  template <class Backend, class Solve>
  static void solve_lower(Backend& verbs, const status_word* guard, const view<const T>& l, const view<T>& x,
                          bool transpose, const Solve& solve) {
    const index_t n = x.rows;
    const auto block_at = [&](index_t first) {
      const index_t w = math::min(width, n - first), right = first + w;
      const view<T> block = x.row_block(first, w);
      const view<const T> diagonal = l.row_block(first, w).col_block(first, w);
      if (transpose) {
        if (right < n)
          verbs.template gemm<T>(guard, T(-1), l.row_block(right, n - right).col_block(first, w).t(),
                                 x.row_block(right, n - right), T(1), block, block);
        solve(upside_down(upside_down(diagonal).t()).t(), upside_down(block).t());
      } else {
        if (first > 0)
          verbs.template gemm<T>(guard, T(-1), l.row_block(first, w).col_block(0, first), x.row_block(0, first), T(1),
                                 block, block);
        solve(diagonal.t(), block.t());
      }
    };
    if (transpose)
      for (index_t first = (n - 1) / width * width; first >= 0; first -= width) block_at(first);
    else
      for (index_t first = 0; first < n; first += width) block_at(first);
  }
};

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
