// D = alpha A B + beta C for a batch of matrices in float or bfloat16, by one set of kernels.
//
// Both operands are packed into panels (whole, where they fit), then the tiles of D are handed out one by one, each
// with the whole depth. Sums are in float, in blocks of the depth that its length alone fixes: bits depend on the set
// of kernels, but neither on the threads nor on the storage order of A and B. Of a symmetric D, the part above the
// diagonal is neither computed nor read from C, but mirrored by the task that finished its other half: exactly
// symmetric. bfloat16 is rounded once, at the end (twice where the depth is more than 40960). One stride of D must be
// 1; A, B and C may have any. C may be D. D may not overlap A or B. Nothing is allocated.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../core/view.hpp"
#include "kernel_set.hpp"
#include "workspace.hpp"

namespace MATOPT_NAMESPACE::simd {

// How to run task(closure, i, worker) for i = 0 .. tasks-1, in any order and on any worker, and wait for all.
struct task_runner {
  void* pool;
  void (*run)(void* pool, index_t tasks, void (*task)(void* closure, index_t i, int worker), void* closure);
};

template <class E>
struct product_problem {
  float alpha;
  view<const E> a, b;
  float beta;
  view<const E> c;
  view<E> d;
  bool symmetric = false;
};

void product(const kernel_set& kernels, workspace& memory, task_runner threads, product_problem<float> problem);
void product(const kernel_set& kernels, workspace& memory, task_runner threads, product_problem<bfloat16> problem);

}  // namespace MATOPT_NAMESPACE::simd

#if defined(MATOPT_HIGHWAY) && !defined(MATOPT_SIMD_COMPILED)
#include "product_definition.hpp"
#endif
