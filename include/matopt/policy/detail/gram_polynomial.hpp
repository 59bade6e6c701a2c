// What an odd polynomial of X multiplies X by, from A = X X^T:  p(X) = a X + W X,  W = b A + c A^2 + d A^3 + e A^4.
//
// Degree 9 by two products, as degree 5 takes one:
//
//   W = e N^2 + h N + g A      N = s A - A^2      s = -d / (2 e)      h = e s^2 - c      g = b - h s
//
// The minimax rows have large coefficients of both signs. N is small where the singular values are large, so that here
// no two large terms cancel: b A + c A^2 + A^2 (d A + e A^2) in float16 sends a matrix of one row to infinity.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/pass.hpp"
#include "../orthogonalizer/coefficients.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// y = first x + second z
struct combination {
  double first, second;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T z) const {
    y = T(first) * x + T(second) * z;
  }
};
// y = y + by
struct shift {
  double by;
  template <class T>
  MATOPT_HD void operator()(T& y) const {
    y += T(by);
  }
};
}  // namespace fn

namespace detail {

// Whether W is formed of N.
constexpr bool completes_square(const odd_polynomial& p) {
  return p.degree() == 9 && (p.d < 0 ? -p.d : p.d) <= 32 * (p.e < 0 ? -p.e : p.e);
}

// w = W, for degrees 5, 7 and 9 (3: a product with nothing is added). `square` holds A^2 if `squared`, else anything,
// and is overwritten for degrees 7 and 9. For degree 5, w may be `square`; for degrees 7 and 9, a.
template <class E, class T>
void gram_polynomial(E& e, const odd_polynomial& p, view<T> a, view<T> w, view<T> square, bool squared,
                     factor_entries of = factor_entries::any) {
  using A = arithmetic_t<T>;
  const view<T> other =
      of == factor_entries::bounded ? a.t() : a;  // the same numbers: a backend sees that it is one matrix
  if (p.degree() <= 5) {
    if (squared)
      e.for_each(fn::combination{p.b, p.c}, w, as_const(a), as_const(square));
    else
      e.gemm_symmetric(A(p.c), a, other, A(p.b), a, w, of);
    return;
  }
  if (!completes_square(p)) {
    const auto frame = e.frame();
    const view<T> rest = e.template take_batch<T>(a.batch, a.rows, a.cols);
    if (!squared) e.gemm_symmetric(A(1), a, other, A(0), square, square, of);
    e.for_each(fn::combination{p.d, p.e}, rest, as_const(a), as_const(square));
    e.gemm_symmetric(A(1), square, rest, A(p.b), a, w, of);
    e.for_each(fn::combination{1, p.c}, w, as_const(w), as_const(square));
    return;
  }
  const double s = -p.d / (2 * p.e), h = p.e * s * s - p.c, g = p.b - h * s;
  if (squared)
    e.for_each(fn::combination{s, -1}, square, as_const(a), as_const(square));
  else
    e.gemm_symmetric(A(-1), a, a, A(s), a, square, of);
  e.for_each(fn::combination{g, h}, w, as_const(a), as_const(square));
  e.gemm_symmetric(A(p.e), square, square, A(1), w, w, of);
}

// Where an iteration goes on by the Gram matrix R alone: whether X and R are formed anew before a step, after six steps
// at the latest. `first(i)` is the coefficient a of step i. Each step multiplies what rounding has made of R's zero
// eigenvalues by a^2, and where they have become negative and no longer small, the polynomial throws them to infinity.
template <class First>
bool gram_restarts_before(const First& first, index_t step) {
  constexpr double most = 3e6;  // no published set passes it in its usual steps
  double growth = 1;
  index_t since = 0;  // how many steps R has seen
  for (index_t i = 0; i <= step; ++i, ++since) {
    const double factor = first(i) * first(i);
    const bool restart = i > 0 && (since == 6 || growth * factor > most);
    if (restart) growth = 1, since = 0;
    if (i == step) return restart;
    growth *= factor;
  }
  return false;
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
