// Norms that neither overflow nor underflow, each in one pass.
#pragma once
#include "../../core/pass.hpp"

namespace matopt::detail {

// ||x||_F of each matrix as two numbers, 1 x 1 each: ||x||_F = scale * sqrt(squares). Both are 0 for x = 0.
template <class C>
struct scaled_norm {
  view<C> pair;  // 1 x 2
  view<C> scale = pair.col_block(0, 1), squares = pair.col_block(1, 1);
};
template <class E>
auto take_norm(E& e) {
  return scaled_norm<typename E::compute>{e.take(1, 2)};
}
template <class E, class V>
auto frobenius(E& e, V x) {
  const auto n = take_norm(e);
  e.reduce(fn::scaled_norm{}, n.pair, as_const(x));
  return n;
}

// out(i, 0) = ||x(i, :)||
template <class E, class T, class C>
void row_norms(E& e, view<C> out, view<T> x) {
  e.reduce_rows(fn::norm{}, out, as_const(x));
}

}  // namespace matopt::detail
