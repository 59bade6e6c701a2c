// Kernels of the small parts of orthonormalize, cholesky and solve_lower, blocks of 32 columns; all else is products.
// Nothing depends on the host, and sums are formed in a fixed order.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
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

// G = L^T P of up to 32 columns each, 32 x 32, in double, from the whole device: of each 128 rows by themselves. L: one
// set of 32 columns after another, each with a G of its own.
inline constexpr int gram_rows = 128;
template <class T>
__global__ void __launch_bounds__(256)
    gram_kernel(const status_word* guard, view<const T> l, view<const T> p, double* sums) {
  if (guard && guard[blockIdx.x]) return;
  constexpr int width = 32;
  __shared__ double tile[2][32][width + 1];
  const index_t b = blockIdx.x, first = static_cast<index_t>(blockIdx.y) * gram_rows, column = blockIdx.z * width;
  const int thread = static_cast<int>(threadIdx.x), x = thread % 16, y = thread / 16, row = thread % 32;
  const bool one = &l(0, column, b) == &p(0, 0, b);  // P^T P
  const auto load = [&](double(*to)[width + 1], const view<const T>& from, index_t left_out, int at) {
    const index_t i = first + at + row;
    for (int j = thread / 32; j < width; j += 8)
      to[row][j] = i < from.rows && left_out + j < from.cols ? static_cast<double>(from(i, left_out + j, b)) : 0.0;
  };
  double sum[2][2] = {};
  for (int at = 0; at < gram_rows; at += 32) {
    __syncthreads();
    load(tile[0], p, 0, at);
    if (!one) load(tile[1], l, column, at);
    __syncthreads();
    const auto& of_l = tile[one ? 0 : 1];
    for (int r = 0; r < 32; ++r)
      for (int u = 0; u < 2; ++u)
        for (int v = 0; v < 2; ++v) sum[u][v] += of_l[r][y + 16 * u] * tile[0][r][x + 16 * v];
  }
  sums += ((b * gridDim.z + blockIdx.z) * gridDim.y + blockIdx.y) * (width * width);
  for (int u = 0; u < 2; ++u)
    for (int v = 0; v < 2; ++v) sums[(y + 16 * u) * width + x + 16 * v] = sum[u][v];
}
class panel_gram {
 public:
  // `sets`: of up to 32 columns of L
  panel_gram(index_t rows, std::byte* workspace, index_t sets = 1)
      : pieces_((rows + gram_rows - 1) / gram_rows), sets_(sets), sums_(reinterpret_cast<double*>(workspace)) {}
  static std::size_t bytes(index_t rows, index_t batch, index_t sets = 1) {
    return static_cast<std::size_t>((rows + gram_rows - 1) / gram_rows * sets * batch) * (32 * 32 * sizeof(double));
  }
  // For batches and panels of at most the rows that it was made for.
  template <class T>
  void of(cudaStream_t stream, const status_word* guard, const view<const T>& l, const view<const T>& p) const {
    const dim3 grid(static_cast<unsigned>(p.batch), static_cast<unsigned>(pieces_), static_cast<unsigned>(sets_));
    gram_kernel<<<grid, 256, 0, stream>>>(guard, l, p, sums_);
  }
  // Element i of matrix b, by rows.
  __device__ double at(index_t b, int i, index_t set = 0) const {
    double sum = 0;
    for (index_t k = 0; k < pieces_; ++k) sum += sums_[((b * sets_ + set) * pieces_ + k) * (32 * 32) + i];
    return sum;
  }

 private:
  index_t pieces_, sets_;
  double* sums_;
};

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
