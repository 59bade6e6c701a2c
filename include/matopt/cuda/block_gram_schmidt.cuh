// One round of orthonormalize (core/block_gram_schmidt.hpp) for the columns of a block, P = Q R, on the whole device:
//
//   G = P^T P              in double, piece by piece of the rows, many blocks of threads
//   R^T R = G              one block of threads per matrix
//   P <- P R^-1            solve_rows
//
// A pivot of G is a difference, and is lost in rounding where columns are nearly dependent, long before Gram-Schmidt
// would lose the column. So where a column keeps less than a quarter of its length beside its neighbours, the block of
// threads that has found that takes the matrix's columns one by one instead, each by as many projections as it needs,
// and its R is not used: the device decides, and the launches are always the same. Zero columns do not count. In the
// last round columns are orthonormal but for what the round before has left, and one that is shortened by half is not.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "../core/block_gram_schmidt.hpp"
#include "../core/rounding_of_projections.hpp"
#include "factorize.cuh"
#include "householder.cuh"

namespace MATOPT_NAMESPACE::cuda {

// The columns of matrix b, one by one, by the calling block of threads, a warp for each other column; as
// gram_schmidt of eigen/factorize.hpp. `kept`: in shared memory.
template <int most, class T>
__device__ void gram_schmidt(const view<T>& p, index_t b, T* kept, index_t before, bool last, T tolerance) {
  __shared__ T along[most];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int j = 0; j < static_cast<int>(p.cols); ++j) {
    const T least = math::max(tolerance, matopt::detail::rounding_of_projections<T>(before + j)), left = kept[j];
    T* const column = &p(0, j, b);
    T of_round = 1;
    for (int pass = 0; pass < 2; ++pass) {
      for (int k = warp; k < j; k += static_cast<int>(blockDim.x) / 32) {
        const T* const other = &p(0, k, b);
        T sum = 0;
#pragma unroll 8
        for (index_t i = lane; i < p.rows; i += 32) sum += other[i] * column[i];
        sum = warp_sum(sum);
        if (lane == 0) along[k] = sum;
      }
      __syncthreads();
      double squares = 0;
      for (index_t i = threadIdx.x; i < p.rows; i += blockDim.x) {
        T rest = column[i];
#pragma unroll 8
        for (int k = 0; k < j; ++k) rest -= along[k] * p(i, k, b);
        column[i] = rest;
        squares += static_cast<double>(rest) * static_cast<double>(rest);
      }
      const T length = static_cast<T>(math::sqrt(over_block(squares)));
      of_round *= length;
      const bool nothing = !(left * of_round > least);
      for (index_t i = threadIdx.x; i < p.rows; i += blockDim.x) column[i] = nothing ? T(0) : column[i] / length;
      __syncthreads();
      if (nothing || length > T(0.7)) break;
    }
    const bool none = !(left * of_round > least) || (last && !(of_round > T(0.5)));
    if (none)
      for (index_t i = threadIdx.x; i < p.rows; i += blockDim.x) column[i] = T(0);
    __syncthreads();
    if (threadIdx.x == 0) kept[j] = none ? T(0) : left * of_round;
  }
  __syncthreads();
}

// R of each matrix, 32 x 32 by rows, or, where `done` becomes 1, its columns themselves; and what is kept of each.
template <class T>
__global__ void __launch_bounds__(1024) panel_kernel(const status_word* guard, panel_gram gram, view<T> p, view<T> kept,
                                                     T* r, status_word* done, index_t before, bool last, T tolerance) {
  if (guard && guard[blockIdx.x]) return;
  constexpr int width = 32;
  const index_t b = blockIdx.x, place = threadIdx.x;
  const int n = static_cast<int>(p.cols), x = static_cast<int>(place) % width, y = static_cast<int>(place) / width;
  __shared__ T left[width];
  __shared__ double length[width];
  if (place < n) left[place] = before == 0 && !last ? T(1) : kept(place, 0, b);
  const double g = gram.at(b, static_cast<int>(place));
  if (x == y) length[x] = math::sqrt(g);
  bool close = false;
  const double mine = upper_factor(g, n, [&](int k, double pivot) {
    const T least = math::max(tolerance, matopt::detail::rounding_of_projections<T>(before + k));
    if (!(static_cast<T>(length[k]) * left[k] > least)) return std::numeric_limits<double>::infinity();
    const double now = math::sqrt(math::max(pivot, 0.0));
    if (!(now > (last ? 0.5 : 0.25)) || !(static_cast<T>(now) * left[k] > least)) close = true;
    return now;
  });
  if (place == 0) done[b] = close;
  if (close) {
    __syncthreads();
    gram_schmidt<width>(p, b, left, before, last, tolerance);
    if (place < n) kept(place, 0, b) = left[place];
    return;
  }
  r[b * (width * width) + place] = static_cast<T>(mine);
  if (x == y && x < n) kept(x, 0, b) = math::finite(mine) ? left[x] * static_cast<T>(mine) : T(0);
}

template <class T>
struct panel_round {
  using blocks = matopt::detail::block_gram_schmidt<T, 32>;
  static std::size_t workspace(index_t rows, index_t batch) {
    const std::size_t more = static_cast<std::size_t>(batch) * (32 * 32 * sizeof(T) + sizeof(status_word));
    // What follows begins where a product likes a matrix to begin.
    return panel_gram::bytes(rows, batch) + (more + 255) / 256 * 256;
  }
  static void run(cudaStream_t stream, const status_word* guard, const view<T>& p, const view<T>& kept, index_t before,
                  bool last, T tolerance, std::byte* workspace) {
    static_assert(blocks::width == 32, "a warp's lanes are the columns");
    const auto batch = static_cast<unsigned>(p.batch);
    const panel_gram gram{p.rows, workspace};
    T* const r = reinterpret_cast<T*>(workspace + panel_gram::bytes(p.rows, p.batch));
    auto* const done = reinterpret_cast<status_word*>(r + p.batch * 32 * 32);
    gram.of(stream, guard, as_const(p), as_const(p));
    panel_kernel<<<batch, 1024, 0, stream>>>(guard, gram, p, kept, r, done, before, last, tolerance);
    solve_rows(stream, done, as_const(row_major(r, 32, 32, p.batch).row_block(0, p.cols).col_block(0, p.cols)), p);
  }
};

}  // namespace MATOPT_NAMESPACE::cuda
