// Orthonormal columns that span what X's columns span, by blocks of Gram-Schmidt, for a batch, from a backend's own
// products.
//
//   of each block of columns:   P = its columns, each divided by its length        Q: the finished columns before it
//                               P <- P - Q (Q^T P), and each column divided by what that has left of its length
//                    twice:     P <- P - Q (Q^T P),   P <- orthonormal columns of P
//
// A column that keeps less than `tolerance` of its length, or no more than rounding leaves of a column that depends on
// those before it, becomes zero; the others are orthonormal to rounding for every finite X. The first projection leaves
// of a column that is nearly in Q's span a remainder that is not orthogonal to Q, and must not touch its neighbours
// before the second one has mended that: "twice is enough" (Giraud, Langou, Rozloznik, van den Eshof, Numer. Math. 101,
// 2005; for blocks: Barlow, Smoktunowicz, Numer. Math. 123, 2013). What the neighbours then leave of a column is not
// orthogonal to Q again, in the same measure, which is what the last round is for. A column that even this one shortens
// by half is not known to be orthogonal to the others, and becomes zero. FLOPs: 6 m n^2.
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
#include "view.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// y = x / (s sqrt(q)), 0 for s = 0
struct divide_by_scaled_norm {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s, T q) const {
    y = math::divide_or_zero(math::divide_or_zero(x, s), math::sqrt(q));
  }
};
}  // namespace fn

namespace detail {

// P <- P - Q (Q^T P) by products of the backend.
template <class T>
struct plain_projections {
  // Of the finished columns q and those of a block, p; `along`: memory for Q^T P. `again`: not the first time.
  template <class Backend>
  void take_away(Backend& verbs, const status_word* guard, const view<T>& q, const view<T>& p, const view<T>& along,
                 bool again) const {
    // Rounding grows with the length of a sum in float. What the first projection leaves of Q in P, the others take
    // away.
    const index_t longest = again && std::is_same_v<T, float> ? 512 : q.rows;
    for (index_t at = 0; at < q.rows; at += longest) {
      const index_t count = math::min(longest, q.rows - at);
      verbs.template gemm<T>(guard, T(1), q.row_block(at, count).t(), p.row_block(at, count), T(at > 0), along, along);
    }
    verbs.template gemm<T>(guard, T(-1), q, along, T(1), p, p);
  }
  // Columns first, first + 1, ... of Q are p.
  template <class Backend>
  void finish(Backend&, const status_word*, const view<T>&, index_t) const {}
};

// `block`: how many columns go together. A GPU may take more than a CPU: its products want to be wide.
template <class T, index_t block = 32>
class block_gram_schmidt {
 public:
  static constexpr index_t width = block;

  static std::size_t workspace(index_t rows, index_t cols, index_t batch) {
    return static_cast<std::size_t>(batch * (rows * width + cols * (width + 3))) * sizeof(T);
  }

  // `orthonormalize(p, kept, before, last)` makes the columns of p (m x b, column-major) orthonormal or zero, and
  // multiplies `kept` (b x 1), what is left of each column's length so far, by what it leaves of it; `before`: how many
  // columns X has before them; before the first columns, `kept` is not set yet. It returns whether they need no other
  // round, which must not depend on data. A column of which `kept` alone says that nothing is left must become zero
  // before it touches another. X has one unit stride.
  template <class Backend, class Panel, class Projections = plain_projections<T>>
  static void run(Backend& verbs, const status_word* guard, const view<T>& x, std::byte* workspace,
                  const Panel& orthonormalize, const Projections& projections = {}) {
    const index_t m = x.rows, n = x.cols, batch = x.batch;
    if (m == 0 || n == 0) return;
    T* next = reinterpret_cast<T*>(workspace);
    const auto piece = [&](index_t rows, index_t cols) {
      const view<T> v = col_major(next, rows, cols, batch);
      next += rows * cols * batch;
      return v;
    };
    const view<T> panel = piece(m, width), along = piece(n, width), length = piece(n, 2), kept = piece(n, 1);
    verbs.reduce_rows(guard, fn::scaled_norm{}, length, as_const(x.t()));
    for (index_t first = 0; first < n; first += width) {
      const index_t w = math::min(width, n - first);
      const view<T> xb = x.col_block(first, w), p = panel.col_block(0, w), of = length.row_block(first, w).t();
      verbs.for_each(guard, fn::divide_by_scaled_norm{}, p, as_const(xb), per_column(as_const(of.row_block(0, 1))),
                     per_column(as_const(of.row_block(1, 1))));
      const view<T> q = x.col_block(0, first), a = along.row_block(0, first).col_block(0, w),
                    k = kept.row_block(first, w);
      if (first > 0) {
        projections.take_away(verbs, guard, q, p, a, false);
        verbs.reduce_rows(guard, fn::norm{}, k, as_const(p.t()));
        verbs.for_each(guard, fn::divide{}, p, as_const(p), per_column(as_const(k.t())));
      }
      for (const bool last : {false, true}) {
        if (first > 0) projections.take_away(verbs, guard, q, p, a, true);
        if (orthonormalize(p, k, first, last)) break;
      }
      verbs.for_each(guard, fn::assign{}, xb, as_const(p));
      if (first + w < n) projections.finish(verbs, guard, p, first);
    }
  }
};

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
