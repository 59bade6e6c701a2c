// Rows divided so that no singular value is above 1, with what a Gram matrix tells (AOL: almost orthogonal layers):
//
//   A = X X^T       s_i = (sum_j |A_ij|)^(-1/2)       X <- diag(s) X       A <- diag(s) A diag(s)
//
// By Gershgorin's circles the eigenvalues of the new A are at most 1. Orthogonal rows all come to length 1, where a
// norm of the whole matrix leaves short rows short. Rows are first divided by their own lengths n_i, so that A holds
// cosines, which 16 bits can; then A_ij is n_i n_j times the cosine, and nothing else changes.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "norms.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// sum |x| s
struct weighted_size {
  template <class T>
  MATOPT_HD T operator()(T x, T s) const {
    return math::abs(x) * s;
  }
};
// f = n / (margin max(sqrt(n w), eps)); 0 for n = 0
struct almost_orthogonal_factor {
  double margin, eps;
  template <class T>
  MATOPT_HD void operator()(T& f, T n, T w) const {
    f = math::divide_or_zero(n, T(margin) * math::max(math::sqrt(n) * math::sqrt(w), T(eps)));
  }
};
// y = y r c
struct scale_both {
  template <class T>
  MATOPT_HD void operator()(T& y, T r, T c) const {
    y *= r * c;
  }
};
}  // namespace fn

namespace detail {

// y = x with rows of length 1, n their lengths; a row of zeros stays.
template <class E, class Y, class X, class C>
void to_unit_rows(E& e, view<Y> y, view<X> x, view<C> n) {
  e.for_each(fn::divide{}, y, as_const(x), per_row(n));
}

// Makes of such rows x what AOL makes of the matrix that they came from, divided by margin; and a = x x^T of the
// result. A row whose n_i / s_i is below eps is divided by eps instead.
template <class E, class T, class C>
void almost_orthogonalize(E& e, view<T> x, view<T> a, view<C> n, double margin, double eps) {
  using A = arithmetic_t<T>;
  const auto frame = e.frame();
  const auto f = e.template take_batch<A>(x.batch, x.rows, 1);
  e.gemm_symmetric(A(1), x, x.t(), A(0), a, a);
  e.reduce_rows(fn::weighted_size{}, f, as_const(a), per_column(as_const(n).t()));
  e.for_each(fn::almost_orthogonal_factor{margin, eps}, f, as_const(n), as_const(f));
  e.for_each(fn::scaled{}, x, as_const(x), per_row(f));
  e.for_each(fn::scale_both{}, a, per_row(f), per_column(f.t()));
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
