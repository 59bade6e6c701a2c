// A random matrix that is the same for every matrix of a bucket: what a matrix gets must not depend on its place there.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "../../core/pass.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class E, class T>
void random_block(E& e, view<T> x, std::uint64_t seed) {
  view<T> first = x.matrix(0);
  e.random_normal(first, seed);
  if (x.batch == 1) return;
  view<T> others = x.matrix(1);
  others.batch = first.batch = x.batch - 1, others.batch_stride = x.batch_stride;
  e.for_each(fn::assign{}, others, as_const(first));
}

}  // namespace MATOPT_NAMESPACE::detail
