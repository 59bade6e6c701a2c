// The polar factor of a weight that is probably nearly orthonormal, in place, where products are narrower than the
// arithmetic. Rows are at most columns; H = X X^T - I is in the arithmetic, all that follows from it in 16 bits:
//
//   X <- X + p(H) X        p(h) = c1 h + ... + c6 h^6, within 8e-6 of (1 + h)^-1/2 - 1 for |h| <= 0.4
//
// What is added has the rounding of its own size, and the next step measures H anew: singular values are 1 to 2e-5 where
// they were 1 +- 0.02, which is Muon's step at 0.02, and to 4e-5 at the end of the range. ||H^2||_F^1/2 >= ||H||_2 is
// known, and says who is within it. The others, in a branch (pass::where_any), get two corrections if they are not too
// far, to the rounding of the arithmetic:
//
//   Y = X - (1/2 H - 3/8 H^2 + 5/16 H^3 - 35/128 H^4) X          (I + H)^-1/2 X to fourth order
//   G = Y Y^T - I,  Y <- Y - 1/2 G Y
//
// The polynomial is positive, and 1 is the only singular value that it keeps. So ||G||_F is small only where X was near,
// and decides: at most 2e-3, which singular values of 1 +- 0.14 reach, 3/8 G^2 is all that is left. The rest, in a
// branch again, takes exact_polar.
//
// FLOPs: 4 m^2 n + 8 m^3, m <= n; two corrections: 8 m^2 n + 6 m^3 more.
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
// y = x, z = x
struct assign_twice {
  template <class T>
  MATOPT_HD void operator()(T& y, T& z, T x) const {
    y = z = x;
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

// h = scale (x x^T - I), which is formed in x's type and only then rounded.
template <class E, class T, class P>
void off_identity(E& e, view<T> x, double scale, view<P> h) {
  const auto frame = e.frame();
  const view<T> gram = e.take(x.rows, x.rows);
  e.gemm_symmetric(T(1), x, x.t(), T(0), gram, gram, factor_entries::bounded);
  e.for_each(fn::beside_identity{scale}, h, as_const(gram), row_number{}, column_number{});
}

// w = x + p(H) x, where x = w is given; `done` is 1 for those within the range.
template <class E, class W, class T>
void correct_once(E& e, view<W> w, view<T> x, view<status_word> done) {
  using P = typename E::product;
  using A = arithmetic_t<P>;
  constexpr double c[] = {-0.50011719, 0.37521924, -0.30658006, 0.26573475, -0.31679402, 0.30145685}, range = .4;
  const auto frame = e.frame();
  const view<P> narrow = e.template take_like<P>(x), change = e.template take_like<P>(x);
  e.for_each(fn::assign_twice{}, x, narrow, as_const(w));
  const bool tall = x.rows > x.cols;
  const auto wide = [&](auto v) { return tall ? v.t() : v; };
  const index_t m = wide(x).rows;
  const view<P> h = e.template take<P>(m, m), two = e.template take<P>(m, m), even = e.template take<P>(m, m),
                odd = e.template take<P>(m, m);
  const view<T> size = e.take(1, 1);
  off_identity(e, wide(x), 1, h);
  e.gemm_symmetric(A(1), h, h, A(0), two, two);
  matrix_norm(e, size, two);
  e.reduce(fn::one_if_within{range * range}, done, as_const(size));
  e.gemm_symmetric(A(c[5]), h, h, A(c[4]), h, even);
  e.for_each(fn::shift{c[3]}, even.diagonal());
  e.gemm_symmetric(A(1), two, even, A(c[2]), h, odd);
  e.for_each(fn::shift{c[1]}, odd.diagonal());
  e.gemm_symmetric(A(1), two, odd, A(c[0]), h, even);
  e.gemm(A(1), even, wide(narrow), A(0), wide(change), wide(change));
  e.for_each(fn::sum_of{}, w, as_const(x), as_const(change));
}

// y is near the polar factors of x, and `done` 1, where x is near them itself.
template <class E, class T>
void correct_twice(E& e, view<T> x, view<T> y, view<status_word> done) {
  using P = typename E::product;
  using A = arithmetic_t<P>;
  constexpr double close = 2e-3, up = 1024;  // G's entries are too small for 16 bits
  const auto frame = e.frame();
  const view<P> narrow = e.template take_like<P>(x), change = e.template take_like<P>(x);
  const auto square = [&] { return e.template take<P>(x.rows, x.rows); };
  const view<P> h = square(), two = square(), sum = square(), factor = square();
  const view<T> left = e.take(1, 1);
  const auto apply = [&](const view<P>& by, double times, const view<T>& on) {
    e.for_each(fn::assign{}, narrow, as_const(on));
    e.gemm(A(times), by, narrow, A(0), change, change);
    e.for_each(fn::sum_of{}, y, as_const(on), as_const(change));
  };
  off_identity(e, x, 1, h);
  e.gemm_symmetric(A(1), h, h, A(0), two, two);
  e.gemm_symmetric(A(35. / 128), h, h, A(-5. / 16), h, sum);
  e.for_each(fn::shift{3. / 8}, sum.diagonal());
  e.gemm_symmetric(A(1), two, sum, A(-.5), h, factor);
  apply(factor, 1, x);
  off_identity(e, y, up, h);
  matrix_norm(e, left, h);
  e.reduce(fn::one_if_within{close * up}, done, as_const(left));
  apply(h, -.5 / up, y);
}

// Replaces x.
template <class E, class T>
void polar_by_two_corrections(E& e, view<T> x) {
  const auto frame = e.frame();
  const view<T> y = e.take_like(x);
  const view<status_word> done = e.take_words();
  const bool tall = x.rows > x.cols;
  correct_twice(e, tall ? x.t() : x, tall ? y.t() : y, done);
  E rest = e.only(done);
  rest.where_any([&] {
    polar_by_products(rest, x);
    rest.for_each(fn::assign{}, y, as_const(x));
  });
  e.for_each(fn::assign{}, x, as_const(y));
}

// Replaces w, whose singular values are probably near 1.
template <class E, class W>
void polar_nearby(E& e, view<W> w) {
  const auto frame = e.frame();
  const auto x = e.take_like(w);
  const view<status_word> done = e.take_words();
  correct_once(e, w, x, done);
  E rest = e.only(done);
  rest.where_any([&] {
    polar_by_two_corrections(rest, x);
    rest.for_each(fn::assign{}, w, as_const(x));
  });
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
