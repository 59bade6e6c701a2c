// The kernel of random_normal: the numbers of core/philox.hpp, the same bits as on every backend.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../core/backend.hpp"
#include "../core/philox.hpp"
#include "extent.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class T>
__global__ void __launch_bounds__(block_size)
    random_normal_kernel(const status_word* guard, view<T> x, std::uint64_t seed, view<const std::uint32_t> counter) {
  const std::uint32_t step = counter(0, 0);
  const index_t each = x.rows * x.cols, stride = static_cast<index_t>(gridDim.x) * block_size;
  for (index_t b = blockIdx.y; b < x.batch; b += gridDim.y)
    for (index_t k = static_cast<index_t>(blockIdx.x) * block_size + threadIdx.x; k < each && !(guard && guard[b]);
         k += stride)
      x(k / x.cols, k % x.cols, b) = static_cast<T>(static_cast<typename arithmetic<T>::type>(
          philox::normal(seed, static_cast<std::uint32_t>(b), step, static_cast<std::uint64_t>(k))));
}

}  // namespace MATOPT_NAMESPACE::cuda
