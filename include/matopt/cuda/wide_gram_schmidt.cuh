// One round of orthonormalize for wide matrices in float, by blocks of 128 columns where block_gram_schmidt.cuh has 32:
// the products with the finished columns, most of the work, want to be wide. P = Q R, on the whole device:
//
//   G = P^T P              in double, piece by piece of the rows, many blocks of threads
//   R^T R = G              one block of threads per matrix, 16 rows of R after another
//   P <- P R^-1            two threads for 4 rows
//
// core/gram_pivots.hpp says whether R can be believed. Where it cannot, the block of threads that has found that takes
// the matrix's columns one by one instead, each by as many projections as it needs, and its R is not used: the device
// decides, and the launches are always the same.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../core/block_gram_schmidt.hpp"
#include "../core/gram_pivots.hpp"
#include "../core/rounding_of_projections.hpp"
#include "block_gram_schmidt.cuh"

namespace MATOPT_NAMESPACE::cuda {

namespace wide {
inline constexpr int width = 128;      // columns of a block
inline constexpr int gram_rows = 256;  // whose sum one block of threads forms
inline constexpr int strip = 16;       // rows of R that are made together
inline constexpr int factor_threads = 28 * 32;
inline constexpr int stride = 128 + 4;  // of a strip: what a warp of multiply_add() reads lies in all banks

// C += A B, of 8 x 4 and 4 x 8. Lane l has A(l / 4, l % 4), B(l % 4, l / 4) and C(l / 4, 2 (l % 4) + {0, 1}).
__device__ inline void multiply_add(double (&c)[2], double a, double b) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(c[0]), "+d"(c[1])
      : "d"(a), "d"(b));
}
}  // namespace wide

// G's tiles of 32 x 32 with row <= column, a warp for each: the sums over gram_rows rows, 128 x 128 by rows.
template <class T>
__global__ void __launch_bounds__(320) wide_gram_kernel(const status_word* guard, view<const T> p, double* sums) {
  constexpr int deep = 32, apart = deep + 4, warps = 10, share = (wide::width + warps - 1) / warps;
  __shared__ double tile[wide::width * apart];  // by columns
  const index_t b = blockIdx.x, first = static_cast<index_t>(blockIdx.y) * wide::gram_rows,
                end = math::min(first + wide::gram_rows, p.rows);
  if (guard && guard[b]) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            n = static_cast<int>(p.cols);
  const int v = warp < 1 ? 0 : warp < 3 ? 1 : warp < 6 ? 2 : 3, u = warp - v * (v + 1) / 2;
  T next[share];
  const auto fetch = [&](index_t at) {
#pragma unroll
    for (int s = 0; s < share; ++s) {
      const int j = warp + warps * s;
      next[s] = at + lane < end && j < n ? p(at + lane, j, b) : T(0);
    }
  };
  double sum[4][4][2] = {};
  fetch(first);
  for (index_t at = first; at < end; at += deep) {
    __syncthreads();
#pragma unroll
    for (int s = 0; s < share; ++s)
      if (warp + warps * s < wide::width) tile[(warp + warps * s) * apart + lane] = static_cast<double>(next[s]);
    __syncthreads();
    if (at + deep < end) fetch(at + deep);
    if (32 * v < n)
#pragma unroll 2
      for (int k = lane % 4; k < deep; k += 4) {
        double left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          left[i] = tile[(32 * u + 8 * i + lane / 4) * apart + k];
          right[i] = tile[(32 * v + 8 * i + lane / 4) * apart + k];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) wide::multiply_add(sum[i][j], left[i], right[j]);
      }
  }
  double* const to = sums + (b * gridDim.y + blockIdx.y) * (wide::width * wide::width);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        to[(32 * u + 8 * i + lane / 4) * wide::width + 32 * v + 8 * j + 2 * (lane % 4) + e] = sum[i][j][e];
}

