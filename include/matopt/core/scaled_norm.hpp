// The Frobenius norm of each matrix of a bucket, as two numbers that neither overflow nor vanish.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "pass.hpp"

namespace MATOPT_NAMESPACE::detail {

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

}  // namespace MATOPT_NAMESPACE::detail
