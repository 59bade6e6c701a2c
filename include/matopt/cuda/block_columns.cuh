// block_columns: products with a symmetric result from a library that has none: D's block columns from the diagonal
// down, and then the rest by a mirror. Of the arithmetic (p + 1) / 2p is left with p of them; of the launches it takes
// p and one more.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <type_traits>

#include "../core/view.hpp"
#include "extent.cuh"

namespace MATOPT_NAMESPACE::cuda {

inline constexpr int mirror_tile = 32;

// The elements above the diagonal, from those below. Rows are contiguous.
template <class T>
__global__ void __launch_bounds__(block_size) mirror_kernel(view<T> d) {
  __shared__ T tile[mirror_tile][mirror_tile + 1];
  const int x = static_cast<int>(threadIdx.x) % mirror_tile, y = static_cast<int>(threadIdx.x) / mirror_tile;
  const index_t row = index_t{blockIdx.y} * mirror_tile, column = index_t{blockIdx.x} * mirror_tile;
  if (column > row) return;
  for (index_t b = blockIdx.z; b < d.batch; b += gridDim.z) {
    T* const base = d.base(b);
    for (int i = y; i < mirror_tile; i += block_size / mirror_tile)
      if (row + i < d.rows && column + x < d.cols) tile[i][x] = base[(row + i) * d.row_stride + column + x];
    __syncthreads();
    for (int i = y; i < mirror_tile; i += block_size / mirror_tile)
      if (row + x < d.rows && column + i < row + x) base[(column + i) * d.row_stride + row + x] = tile[x][i];
    __syncthreads();
  }
}
template <class T>
void mirror(cudaStream_t stream, const view<T>& d) {
  const auto tiles = static_cast<unsigned>((d.rows + mirror_tile - 1) / mirror_tile);
  mirror_kernel<<<dim3(tiles, tiles, static_cast<unsigned>(std::min(most_batch, d.batch))), block_size, 0, stream>>>(d);
}

// How many block columns a product with an n x n result is best cut into: measured on an H200. Tensor cores are done so
// soon that launches, and tiles that do not fill the chip, cost more below 4096.
template <class T>
index_t block_columns(index_t n) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>)
    return std::clamp<index_t>(n / 512, 1, 8);
  else
    return n < 4096 ? 1 : std::min<index_t>(n / 1024, 8);
}

// product(rows, first column, columns) for each of them.
template <class Product>
void for_block_columns(index_t n, index_t count, Product&& product) {
  constexpr index_t unit = 128;  // so that every block begins where the matrix's own lines are aligned
  const index_t width = ((n + count - 1) / count + unit - 1) / unit * unit;
  for (index_t first = 0; first < n; first += width) product(first, std::min(width, n - first));
}

}  // namespace MATOPT_NAMESPACE::cuda
