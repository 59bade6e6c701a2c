// The polar factor of matrices that are nearly orthonormal, where products are narrower than the arithmetic; that of
// others is found as that of any matrix. Rows are at most columns:
//
//   H = X X^T - I,  Y = X - (1/2 H - 3/8 H^2 + 5/16 H^3 - 35/128 H^4) X          (I + H)^-1/2 X to fourth order
//   G = Y Y^T - I,  Y <- Y - 1/2 G Y
//
// X X^T and Y Y^T are in the arithmetic. All else is a correction, and its rounding is relative to its own size: H is
// 0.1 where singular values are 1 +- 0.05, G some 1e-5. The polynomial is positive, and 1 is the only singular value
// that it keeps. So ||G||_F is small only where X was near, and decides: at most 2e-3, which singular values of 1 +-
// 0.14 reach, 3/8 G^2 is all that is left.
//
// The others take exact_polar. Its kernels are launched for all, and return at once for those that are done
// (pass::only). FLOPs: 8 m^2 n + 6 m^3, m <= n, and exact_polar's.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "line_norms.hpp"
#include "polar_by_products.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// y = scale (x - 1) on the diagonal, scale x elsewhere
struct beside_identity {
  double scale;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T row, T column) const {
    y = T(scale) * (x - math::one_if<T>(row == column));
  }
};
// y = x + change
struct sum_of {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T change) const {
    y = x + change;
  }
};
}  // namespace fn

namespace detail {

// y is near the polar factors of x, and `done` 1, where x is near them itself.
template <class E, class T>
void correct_nearby(E& e, view<T> x, view<T> y, view<status_word> done) {
  using P = typename E::product;
  using A = arithmetic_t<P>;
  constexpr factor_entries of = factor_entries::bounded;
  constexpr double close = 2e-3, up = 1024;  // G's entries are too small for 16 bits
  const auto frame = e.frame();
  const view<P> narrow = e.template take_like<P>(x), change = e.template take_like<P>(x);
  const auto square = [&](auto of_type) { return e.template take<decltype(of_type)>(x.rows, x.rows); };
  const view<P> h = square(P{}), two = square(P{}), sum = square(P{}), factor = square(P{});
  const view<T> gram = square(T{}), left = e.take(1, 1);
  const auto apply = [&](const view<P>& by, double times, const view<T>& on) {
    e.for_each(fn::assign{}, narrow, as_const(on));
    e.gemm(A(times), by, narrow, A(0), change, change);
    e.for_each(fn::sum_of{}, y, as_const(on), as_const(change));
  };
  e.gemm_symmetric(T(1), x, x.t(), T(0), gram, gram, of);
  e.for_each(fn::beside_identity{1}, h, as_const(gram), row_number{}, column_number{});
  e.gemm_symmetric(A(1), h, h, A(0), two, two);
  e.gemm_symmetric(A(35. / 128), h, h, A(-5. / 16), h, sum);
  e.for_each(fn::shift{3. / 8}, sum.diagonal());
  e.gemm_symmetric(A(1), two, sum, A(-.5), h, factor);
  apply(factor, 1, x);
  e.gemm_symmetric(T(1), y, y.t(), T(0), gram, gram, of);
  e.for_each(fn::beside_identity{up}, h, as_const(gram), row_number{}, column_number{});
  matrix_norm(e, left, h);
  e.reduce(fn::one_if_within{close * up}, done, as_const(left));
  apply(h, -.5 / up, y);
}

// Replaces x.
template <class E, class T>
void polar_nearby(E& e, view<T> x) {
  const auto frame = e.frame();
  const view<T> y = e.take_like(x);
  const view<status_word> done = e.take_words();
  const bool tall = x.rows > x.cols;
  correct_nearby(e, tall ? x.t() : x, tall ? y.t() : y, done);
  E rest = e.only(done);
  rest.where_any([&] { polar_by_products(rest, x); });
  rest.for_each(fn::assign{}, y, as_const(x));
  e.for_each(fn::assign{}, x, as_const(y));
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
