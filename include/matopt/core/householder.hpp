// The orthonormal factor of X = Q R by blocks of Householder reflections, for a batch, from a backend's own products.
//
//   of each block of columns:   V  unit lower trapezoidal: a reflection I - 2 v v^T / v^T v per column
//                               T  = (strictly upper part of V^T V + half its diagonal)^-1;  H = I - V T V^T
//   several blocks together:    H_1 H_2 = I - [V1 V2] [T1, -T1 V1^T V2 T2; 0, T2] [V1 V2]^T, and so on
//   to the right:               C <- H^T C = C - V T^T (V^T C), of a block as far as these go, then of all of them
//   then Q = H_1 H_2 ... S, from the last to the first; S: signs that make R's diagonal positive
//
// Q is orthonormal to rounding for every finite X: a reflection is orthogonal whatever it is made of. A column of which
// the reflections before it leave nothing but rounding counts as zero, and its reflection is that of a unit vector: the
// directions that X lacks are completed by those reflections of unit vectors. T from V^T V: Puglisi (SIAM J. Sci. Stat.
// Comput. 13, 1992). With several blocks together X is read and written less often, which GPUs wait for; a CPU is
// faster with one. FLOPs: 4 n^2 (m - n / 3).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <limits>
#include <type_traits>

#include "backend.hpp"
#include "broadcast.hpp"
#include "functors.hpp"
#include "math.hpp"
#include "rounding_of_projections.hpp"
#include "view.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct signed_identity {
  template <class T>
  MATOPT_HD void operator()(T& x, T sign, T row, T column) const {
    x = row == column ? sign : T(0);
  }
};
}  // namespace fn

namespace detail {

// `blocks`: how many go together
template <class T, index_t blocks = 1>
class householder {
 public:
  static constexpr index_t width = 32, together = blocks * width;  // of a block, and of what is multiplied out
  // Sums of a product that are longer are added up piece by piece: rounding grows with the length of a sum in float.
  static constexpr index_t longest_sum = std::is_same_v<T, float> ? 256 : std::numeric_limits<index_t>::max();

  static std::size_t workspace(index_t rows, index_t cols, index_t batch) {
    return static_cast<std::size_t>(batch * (rows * cols + 3 * together * cols + 2 * cols)) * sizeof(T);
  }

  // `reflect(v, norm, sign, before)` replaces the columns of v (m x b, m >= b, column-major) by the reflections that
  // make them upper triangular, v(k, k) = 1, zeros above, and stores the signs of R's diagonal (b x 1); `norm` (b x 1):
  // of these columns in X, `before`: how many columns X has before them. `triangle(v, t, along)` gets these reflections
  // behind the a ones that they are multiplied out with (m x (a + b)); it makes T of the last b (b x b, zeros below the
  // diagonal) and along = the first a of v, transposed, times the last b. Both with sums in double: equal terms of one
  // sign add up to errors that grow with their number, and Q is as orthonormal as T fits V. X has at most as many
  // columns as rows, and one unit stride.
  template <class Backend, class Reflect, class Triangle>
  static void run(Backend& verbs, const status_word* guard, const view<T>& x, std::byte* workspace,
                  const Reflect& reflect, const Triangle& triangle) {
    const index_t m = x.rows, n = x.cols, batch = x.batch;
    if (n == 0) return;
    T* next = reinterpret_cast<T*>(workspace);
    const auto piece = [&](index_t rows, index_t cols) {
      const view<T> v = col_major(next, rows, cols, batch);
      next += rows * cols * batch;
      return v;
    };
    const view<T> v = piece(m, n), t = piece(together, n), along = piece(together, n), turned = piece(together, n),
                  sign = piece(n, 1), norm = piece(n, 1);
    const auto reflections = [&](index_t from, index_t first, index_t count) {
      return v.row_block(from, m - from).col_block(first, count);
    };
    const auto multiply = [&](const view<T>& vb, const view<T>& c) {  // V^T C
      const view<T> a = along.row_block(0, vb.cols).col_block(0, c.cols);
      for (index_t at = 0; at < vb.rows; at += longest_sum) {
        const index_t count = math::min(longest_sum, vb.rows - at);
        verbs.template gemm<T>(guard, T(1), vb.row_block(at, count).t(), c.row_block(at, count), T(at > 0), a, a);
      }
      return a;
    };
    const auto turn = [&](const view<T>& tb, const view<T>& a) {  // T A
      const view<T> b = turned.row_block(0, a.rows).col_block(0, a.cols);
      verbs.template gemm<T>(guard, T(1), tb, a, T(0), b, b);
      return b;
    };
    // C - V T (V^T C), or with T^T
    const auto apply = [&](const view<T>& vb, const view<T>& tb, const view<T>& c, bool transposed) {
      verbs.template gemm<T>(guard, T(-1), vb, turn(transposed ? tb.t() : tb, multiply(vb, c)), T(1), c, c);
    };
    // The blocks from column `first` on, to X from column `column` on.
    const auto apply_together = [&](index_t first, index_t column, bool transposed) {
      const index_t count = math::min(together, n - first);
      if (column < n)
        apply(reflections(first, first, count), t.row_block(0, count).col_block(first, count),
              x.row_block(first, m - first).col_block(column, n - column), transposed);
    };
    verbs.reduce_rows(guard, fn::norm{}, norm, as_const(x.t()));
    if constexpr (blocks > 1) verbs.for_each(guard, fn::set_zero{}, v), verbs.for_each(guard, fn::set_zero{}, t);
    for (index_t first = 0; first < n; first += together) {
      const index_t right = math::min(first + together, n);
      for (index_t at = first; at < right; at += width) {
        const index_t w = math::min(width, right - at), before = at - first;
        const view<T> vb = reflections(at, at, w), columns = t.col_block(at, w), tb = columns.row_block(before, w),
                      rows = x.row_block(at, m - at);
        verbs.for_each(guard, fn::assign{}, vb, as_const(rows.col_block(at, w)));
        reflect(vb, as_const(norm.row_block(at, w)), sign.row_block(at, w), at);
        const view<T> a = along.row_block(0, before).col_block(0, w);
        triangle(as_const(reflections(at, first, before + w)), tb, a);
        if (before > 0) {
          const view<T> done = t.row_block(0, before).col_block(first, before), corner = columns.row_block(0, before);
          verbs.template gemm<T>(guard, T(-1), turn(done, a), tb, T(0), corner, corner);
        }
        if (at + w < right) apply(vb, tb, rows.col_block(at + w, right - at - w), true);
      }
      apply_together(first, right, true);
    }
    verbs.for_each(guard, fn::signed_identity{}, x, per_column(as_const(sign.t())), row_number{}, column_number{});
    for (index_t first = (n - 1) / together * together; first >= 0; first -= together)
      apply_together(first, first, false);
  }
};

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
