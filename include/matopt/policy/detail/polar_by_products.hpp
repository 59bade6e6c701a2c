// The exact polar factor by products, to the rounding of the type, with the directions that are noise left out.
//
//   X = M / S8            S8 = ||(M M^T)^2||_F^(1/4) >= sigma_1, at most q^(1/8) sigma_1; q = min(m, n)
//   X <- a X + b A X + c A^2 X                     A = X X^T
//                         rows of polar_express, the second of them repeated: what is above `least` comes to 1 +- 0.02
//   X <- (35 A - 42 A^2 + 15 A^3) X / 8            two or three times: r(x) = (35 x^3 - 42 x^5 + 15 x^7) / 8
//
// Amsel et al.: The Polar Express (arXiv 2505.16932, Theorem 3.1). Its rows are the minimax polynomials for [1e-3, 1];
// the second keeps [0, 2] in [0, 2] and makes small values 4.07 times as large, so that repeating it extends the range
// down to any `least`. r decides: r'(1) = r''(1) = 0, so that values near 1 converge with order three, and r(x) =
// O(x^3), so that values below 0.6 vanish as quickly. A direction counts as noise below max(m, n) eps sigma_1, as for
// svd_polar. Rounding of M and of the products leaves about eps sigma_1 in directions that M does not have; it comes to
// less than 0.1 before r, and to zero. Directions within a few times the limit may end anywhere between 0 and 1.
//
// All steps have the standard form: the Gram form squares singular values and would lose the small ones. For 768
// columns nine steps and two of r in float, 23 and three in double. FLOPs: 2 m^2 (2n + m) per step, m <= n, and
// 4 m^2 (n + m) per step of r. Scratch per matrix: mn + 3 m^2 scalars, of as many matrices as go through at a time.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

#include "gram_polynomial.hpp"
#include "norms.hpp"
#include "schatten.hpp"
#include "spare_memory.hpp"

namespace MATOPT_NAMESPACE::detail {

// The rows for singular values in [least, 1].
class polar_rows {
 public:
  explicit polar_rows(double least) {
    const double missing = std::log(polar_express_least / least) / std::log(polar_express_rows[growing].a);
    repeated_ = math::max(index_t{0}, static_cast<index_t>(std::ceil(missing)));
  }
  index_t size() const { return repeated_ + used; }
  odd_polynomial operator[](index_t i) const {
    const index_t row = i <= growing ? i : math::max(growing, i - repeated_);
    return polar_express_rows[static_cast<std::size_t>(row)];
  }

 private:
  static constexpr double polar_express_least = 1e-3;
  static constexpr index_t growing = 1, used = 6;  // six of the rows end at 1 +- 0.02
  index_t repeated_;
};

template <class E, class T>
class exact_polar {
 public:
  // Replaces every matrix of u.
  static void run(E& e, view<T> u) {
    const auto frame = e.frame();
    const view<T> m = u.rows > u.cols ? u.t() : u;
    const auto norm = frobenius(e, m);
    const view<T> factors = normalizing_factors(e, norm, 1, 0, true), one = e.take(1, 1);
    e.for_each(fn::set_one{}, one);
    const index_t at_once = math::max(index_t{1}, math::min(m.batch, e.template product_batch<T>(m.rows, m.cols)));
    const exact_polar all{e.template take_batch<T>(at_once, m.rows, m.cols, !m.row_contiguous()),
                          {square(e, at_once, m), square(e, at_once, m), square(e, at_once, m)}};
    for (index_t first = 0; first < m.batch; first += at_once) {
      const index_t count = math::min(at_once, m.batch - first);
      const view<T> x = m.matrices(first, count);
      E part = e.part(first, count);
      normalize_by(part, x, x, factors.matrices(first, count));
      all.members(first, count, m.batch).converge(part, x, as_const(one.matrices(first, count)));
    }
  }

 private:
  exact_polar(view<T> other, std::array<view<T>, 3> squares) : other_(other), squares_(squares) {}
  exact_polar members(index_t first, index_t count, index_t of) const {
    const auto part = [&](view<T> v) { return detail::members(v, first, count, of); };
    return {part(other_), {part(squares_[0]), part(squares_[1]), part(squares_[2])}};
  }
  static view<T> square(E& e, index_t batch, view<T> m) { return e.template take_batch<T>(batch, m.rows, m.rows); }

  // x of ||x||_F = 1 or 0
  void converge(E& e, view<T> x, view<const T> one) const {
    const view<T> a = squares_[0], b = squares_[1], w = squares_[2];
    const double q = static_cast<double>(x.rows), eps = static_cast<double>(std::numeric_limits<T>::epsilon());
    const polar_rows rows(static_cast<double>(x.cols) * eps / std::pow(q, 0.125));
    view<T> from = x, to = other_;
    constexpr factor_entries of =
        factor_entries::bounded;  // singular values are at most 2, of the polynomials of A at most 10
    const auto gram = [&] { e.gemm_symmetric(T(1), from, from.t(), T(0), a, a, of); };
    divide_by_schatten_norm(e, spectral_bound::schatten8, from, a, b, one, of);
    for (index_t i = 0; i < rows.size(); ++i, std::swap(from, to)) {
      if (i > 0) gram();
      gram_polynomial(e, rows[i], a, w, b, i == 0, of);
      e.gemm(T(1), w, from, T(rows[i].a), from, to, of);
    }
    for (int i = 0; i < deciding_steps; ++i, std::swap(from, to)) {
      gram();
      e.gemm_symmetric(T(15. / 8), a, a.t(), T(-42. / 8), a, b, of);
      e.gemm_symmetric(T(1), a, b, T(35. / 8), a, w, of);
      e.gemm(T(1), w, from, T(0), to, to, of);
    }
    if (from.data != x.data) e.for_each(fn::assign{}, x, as_const(from));
  }

  static constexpr int deciding_steps = std::is_same_v<T, double> ? 3 : 2;

  view<T> other_;
  std::array<view<T>, 3> squares_;
};

// Whether the polar factor of such matrices takes less time by products than by singular values.
constexpr bool polar_by_products_pays(index_t rows, index_t cols) { return math::min(rows, cols) >= 64; }

template <class E, class T>
void polar_by_products(E& e, view<T> u) {
  exact_polar<E, T>::run(e, u);
}

}  // namespace MATOPT_NAMESPACE::detail
