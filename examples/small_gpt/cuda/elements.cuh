// What the kernels of the model share: wide loads and stores of elements that are computed with in float, sums over the
// lanes of a warp, and launches with one warp or a few lanes per item.
#pragma once
#include <cuda_bf16.h>

#include <cstdint>
#include <matopt/core/bfloat16.hpp>
#include <matopt/core/index.hpp>
#include <matopt/cuda/error.cuh>
#include <type_traits>

namespace small_gpt::gpu {

using matopt::bfloat16;
using matopt::index_t;

inline constexpr int block_size = 256, warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffU;

// Elements in 16 bytes.
template <class T>
inline constexpr int widest = 16 / static_cast<int>(sizeof(T));

// N neighbouring elements, from an address that is a multiple of their size.
template <int N, class T>
__device__ void load(const T* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = static_cast<float>(*from);
  } else if constexpr (std::is_same_v<T, float>) {
    static_assert(N == 4);
    const float4 x = *reinterpret_cast<const float4*>(from);
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  } else {
    static_assert(N == 8);
    const uint4 x = *reinterpret_cast<const uint4*>(from);
    const std::uint32_t words[] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = __uint_as_float(words[i] << 16);
      to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
    }
  }
}

// Two floats, rounded to nearest, as one word of bfloat16; the first in the lower half.
__device__ inline std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&two);
}

template <int N, class T>
__device__ void store(T* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = static_cast<T>(from[0]);
  } else if constexpr (std::is_same_v<T, float>) {
    *reinterpret_cast<float4*>(to) = {from[0], from[1], from[2], from[3]};
  } else {
    *reinterpret_cast<uint4*>(to) = {pack(from[0], from[1]), pack(from[2], from[3]), pack(from[4], from[5]),
                                     pack(from[6], from[7])};
  }
}

// The sum over groups of `lanes` neighbouring lanes, a power of two; all lanes of the warp call it, and get it.
__device__ inline float lane_sum(float x, int lanes = warp_size) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(all_lanes, x, apart);
  return x;
}
__device__ inline float lane_max(float x, int lanes = warp_size) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(all_lanes, x, apart));
  return x;
}

// Calls f with the number of elements to take at once, as a constant: lines of `length` elements of T, and all
// distances between lines, are multiples of it.
template <class T, class F>
void with_width(index_t length, F f) {
  if (length % widest<T> == 0)
    f(std::integral_constant<int, widest<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

// Blocks for `items`, of which each block takes `per_block`.
inline unsigned blocks_for(index_t items, index_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

template <int N>
__global__ void convert_kernel(const float* from, bfloat16* to, index_t size) {
  const index_t i = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i >= size) return;
  float v[N];
  if constexpr (N == 1) {
    v[0] = from[i];
  } else {
    float low[4], high[4];
    load<4>(from + i, low), load<4>(from + i + 4, high);
    for (int k = 0; k < 4; ++k) v[k] = low[k], v[k + 4] = high[k];
  }
  store<N>(to + i, v);
}
// Rounds to nearest.
inline void convert(cudaStream_t stream, const float* from, bfloat16* to, index_t size) {
  with_width<bfloat16>(size, [&](auto n) {
    convert_kernel<n()><<<blocks_for(size, block_size * n()), block_size, 0, stream>>>(from, to, size);
  });
  matopt::cuda::check_launch("round weights");
}

}  // namespace small_gpt::gpu
