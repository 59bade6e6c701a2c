// A = L L^T, and X <- L^-1 X or L^-T X, by blocks, for a batch, from a backend's own products.
//
//   of each block of columns k:   A_:k <- A_:k - L_:,<k (L_k,<k)^T     products with all that is finished
//                                 L_kk = chol(A_kk)                    a small factor
//                                 L_ik = A_ik L_kk^-T                  rows, one as good as the other
//   X_1 <- L_11^-1 X_1,  X_2 <- X_2 - L_21 X_1,  X_2 <- L_22^-1 X_2     halves, each in the same way, down to a block;
//                                                                      with L^T from the last to the first
//
// A block of A is read and written once, and what is before it only read. X is read and written once per halving, where
// block after block would read all that is finished for each. FLOPs: n^3 / 3, and n^2 per column of X.
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
    const index_t n = x.rows, half = (n / 2 + width - 1) / width * width;
    if (n <= width)
      return transpose ? solve(upside_down(upside_down(l).t()).t(), upside_down(x).t()) : solve(l.t(), x.t());
    const view<T> upper = x.row_block(0, half), lower = x.row_block(half, n - half);
    const view<const T> below = l.row_block(half, n - half), corner = below.col_block(0, half);
    const auto solve_upper = [&] {
      solve_lower(verbs, guard, l.row_block(0, half).col_block(0, half), upper, transpose, solve);
    };
    if (!transpose) {
      solve_upper();
      verbs.template gemm<T>(guard, T(-1), corner, upper, T(1), lower, lower);
    }
    solve_lower(verbs, guard, below.col_block(half, n - half), lower, transpose, solve);
    if (transpose) {
      verbs.template gemm<T>(guard, T(-1), corner.t(), lower, T(1), upper, upper);
      solve_upper();
    }
  }
};

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
