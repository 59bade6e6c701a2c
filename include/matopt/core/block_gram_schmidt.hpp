// Orthonormal columns that span what X's columns span, by blocks of Gram-Schmidt, for a batch, from a backend's own
// products.
//
//   of each block of columns:   P = its columns, each divided by its length
//   in each round:              P <- P - Q (Q^T P)         Q: the finished columns before it
//                               P <- orthonormal columns of P
//
// A column that keeps less than `tolerance` of its length, or no more than rounding leaves of a column that depends on
// those before it, becomes zero. Two rounds are enough where each column of P is well apart from Q and from the other
// columns of P, relative to the length that the rounds before have left of it (Kahan's "twice is enough"; for blocks:
// Barlow, Smoktunowicz, Numer. Math. 123, 2013). A third one serves chains of nearly dependent columns: where a column
// is known to a few digits, the next one that lies along it has fewer. What even the last round shortens by half is not
// known to be orthogonal to the others, and becomes zero. So columns are orthonormal or zero for every finite X.
// FLOPs: 2 m n^2 per round.
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

namespace matopt {

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

template <class T>
class block_gram_schmidt {
 public:
  static constexpr index_t width = 32;  // of a block
  static constexpr index_t rounds = 3;  // at most

  static std::size_t workspace(index_t rows, index_t cols, index_t batch) {
    return static_cast<std::size_t>(batch * (rows * width + cols * (width + 3))) * sizeof(T);
  }

  // `orthonormalize(p, kept, before, round)` makes the columns of p (m x b, column-major) orthonormal or zero, and
  // keeps in `kept` (b x 1) what all rounds so far have left of each column's length, 1 before round 0; `before`: how
  // many columns X has before them. It returns whether that was the last round, which must not depend on data. X has one
  // unit stride.
  template <class Backend, class Panel>
  static void run(Backend& verbs, const status_word* guard, const view<T>& x, std::byte* workspace,
                  const Panel& orthonormalize) {
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
      for (index_t round = 0; round < rounds; ++round) {
        if (first > 0)
          project(verbs, guard, x.col_block(0, first), p, along.row_block(0, first).col_block(0, w), round);
        if (orthonormalize(p, kept.row_block(first, w), first, round)) break;
      }
      verbs.for_each(guard, fn::assign{}, xb, as_const(p));
    }
  }

 private:
  // Rounding grows with the length of a sum in float. What the first round leaves of Q in P, the next ones take away.
  static constexpr index_t longest_sum = std::is_same_v<T, float> ? 512 : std::numeric_limits<index_t>::max();

  template <class Backend>
  static void project(Backend& verbs, const status_word* guard, const view<T>& q, const view<T>& p,
                      const view<T>& along, index_t round) {
    const index_t longest = round > 0 ? longest_sum : q.rows;
    for (index_t at = 0; at < q.rows; at += longest) {
      const index_t count = math::min(longest, q.rows - at);
      verbs.template gemm<T>(guard, T(1), q.row_block(at, count).t(), p.row_block(at, count), T(at > 0), along, along);
    }
    verbs.template gemm<T>(guard, T(-1), q, along, T(1), p, p);
  }
};

}  // namespace detail
}  // namespace matopt