// R of each matrix, by rows, the inverse of its diagonal behind it; or, where `done` becomes 1, its columns themselves;
// and what is kept of each. What is left of G is in tiles of 16 x 16, a warp for each. The rows of R that are made
// together are a strip: one warp makes the tile on the diagonal, a thread each the columns beside it, and all warps take
// away what their tiles have of the strip.
template <class T>
__global__ void __launch_bounds__(wide::factor_threads)
    wide_factor_kernel(const status_word* guard, const double* sums, index_t pieces, view<T> p, view<T> kept, T* r,
                       status_word* done, index_t before, bool last, T tolerance) {
  constexpr int width = wide::width, strip = wide::strip, stride = wide::stride, tiles = width / strip;
  __shared__ double strips[2][strip * stride];
  __shared__ double length[width], must[width], inverse[width], along[width];  // along: v, or what will be along it
  __shared__ T left[width];
  __shared__ bool lost;
  const index_t b = blockIdx.x;
  if (guard && guard[b]) return;
  const int n = static_cast<int>(p.cols), thread = static_cast<int>(threadIdx.x), lane = thread % 32,
            warp = thread / 32;
  sums += b * pieces * (width * width);
  r += b * ((width + 1) * width);
  // The tiles below the first strip, row after row of them.
  int row = 1, column = 1 + warp;
  while (column >= tiles) column += ++row - tiles;
  double mine[2][2][2] = {};
  const auto each = [&](const auto& what) {
#pragma unroll
    for (int u = 0; u < 2; ++u)
#pragma unroll
      for (int v = 0; v < 2; ++v)
#pragma unroll
        for (int e = 0; e < 2; ++e) what(mine[u][v][e], 8 * u + lane / 4, strip * column + 8 * v + 2 * (lane % 4) + e);
  };
  const auto gram = [&](index_t k, int i, int j) { return j < n ? sums[(k * width + i) * width + j] : 0.0; };
  for (index_t k = 0; k < pieces; ++k) each([&](double& x, int i, int j) { x += gram(k, strip * row + i, j); });
  each([&](double& x, int i, int j) {
    if (strip * row + i == j) length[j] = math::sqrt(x);
  });
  for (int e = thread; e < strip * width; e += wide::factor_threads) {
    const int i = e / width, j = e % width;
    double sum = 0;
    for (index_t k = 0; k < pieces; ++k) sum += gram(k, i, j);
    strips[0][i * stride + j] = sum;
    if (i == j) length[j] = math::sqrt(sum);
  }
  if (thread < width) {
    left[thread] = thread >= n || (before == 0 && !last) ? T(1) : kept(thread, 0, b);
    must[thread] =
        static_cast<double>(math::max(tolerance, matopt::detail::rounding_of_projections<T>(before + thread))) /
        static_cast<double>(left[thread]);
    along[thread] = 0;
  }
  matopt::detail::gram_pivots pivots;
  const int whole = (n + 31) / 32 * 32;  // the solve takes 32 rows of R at a time
  for (int first = 0, of = 0; first < whole; first += strip, ++of) {
    double* const now = strips[of % 2];
    __syncthreads();
    if (warp == 0) {
      const int x = lane % strip;
      double g[strip], diagonal = now[x * stride + first + x], sum = along[first + x];
#pragma unroll
      for (int i = 0; i < strip; ++i) g[i] = now[i * stride + first + x];
#pragma unroll
      for (int k = 0; k < strip; ++k) {
        double v = __shfl_sync(0xffffffffU, sum, k);
        const double by = pivots.next(__shfl_sync(0xffffffffU, diagonal, k), length[first + k], must[first + k], last,
                                      v),
                     entry = x == k ? diagonal * by : g[k] * by;
        if (x > k) diagonal -= entry * entry, sum += entry * v;
#pragma unroll
        for (int i = k + 1; i < strip; ++i) g[i] -= __shfl_sync(0xffffffffU, entry, i) * entry;
        if (lane >= k && lane < strip) now[k * stride + first + lane] = entry;
        if (lane == k) inverse[first + k] = by, along[first + k] = v;
      }
      if (lane == 0) lost = pivots.lost;
    }
    __syncthreads();
    if (lost) break;
    if (thread >= first + strip && thread < n) {
      double y[strip], sum = along[thread];
#pragma unroll
      for (int i = 0; i < strip; ++i) y[i] = now[i * stride + thread];
#pragma unroll
      for (int k = 0; k < strip; ++k) {
        const double entry = y[k] * inverse[first + k];
        sum += entry * along[first + k];
        now[k * stride + thread] = entry;
#pragma unroll
        for (int i = k + 1; i < strip; ++i) y[i] -= now[k * stride + first + i] * entry;
      }
      along[thread] = sum;
    }
    __syncthreads();
    if (row > of) {
#pragma unroll
      for (int k = lane % 4; k < strip; k += 4) {
        const double* const line = now + k * stride + lane / 4;
        double l[2], o[2];
#pragma unroll
        for (int u = 0; u < 2; ++u) l[u] = -line[strip * row + 8 * u], o[u] = line[strip * column + 8 * u];
#pragma unroll
        for (int u = 0; u < 2; ++u)
#pragma unroll
          for (int v = 0; v < 2; ++v) wide::multiply_add(mine[u][v], l[u], o[v]);
      }
      if (row == of + 1) each([&](double& x, int i, int j) { strips[row % 2][i * stride + j] = x; });
    }
    for (int e = thread; e < strip * width; e += wide::factor_threads) {
      const int i = e / width, j = e % width;
      r[(first + i) * width + j] = j > first + i && j < n ? static_cast<T>(now[i * stride + j]) : T(0);
    }
  }
  if (thread == 0) done[b] = lost;
  if (lost) {
    gram_schmidt<width>(p, b, left, before, last, tolerance);
    if (thread < n) kept(thread, 0, b) = left[thread];
  } else if (thread < n) {
    const double by = inverse[thread];
    r[width * width + thread] = static_cast<T>(by);
    kept(thread, 0, b) = by > 0 ? left[thread] * static_cast<T>(1 / by) : T(0);
  }
}

