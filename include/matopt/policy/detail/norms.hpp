// Norms that neither overflow nor underflow: n = a sqrt(sum (x / a)^2) with a = max |x|.
#pragma once
#include "../../core/pass.hpp"

namespace matopt::detail {

// The largest entry of each matrix and the sum of squares relative to it, 1 x 1 each: ||x||_F = largest *
// sqrt(squares).
template <class C>
struct scaled_norm {
  view<C> largest, squares;
};
template <class E, class T>
auto frobenius(E& e, view<T> x) {
  using C = typename E::compute;
  const scaled_norm<C> n{e.take(1, 1), e.take(1, 1)};
  e.reduce(fn::abs_max{}, n.largest, as_const(x));
  e.reduce(fn::scaled_square{}, n.squares, as_const(x), per_matrix(n.largest));
  return n;
}

// out(i, 0) = ||x(i, :)||
template <class E, class T, class C>
void row_norms(E& e, view<C> out, view<T> x) {
  const auto frame = e.frame();
  const view<C> largest = e.take(x.rows, 1), squares = e.take(x.rows, 1);
  e.reduce_rows(fn::abs_max{}, largest, as_const(x));
  e.reduce_rows(fn::scaled_square{}, squares, as_const(x), per_row(largest));
  e.for_each(fn::scaled_root{}, out, as_const(largest), as_const(squares));
}

}  // namespace matopt::detail
