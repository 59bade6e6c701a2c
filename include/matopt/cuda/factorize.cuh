// Kernels of the small parts of orthonormalize, cholesky and solve_lower, blocks of 32 columns; all else is products.
// Nothing depends on the host, and sums are formed in a fixed order.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "../core/backend.hpp"
#include "../core/block_cholesky.hpp"
#include "../core/math.hpp"
#include "reduce.cuh"

namespace MATOPT_NAMESPACE::cuda {

// The sum over the calling warp.
template <class T>
__device__ T warp_sum(T x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
  return x;
}

// The upper triangular R with R^T R = g, at most 32 x 32, one thread per element: thread (y, x) of 32 x 32 gives g(y,
// x) and gets R(y, x), for x >= y. `pivot(k, g)` says what R(k, k) is, all threads alike; where it is infinite, row k
// is 0.
template <class A, class Pivot>
__device__ A upper_factor(A g, int n, const Pivot& pivot) {
  __shared__ A rows[2][32];  // one that is read while the next one is written
  const int x = static_cast<int>(threadIdx.x) % 32, y = static_cast<int>(threadIdx.x) / 32;
  A mine = 0;
  for (int k = 0; k < n; ++k) {  // one barrier per row
    A* const row = rows[k % 2];
    if (y == k) row[x] = g;
    __syncthreads();
    const A diagonal = pivot(k, row[k]), inverse = A(1) / diagonal, along = row[x] * inverse;
    if (y == k)
      mine = x == k ? diagonal : along;
    else
      g = g - row[y] * inverse * along;
  }
  return mine;
}

// For core/block_cholesky.hpp: one block of 1024 threads makes the diagonal block of one matrix its factor.
template <class T>
__global__ void __launch_bounds__(1024)
    cholesky_kernel(const status_word* guard, view<T> a, view<status_word> status, bool first) {
  if (guard && guard[blockIdx.x]) return;
  const index_t b = blockIdx.x, n = a.cols;
  const int x = static_cast<int>(threadIdx.x) % 32, y = static_cast<int>(threadIdx.x) / 32;
  bool failed = !first && status(0, 0, b);
  const T mine =
      upper_factor(x < n && y < n ? a(x > y ? x : y, x > y ? y : x, b) : T(0), static_cast<int>(n), [&](int, T pivot) {
        if (pivot > T(0) && math::finite(pivot)) return math::sqrt(pivot);
        failed = true;
        return std::numeric_limits<T>::infinity();
      });
  if (x < n && y < n) a(x, y, b) = x >= y ? mine : T(0);
  if (threadIdx.x == 0) status(0, 0, b) = failed;
}

// Q R = P in place, for core/block_cholesky.hpp and block_gram_schmidt.hpp: a thread per row of P. Where R's diagonal
// is infinite, Q's column is 0.
template <class T>
__global__ void __launch_bounds__(128) solve_rows_kernel(const status_word* guard, view<const T> r, view<T> p) {
  if (guard && guard[blockIdx.x]) return;
  constexpr int width = 32;
  __shared__ T upper[width][width], inverse[width];
  const index_t b = blockIdx.x, n = p.cols, i = static_cast<index_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  for (int e = static_cast<int>(threadIdx.x); e < width * width; e += static_cast<int>(blockDim.x)) {
    const int y = e / width, x = e % width;
    upper[y][x] = y < x && x < n ? r(y, x, b) : T(0);
    if (y == x) inverse[x] = x < n ? T(1) / r(x, x, b) : T(1);
  }
  __syncthreads();
  if (i >= p.rows) return;
  T q[width];
#pragma unroll
  for (int j = 0; j < width; ++j) q[j] = j < n ? p(i, j, b) : T(0);
#pragma unroll
  for (int j = 0; j < width; ++j) {
    q[j] *= inverse[j];
#pragma unroll
    for (int k = j + 1; k < width; ++k) q[k] -= q[j] * upper[j][k];
  }
#pragma unroll
  for (int j = 0; j < width; ++j)
    if (j < n) p(i, j, b) = q[j];
}
template <class T>
void solve_rows(cudaStream_t stream, const status_word* guard, const view<const T>& r, const view<T>& p) {
  const dim3 grid(static_cast<unsigned>(p.batch), static_cast<unsigned>((p.rows + 127) / 128));
  solve_rows_kernel<<<grid, 128, 0, stream>>>(guard, r, p);
}

}  // namespace MATOPT_NAMESPACE::cuda