// Q R = P in place: a thread has 4 rows and 16 columns of each 32, its neighbour the other 16.
template <class T>
__global__ void __launch_bounds__(64)
    wide_solve_kernel(const status_word* guard, const status_word* done, const T* r, view<T> p) {
  constexpr int width = wide::width, side = 32, half = side / 2, rows = 4, tiles = width / side, threads = 64;
  __shared__ __align__(16) T upper[tiles * (tiles + 1) / 2][side][side];
  __shared__ T inverse[width];
  const index_t b = blockIdx.x;
  if ((guard && guard[b]) || done[b]) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, h = lane / half, n = static_cast<int>(p.cols),
            of_n = (n + side - 1) / side;
  r += b * ((width + 1) * width);
  // Tile (s, t), s <= t, is number t (t + 1) / 2 + s.
  for (int t = 0, number = 0; t < of_n; ++t)
    for (int s = 0; s <= t; ++s, ++number)
#pragma unroll
      for (int e = 0; e < side * side; e += 4 * threads) {
        const int y = (e / 4 + thread) / (side / 4), x = (e / 4 + thread) % (side / 4) * 4;
        *reinterpret_cast<float4*>(&upper[number][y][x]) =
            *reinterpret_cast<const float4*>(&r[(side * s + y) * width + side * t + x]);
      }
  for (int j = thread; j < n; j += threads) inverse[j] = r[width * width + j];
  __syncthreads();
  const index_t first = (static_cast<index_t>(blockIdx.y) * (threads / 32) + thread / 32) * (half * rows) + lane % half;
  T* const mine = &p(0, 0, b) + first;
  const auto has = [&](int i) { return first + half * i < p.rows; };
  for (int t = 0; t < of_n; ++t) {
    T q[rows][half];
#pragma unroll
    for (int j = 0; j < half; ++j)
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const int x = side * t + half * h + j;
        q[i][j] = has(i) && x < n ? mine[x * p.col_stride + half * i] : T(0);
      }
    for (int s = 0; s < t; ++s)
#pragma unroll 8
      for (int k = 0; k < side; ++k) {
        const T* const of = upper[t * (t + 1) / 2 + s][k] + half * h;
        T other[rows];
#pragma unroll
        for (int i = 0; i < rows; ++i) other[i] = has(i) ? mine[(side * s + k) * p.col_stride + half * i] : T(0);
#pragma unroll
        for (int j = 0; j < half; ++j)
#pragma unroll
          for (int i = 0; i < rows; ++i) q[i][j] -= other[i] * of[j];
      }
    // Column k of the thread whose half is `of`: both have what it leaves of the others, or only that thread does.
    const auto finish = [&](int of, int k, int from) {
      const int j = half * of + k;
      const T* const line = upper[t * (t + 1) / 2 + t][j] + half * h;
      const T by = side * t + j < n ? inverse[side * t + j] : T(0);
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        q[i][k] *= h == of ? by : T(1);
        const T other = __shfl_sync(0xffffffffU, q[i][k], half * of + lane % half);
#pragma unroll
        for (int c = from; c < half; ++c) q[i][c] -= other * line[c];
      }
    };
