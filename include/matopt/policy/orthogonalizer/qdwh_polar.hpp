// The polar factor by QR-based dynamically weighted Halley iteration: few steps, each a factorization, no
// decomposition.
//
//   X = A / sqrt(||A||_1 ||A||_inf), transposed if rows < columns;   l = lower bound on the smallest singular value
//   d = (4 (1 / l^2 - 1) / l^2)^(1/3)    a = sqrt(1 + d) + sqrt(2 - d + 2 (2 - l^2) / (l^2 sqrt(1 + d)))
//   b = (a - 1)^2 / 4    c = a + b - 1   l <- l (a + b l^2) / (1 + c l^2)
//   c > 100:  [sqrt(c) X; I] = [Q1; Q2] R,  X <- (b / c) X + (a - b / c) / sqrt(c) Q1 Q2^T
//   else:     X <- (b / c) X + (a - b / c) X (I + c X^T X)^-1
//   at the end X <- 1.5 X - 0.5 X X^T X
//
// Nakatsukasa, Bai, Gygi (SIAM J. Matrix Anal. 2010); PolarGrad (arXiv 2505.21799). The schedule follows from l alone,
// so the host never looks at a value. `lower` must fit the precision: from float's 1.2e-7 two steps give singular
// values in [0.73, 1], three 1e-5, four 3e-15; steps = 0 goes on until l + 5 eps >= 1. Zero gives zero.
//
// Reflections make Q1 and Q2, or, of floats up to c = 1e10, their equal in exact arithmetic, in double:
//
//   R^T R = I + c X^T X     [Q1; Q2] = [sqrt(c) X; I] R^-1
//
// Rounding changes R^T R by c eps at most: in double 2e-6, from float's bound 6e-7, which is less than reflections in
// float lose. State: none. Scratch per matrix of m x n, m >= n: 5 (m + n) n scalars at most. Needs: gemm,
// orthonormal_basis, cholesky, solve_lower.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <limits>
#include <type_traits>

#include "../../core/policy.hpp"
#include "svd_polar.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// y = x / sqrt(a) / sqrt(b), 0 for a = 0
struct divide_by_roots {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T a, T b) const {
    y = math::divide_or_zero(math::divide_or_zero(x, math::sqrt(a)), math::sqrt(b));
  }
};
struct absolute {
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return math::abs(x);
  }
};
struct scale_by {
  double factor;
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = T(factor) * x;
  }
};
}  // namespace fn

namespace fn {
// x = old x + fresh y
struct combine {
  double old, fresh;
  template <class T>
  MATOPT_HD void operator()(T& x, T y) const {
    x = T(old) * x + T(fresh) * y;
  }
};
}  // namespace fn

struct qdwh_polar {
  index_t steps = 0;
  double lower = 1.1920928955078125e-07;

  static std::string name() { return "qdwh_polar"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("qdwh_steps", self.steps, range{.low = 0, .high = 50});
    visit("qdwh_lower", self.lower, range{.low = 0, .high = 1, .low_open = true, .high_open = true});
  }

  template <class E, class St, class T>
  requires E::can_factor void orthogonalize(E& e, St&, view<T> u) const {
    const auto frame = e.frame();
    const view<T> x = u.rows < u.cols ? u.t() : u;
    const index_t m = x.rows, n = x.cols;
    start(e, x);

    const view<T> stack = e.take(m + n, n, true), next = e.take(n, m, true).t(), gram = e.take(n, n, true);
    constexpr factor_entries of = factor_entries::bounded;  // no entry of X, Q1 and Q2 is beyond 1
    double l = lower;
    for (index_t i = 0; steps > 0 ? i < steps : l + 5 * static_cast<double>(std::numeric_limits<T>::epsilon()) < 1;
         ++i) {
      const double l2 = l * l, d = std::cbrt(4 * (1 / l2 - 1) / l2), root = std::sqrt(1 + d);
      const double a = root + std::sqrt(2 - d + 2 * (2 - l2) / (l2 * root)), b = (a - 1) * (a - 1) / 4, c = a + b - 1;
      l = math::min(1.0, l * (a + b * l2) / (1 + c * l2));
      if (c > 100) {
        orthonormal_stack(e, c, x, stack);
        e.gemm(T((a - b / c) / std::sqrt(c)), stack.row_block(0, m), stack.row_block(m, n).t(), T(b / c), x, x, of);
      } else {
        e.for_each(fn::set_identity{}, gram, row_number{}, column_number{});
        e.gemm_symmetric(T(c), x.t(), x, T(1), gram, gram, of);
        e.cholesky(gram);
        e.for_each(fn::assign{}, next, as_const(x));
        e.solve_lower(gram, next.t(), false);
        e.solve_lower(gram, next.t(), true);
        e.for_each(fn::combine{b / c, a - b / c}, x, as_const(next));
      }
    }
    e.gemm_symmetric(T(-0.5), x.t(), x, T(0), gram, gram, of);
    e.for_each(fn::assign{}, next, as_const(x));
    e.gemm(T(1), next, gram, T(1.5), next, x, of);
  }

 private:
  // stack <- [Q1; Q2]
  template <class E, class T>
  static void orthonormal_stack(E& e, double c, view<T> x, view<T> stack) {
    if constexpr (std::is_same_v<T, float>)
      if (c <= 1e10) {
        const auto frame = e.frame();
        const view<double> wide = e.template take<double>(stack.rows, stack.cols, true);
        stack_up(e, c, x, wide), divide_by_root(e, wide);
        return e.for_each(fn::assign{}, stack, as_const(wide));
      }
    stack_up(e, c, x, stack);
    e.orthonormal_basis(stack);
  }
  template <class E, class T, class W>
  static void stack_up(E& e, double c, view<T> x, view<W> stack) {
    e.for_each(fn::scale_by{std::sqrt(c)}, stack.row_block(0, x.rows), as_const(x));
    e.for_each(fn::set_identity{}, stack.row_block(x.rows, x.cols), row_number{}, column_number{});
  }
  // [Y; I] <- [Y; I] R^-1, R^T R = I + Y^T Y
  template <class E, class W>
  static void divide_by_root(E& e, view<W> stack) {
    const index_t n = stack.cols;
    const view<W> y = stack.row_block(0, stack.rows - n), lower = e.template take<W>(n, n, true);
    e.for_each(fn::set_identity{}, lower, row_number{}, column_number{});
    e.gemm_symmetric(W(1), y.t(), y, W(1), lower, lower);
    e.cholesky(lower);
    e.solve_lower(lower, stack.t(), false);
  }
  // Divides by sqrt(||x||_1 ||x||_inf), which is at least the largest singular value; by the largest entry first, so
  // that no finite input overflows.
  template <class E, class T>
  static void start(E& e, view<T> x) {
    const auto frame = e.frame();
    const view<T> largest = e.take(1, 1), rows = e.take(x.rows, 1), columns = e.take(1, x.cols), one = e.take(1, 1),
                  inf = e.take(1, 1);
    e.reduce(fn::abs_max{}, largest, as_const(x));
    e.for_each(fn::divide{}, x, as_const(x), per_matrix(largest));
    e.reduce_rows(fn::absolute{}, rows, as_const(x));
    e.reduce_rows(fn::absolute{}, columns.t(), as_const(x.t()));
    e.reduce(fn::abs_max{}, inf, as_const(rows));
    e.reduce(fn::abs_max{}, one, as_const(columns));
    e.for_each(fn::divide_by_roots{}, x, as_const(x), per_matrix(one), per_matrix(inf));
  }
};

}  // namespace MATOPT_NAMESPACE
