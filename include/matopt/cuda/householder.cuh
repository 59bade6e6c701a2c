// Kernels of orthonormal_basis (core/householder.hpp): one block makes the reflections of a block of columns of one
// matrix, others V^T V and the triangle that multiplies them out. All else is products.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <limits>

#include "../core/householder.hpp"
#include "factorize.cuh"

namespace MATOPT_NAMESPACE::cuda {

// Sums, or largest numbers, over the calling block of up to 1024 threads; all threads get them.
template <class T, bool Largest = false>
__device__ T over_block(T x) {
  __shared__ T of_warp[33];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            warps = static_cast<int>(blockDim.x) / 32;
  const auto over_lanes = [](T v) {
    for (int distance = 16; distance > 0; distance /= 2) {
      const T other = __shfl_xor_sync(0xffffffffU, v, distance);
      v = Largest ? math::max(v, other) : v + other;
    }
    return v;
  };
  x = over_lanes(x);
  __syncthreads();  // the last call's result has been read
  if (lane == 0) of_warp[warp] = x;
  __syncthreads();
  if (warp == 0) {
    x = over_lanes(lane < warps ? of_warp[lane] : T(0));
    if (lane == 0) of_warp[32] = x;
  }
  __syncthreads();
  return of_warp[32];
}

// How orthonormal_basis goes on a GPU, and the workspace: of panel_gram, then of the blocks.
template <class T>
struct basis_in_blocks {
  using blocks = matopt::detail::householder<T, 4>;
  static std::size_t workspace(index_t rows, index_t cols, index_t batch) {
    return of_panels(rows, batch) + blocks::workspace(rows, cols, batch);
  }
  static std::size_t of_panels(index_t rows, index_t batch) {
    return panel_gram::bytes(rows, batch, blocks::together / blocks::width);
  }
};

// The columns of v, side by side in memory, become reflections; each warp turns columns to the right of the newest.
template <class T>
__global__ void __launch_bounds__(1024)
    reflect_kernel(const status_word* guard, view<T> v, view<const T> norm, view<T> sign, index_t before) {
  if (guard && guard[blockIdx.x]) return;
  const index_t b = blockIdx.x, m = v.rows;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (index_t k = 0; k < v.cols; ++k) {
    T* const column = &v(0, k, b);
    T most = 0;
    for (index_t i = k + threadIdx.x; i < m; i += blockDim.x) most = math::max(most, math::abs(column[i]));
    const T largest = over_block<T, true>(most), unit = largest > T(0) ? largest : T(1);
    double squares = 0;
    for (index_t i = k + threadIdx.x; i < m; i += blockDim.x) {
      const double x = static_cast<double>(column[i] / unit);
      squares += x * x;
    }
    const T length = static_cast<T>(math::sqrt(over_block(squares))), head = column[k] / unit;
    const bool has = length * largest > norm(k, 0, b) * matopt::detail::rounding_of_projections<T>(before + k);
    const T towards = head < T(0) ? T(1) : T(-1), divisor = head - towards * length;
    __syncthreads();  // all have read the head
    squares = 0;
    for (index_t i = threadIdx.x; i < m; i += blockDim.x) {
      T x = i > k && has ? column[i] / unit / divisor : T(0);
      if (i == k) x = T(1);
      column[i] = x;
      squares += static_cast<double>(x) * static_cast<double>(x);
    }
    // Also what lets every thread see the column.
    const T twice = static_cast<T>(2 / over_block(squares));
    if (threadIdx.x == 0) sign(k, 0, b) = has ? towards : T(-1);
    for (index_t j = k + 1 + warp; j < v.cols; j += warps) {
      T* const other = &v(0, j, b);
      T along = 0;
#pragma unroll 8
      for (index_t i = k + lane; i < m; i += 32) along += column[i] * other[i];
      along = twice * warp_sum(along);
      constexpr int at_once = 8;  // read before one of them is written: the compiler cannot know that they are apart
      for (index_t first = k + lane; first < m; first += 32 * at_once) {
        T mine[at_once] = {}, theirs[at_once] = {};
#pragma unroll
        for (int r = 0; r < at_once; ++r)
          if (first + 32 * r < m) mine[r] = column[first + 32 * r], theirs[r] = other[first + 32 * r];
#pragma unroll
        for (int r = 0; r < at_once; ++r)
          if (first + 32 * r < m) other[first + 32 * r] = theirs[r] - along * mine[r];
      }
    }
    __syncthreads();
  }
}

// T of the newest reflections, at most 32: the inverse of V^T V's strictly upper part with half its diagonal, by the last
// block of a matrix. The blocks before it: V^T V of the reflections before these and of these.
template <class T>
__global__ void __launch_bounds__(1024)
    triangle_kernel(const status_word* guard, panel_gram of, view<T> t, view<T> along) {
  if (guard && guard[blockIdx.x]) return;
  constexpr int n = static_cast<int>(matopt::detail::householder<T>::width);
  static_assert(n == 32, "a warp's lanes are the rows of a tile");
  __shared__ double gram[n][n + 1], inverse[n][n + 1];
  const index_t b = blockIdx.x, w = t.cols, set = blockIdx.y;
  const int x = static_cast<int>(threadIdx.x) % n, y = static_cast<int>(threadIdx.x) / n;
  gram[y][x] = of.at(b, static_cast<int>(threadIdx.x), set);
  __syncthreads();
  if (set * n < along.rows) {
    if (y < w) along(set * n + x, y, b) = static_cast<T>(gram[x][y]);
    return;
  }
  // Row x of the inverse needs no other.
  if (y == 0 && x < w)
    for (int j = 0; j < w; ++j) {
      double along = x == j ? -1.0 : 0.0;
      for (int k = x; k < j; ++k) along += inverse[x][k] * gram[k][j];
      inverse[x][j] = x <= j ? -along * 2 / gram[j][j] : 0.0;
    }
  __syncthreads();
  if (x < w && y < w) t(x, y, b) = static_cast<T>(inverse[x][y]);
}

}  // namespace MATOPT_NAMESPACE::cuda