#pragma unroll
    for (int k = 0; k < half; ++k) finish(0, k, 0);
#pragma unroll
    for (int k = 0; k < half; ++k) finish(1, k, k + 1);
#pragma unroll
    for (int j = 0; j < half; ++j)
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const int x = side * t + half * h + j;
        if (has(i) && x < n) mine[x * p.col_stride + half * i] = q[i][j];
      }
    __syncwarp();  // the neighbour reads them
  }
}

struct wide_round {
  using blocks = matopt::detail::block_gram_schmidt<float, wide::width>;

  static index_t pieces(index_t rows) { return (rows + wide::gram_rows - 1) / wide::gram_rows; }
  static std::size_t gram_bytes(index_t rows, index_t batch) {
    return static_cast<std::size_t>(pieces(rows) * batch) * (wide::width * wide::width * sizeof(double));
  }
  static std::size_t workspace(index_t rows, index_t batch) {
    const std::size_t more =
        static_cast<std::size_t>(batch) * ((wide::width + 1) * wide::width * sizeof(float) + sizeof(status_word));
    // What follows begins where a product likes a matrix to begin.
    return gram_bytes(rows, batch) + (more + 255) / 256 * 256;
  }
  static void run(cudaStream_t stream, const status_word* guard, const view<float>& p, const view<float>& kept,
                  index_t before, bool last, float tolerance, std::byte* workspace) {
    const auto batch = static_cast<unsigned>(p.batch);
    auto* const sums = reinterpret_cast<double*>(workspace);
    auto* const r = reinterpret_cast<float*>(workspace + gram_bytes(p.rows, p.batch));
    auto* const done = reinterpret_cast<status_word*>(r + p.batch * ((wide::width + 1) * wide::width));
    wide_gram_kernel<<<dim3(batch, static_cast<unsigned>(pieces(p.rows))), 320, 0, stream>>>(guard, as_const(p), sums);
    wide_factor_kernel<<<batch, wide::factor_threads, 0, stream>>>(guard, sums, pieces(p.rows), p, kept, r, done,
                                                                   before, last, tolerance);
    const dim3 grid(batch, static_cast<unsigned>((p.rows + 127) / 128));
    wide_solve_kernel<<<grid, 64, 0, stream>>>(guard, done, r, p);
  }
};

}  // namespace MATOPT_NAMESPACE::cuda
