// The kernel of for_each: f(x(i, j), y(i, j), ...) for all elements of all matrices of a batch.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../core/backend.hpp"
#include "argument.cuh"
#include "extent.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class A, class F, class... V>
__global__ void __launch_bounds__(block_size) map_kernel(const status_word* guard, F f, extent e, V... v) {
  constexpr int at_once = packs_at_once<A>;
  const index_t step = static_cast<index_t>(gridDim.x) * block_size * at_once;
  for (index_t b = blockIdx.y; b < e.batch; b += gridDim.y) {
    if (guard && guard[b]) continue;
    const auto all = [&](const auto&... located) {
      for (index_t at = static_cast<index_t>(blockIdx.x) * block_size * at_once + threadIdx.x; at < e.packs();
           at += step)
        apply<A>(
            f, packs_from<at_once>(e, at, block_size, e.packs()), [](auto) {}, located...);
    };
    all(locate<pack_size>(v, b, e.lines)...);
  }
}

template <class A, class F, class... V>
void map(cudaStream_t stream, const status_word* guard, const F& f, const extent& e, const V&... v) {
  constexpr index_t most_blocks = 1 << 20, of_block = block_size * packs_at_once<A>;
  const dim3 grid(static_cast<unsigned>(std::min(most_blocks, (e.packs() + of_block - 1) / of_block)),
                  static_cast<unsigned>(std::min(most_batch, e.batch)));
  map_kernel<A><<<grid, block_size, 0, stream>>>(guard, f, e, v...);
}

}  // namespace MATOPT_NAMESPACE::cuda
