// Norms that neither overflow nor underflow, each in one pass.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/pass.hpp"
#include "../../core/scaled_norm.hpp"

namespace MATOPT_NAMESPACE {

// The default eps beside a norm of gradients. It is so small that the update does not depend on the size of gradients
// down to 1e-30, where eps makes a difference of a millionth. It is there for a buffer that only decays: in float 0.95
// times the smallest number is rounded to that number again, so the buffer never becomes zero, and it must not move its
// weight.
inline constexpr double negligible_norm = 1e-36;

namespace fn {
// scale and factor of a matrix with ||x|| = n = largest sqrt(squares):
//   (x scale) factor = x / (margin n + eps), or x / max(margin n, eps), and 0 for n = 0
// in two steps, so that neither overflows; scale is a power of two.
struct normalizing_factors {
  double margin, eps;
  bool add;
  template <class T>
  MATOPT_HD void operator()(T& scale, T& factor, T largest, T squares) const {
    scale = math::divide_or_zero(T(1), largest);
    const T n = T(margin) * math::sqrt(squares), e = T(eps) * scale, sum = math::one_if<T>(add);
    factor = math::divide_or_zero(T(1), sum * (n + e) + (T(1) - sum) * math::max(n, e));
  }
};
// 1 if s is at most `most`
struct one_if_within {
  using reduction = maximum;
  double most;
  template <class T>
  MATOPT_HD T operator()(T s) const {
    return s <= T(most) ? T(1) : T(0);
  }
};
struct scale_twice {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T first, T second) const {
    y = x * first * second;
  }
};
}  // namespace fn

namespace detail {

template <class E, class V>
auto frobenius(E& e, V x) {
  const auto n = take_norm(e);
  e.reduce(fn::scaled_norm{}, n.pair, as_const(x));
  return n;
}

// The factors of fn::normalizing_factors, 1 x 2 for each matrix; and y = x by them.
template <class E, class C>
view<C> normalizing_factors(E& e, const scaled_norm<C>& n, double margin, double eps, bool add) {
  const view<C> factors = e.take_batch(n.pair.batch, 1, 2);
  e.for_each(fn::normalizing_factors{margin, eps, add}, factors.col_block(0, 1), factors.col_block(1, 1),
             as_const(n.scale), as_const(n.squares));
  return factors;
}
template <class E, class Y, class X, class C>
void normalize_by(E& e, view<Y> y, view<X> x, view<C> factors) {
  e.for_each(fn::scale_twice{}, y, as_const(x), per_matrix(factors.col_block(0, 1)),
             per_matrix(factors.col_block(1, 1)));
}

// out(i, 0) = ||x(i, :)||
template <class E, class C, class V>
void row_norms(E& e, view<C> out, V x) {
  e.reduce_rows(fn::norm{}, out, as_const(x));
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
