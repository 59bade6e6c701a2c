// The kernels of quantize and dequantize: one warp per block, or one block of threads where blocks are long. Up to 256
// elements of a block stay in the registers of its warp, so a matrix is read once.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../core/backend.hpp"
#include "../core/block_codes.hpp"
#include "extent.cuh"

namespace MATOPT_NAMESPACE::cuda {

// Neighbours in the order of a matrix that a thread takes together.
template <class T>
struct alignas(4 * sizeof(T)) four {
  T at[4];
};

template <class T>
struct coded_blocks {
  view<T> x;
  index_t elements, blocks, length;  // of a matrix; of a block
  bool dense;                        // x and the codes are lines without gaps that can be read by fours

  template <class U>
  coded_blocks(const block_format& format, const view<T>& v, const view<U>& codes)
      : x(v), elements(v.rows * v.cols), blocks(format.blocks(elements)), length(std::min(format.block, elements)) {
    const auto line = [](const auto& y) {
      return (y.cols == 1 || y.col_stride == 1) && (y.rows == 1 || y.row_stride == y.cols) && !y.table;
    };
    const auto by_fours = [](const auto& y) {
      return reinterpret_cast<std::uintptr_t>(y.data) % (4 * sizeof *y.data) == 0 &&
             (y.batch == 1 || y.batch_stride % 4 == 0);
    };
    dense = length % 4 == 0 && line(x) && line(codes) && by_fours(x) && by_fours(codes);
  }
};

// Elements `at`, ... of matrix b to or from registers: at most `left` of them.
template <class T>
__device__ four<std::remove_const_t<T>> load_four(const view<T>& v, bool dense, index_t b, index_t at, index_t left) {
  using U = std::remove_const_t<T>;
  if (dense && left >= 4) return *reinterpret_cast<const four<U>*>(v.base(b) + at);
  four<U> y{};
  for (int k = 0; k < 4; ++k)
    if (k < left) y.at[k] = v((at + k) / v.cols, (at + k) % v.cols, b);
  return y;
}
template <class T>
__device__ void store_four(const view<T>& v, bool dense, index_t b, index_t at, index_t left, const four<T>& y) {
  if (dense && left >= 4) {
    *reinterpret_cast<four<T>*>(v.base(b) + at) = y;
    return;
  }
  for (int k = 0; k < 4; ++k)
    if (k < left) v((at + k) / v.cols, (at + k) % v.cols, b) = y.at[k];
}

// The table of the dynamic map in shared memory; the other maps have none.
template <class Map>
__device__ const float* table_of() {
  if constexpr (std::is_same_v<Map, detail::coder<code_map::dynamic>>) {
    __shared__ float table[129];
    for (int n = static_cast<int>(threadIdx.x); n < 129; n += static_cast<int>(blockDim.x)) table[n] = dynamic_value(n);
    __syncthreads();
    return table;
  } else {
    return nullptr;
  }
}

template <class A>
__device__ A largest_of_warp(A x) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const A other = __shfl_xor_sync(0xffffffffU, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

// Team: threads that share a block: a warp, or all of the launch's blocks.
template <int Team, class Map, class T>
__global__ void __launch_bounds__(block_size)
    quantize_kernel(const status_word* guard, coded_blocks<const T> all, view<std::uint8_t> codes, view<float> scales) {
  using A = typename arithmetic<T>::type;
  constexpr int held = 2;  // fours of a thread that stay in registers: the 256 elements of a warp
  const float* const table = table_of<Map>();
  const int lane = static_cast<int>(threadIdx.x) % Team;
  constexpr int teams = block_size / Team;
  for (index_t b = blockIdx.y; b < all.x.batch; b += gridDim.y) {
    if (guard && guard[b]) continue;
    for (index_t block = static_cast<index_t>(blockIdx.x) * teams + static_cast<int>(threadIdx.x) / Team;
         block < all.blocks; block += static_cast<index_t>(gridDim.x) * teams) {
      const index_t begin = block * all.length;
      const index_t count = all.length < all.elements - begin ? all.length : all.elements - begin;
      four<T> kept[held];
      A largest(0);
      int turn = 0;
      for (index_t at = 4 * lane; at < count; at += 4 * Team, ++turn) {
        const four<T> y = load_four(all.x, all.dense, b, begin + at, count - at);
#pragma unroll
        for (int h = 0; h < held; ++h)
          if (h == turn) kept[h] = y;
        for (int k = 0; k < 4; ++k) {
          const A size = math::abs(static_cast<A>(y.at[k]));
          largest = size > largest ? size : largest;
        }
      }
      largest = largest_of_warp(largest);
      if constexpr (Team > 32) {
        __shared__ A of_warp[block_size / 32];
        __syncthreads();  // the array may still be read for the block before
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
        __syncthreads();
        for (const A other : of_warp) largest = other > largest ? other : largest;
      }
      const float scale = detail::scale_of(largest);
      if (lane == 0) scales(0, block, b) = scale;
      turn = 0;
      for (index_t at = 4 * lane; at < count; at += 4 * Team, ++turn) {
        four<T> y;
        if (turn >= held) y = load_four(all.x, all.dense, b, begin + at, count - at);
#pragma unroll
        for (int h = 0; h < held; ++h)
          if (h == turn) y = kept[h];
        four<std::uint8_t> c;
        for (int k = 0; k < 4; ++k)
          c.at[k] = Map::of(detail::share_of(static_cast<A>(y.at[k]), A(scale), A(Map::top)), table);
        store_four(codes, all.dense, b, begin + at, count - at, c);
      }
    }
  }
}

template <class Map, class T>
__global__ void __launch_bounds__(block_size)
    dequantize_kernel(const status_word* guard, coded_blocks<T> all, view<const std::uint8_t> codes,
                      view<const float> scales) {
  using A = typename arithmetic<T>::type;
  const float* const table = table_of<Map>();
  // Fours of a block do not reach into the next one.
  const index_t of_block = (all.length + 3) / 4, fours = all.blocks * of_block;
  for (index_t b = blockIdx.y; b < all.x.batch; b += gridDim.y) {
    if (guard && guard[b]) continue;
    for (index_t number = static_cast<index_t>(blockIdx.x) * block_size + threadIdx.x; number < fours;
         number += static_cast<index_t>(gridDim.x) * block_size) {
      const index_t block = number / of_block, in_block = (number - block * of_block) * 4;
      const index_t at = block * all.length + in_block;
      index_t left = all.length - in_block;
      if (left > all.elements - at) left = all.elements - at;
      if (left <= 0) continue;
      const four<std::uint8_t> c = load_four(codes, all.dense, b, at, left);
      const A scale(scales(0, block, b));
      four<T> y;
      for (int k = 0; k < 4; ++k) y.at[k] = static_cast<T>(Map::template value<A>(c.at[k], table) * scale);
      store_four(all.x, all.dense, b, at, left, y);
    }
  }
}

inline dim3 grid_of_blocks(index_t needed, index_t batch) {
  return dim3(static_cast<unsigned>(std::min<index_t>(1 << 20, std::max<index_t>(1, needed))),
              static_cast<unsigned>(std::min(most_batch, batch)));
}

template <class T>
void quantize(cudaStream_t stream, const status_word* guard, const block_format& format, const view<const T>& x,
              const view<std::uint8_t>& codes, const view<float>& scales) {
  if (x.rows == 0 || x.cols == 0 || x.batch == 0) return;
  const coded_blocks<const T> all(format, x, codes);
  detail::with_map(format.map, [&](auto map) {
    using Map = decltype(map);
    if (all.length <= 1024)
      quantize_kernel<32, Map, T>
          <<<grid_of_blocks((all.blocks + 7) / 8, x.batch), block_size, 0, stream>>>(guard, all, codes, scales);
    else
      quantize_kernel<block_size, Map, T>
          <<<grid_of_blocks(all.blocks, x.batch), block_size, 0, stream>>>(guard, all, codes, scales);
  });
}
template <class T>
void dequantize(cudaStream_t stream, const status_word* guard, const block_format& format,
                const view<const std::uint8_t>& codes, const view<const float>& scales, const view<T>& x) {
  if (x.rows == 0 || x.cols == 0 || x.batch == 0) return;
  const coded_blocks<T> all(format, x, codes);
  const index_t fours = all.blocks * ((all.length + 3) / 4);
  detail::with_map(format.map, [&](auto map) {
    dequantize_kernel<decltype(map), T>
        <<<grid_of_blocks((fours + block_size - 1) / block_size, x.batch), block_size, 0, stream>>>(guard, all, codes,
                                                                                                    scales);
  });
}

}  // namespace MATOPT_NAMESPACE::cuda
