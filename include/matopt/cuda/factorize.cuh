// Kernels of orthonormalize, cholesky and solve_lower: one block works on one matrix, and nothing depends on the host.
// Matrices stay in L2 at the sizes these verbs are for (some hundred columns); sums are formed in a fixed order.
#pragma once
#include "../core/backend.hpp"
#include "../core/householder.hpp"
#include "../core/math.hpp"
#include "reduce.cuh"

namespace matopt::cuda {

// The sum over the calling warp.
template <class T>
__device__ T warp_sum(T x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
  return x;
}

// Gram-Schmidt, each column twice against those before it; one that keeps less than `tolerance` of its length, or no
// more than rounding leaves of a column that depends on them, becomes zero. The projections of a round are all taken of
// the same column (classical Gram-Schmidt), side by side; twice is enough (Giraud, Langou, Rozloznik, van den Eshof,
// Numer. Math. 101, 2005).
template <class T>
__global__ void __launch_bounds__(1024) orthonormalize_kernel(const status_word* guard, view<T> x, T tolerance) {
  if (guard && guard[blockIdx.x]) return;
  extern __shared__ double shared[];
  T* const along = reinterpret_cast<T*>(shared);  // one per column
  __shared__ T of_warp[32];
  __shared__ T total;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const index_t b = blockIdx.x;
  const auto block_sum = [&](T v) {
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) of_warp[warp] = v;
    __syncthreads();
    if (warp == 0) {
      v = warp_sum(lane < warps ? of_warp[lane] : T(0));
      if (lane == 0) total = v;
    }
    __syncthreads();
    return total;
  };
  const auto block_max = [&](T v) {
    for (int distance = 16; distance > 0; distance /= 2) v = math::max(v, __shfl_xor_sync(0xffffffffU, v, distance));
    __syncthreads();
    if (lane == 0) of_warp[warp] = v;
    __syncthreads();
    if (warp == 0) {
      v = lane < warps ? of_warp[lane] : T(0);
      for (int distance = 16; distance > 0; distance /= 2) v = math::max(v, __shfl_xor_sync(0xffffffffU, v, distance));
      if (lane == 0) total = v;
    }
    __syncthreads();
    return total;
  };
  const auto scale = [&](index_t j, T factor) {
    for (index_t i = threadIdx.x; i < x.rows; i += blockDim.x) x(i, j, b) = factor == T(0) ? T(0) : x(i, j, b) * factor;
    __syncthreads();
  };
  const auto length = [&](index_t j) {
    T sum = 0;
    for (index_t i = threadIdx.x; i < x.rows; i += blockDim.x) sum += x(i, j, b) * x(i, j, b);
    return math::sqrt(block_sum(sum));
  };
  for (index_t j = 0; j < x.cols; ++j) {
    const T least = math::max(tolerance, matopt::detail::rounding_of_projections<T>(j));
    T largest = 0;
    for (index_t i = threadIdx.x; i < x.rows; i += blockDim.x) largest = math::max(largest, math::abs(x(i, j, b)));
    largest = block_max(largest);
    if (!(largest > T(0))) continue;
    // By a power of two first: no square overflows or vanishes.
    int exponent;
    ::frexp(largest, &exponent);
    for (index_t i = threadIdx.x; i < x.rows; i += blockDim.x) x(i, j, b) = ::ldexp(x(i, j, b), -exponent);
    __syncthreads();
    scale(j, T(1) / length(j));
    T kept = 1;
    for (int round = 0; round < 2; ++round) {
      for (index_t i = warp; i < j; i += warps) {
        T sum = 0;
        for (index_t r = lane; r < x.rows; r += 32) sum += x(r, i, b) * x(r, j, b);
        sum = warp_sum(sum);
        if (lane == 0) along[i] = sum;
      }
      __syncthreads();
      for (index_t r = threadIdx.x; r < x.rows; r += blockDim.x) {
        T sum = 0;
        for (index_t i = 0; i < j; ++i) sum += along[i] * x(r, i, b);
        x(r, j, b) -= sum;
      }
      __syncthreads();
      const T now = length(j);
      kept *= now;
      if (!(kept > least)) break;
      scale(j, T(1) / now);
    }
    if (!(kept > least)) scale(j, T(0));
  }
}

// A = L L^T, column by column; the upper part becomes zero, the status 1 where a pivot is not positive.
template <class T>
__global__ void __launch_bounds__(1024) cholesky_kernel(const status_word* guard, view<T> a, view<status_word> status) {
  if (guard && guard[blockIdx.x]) return;
  extern __shared__ double shared[];
  T* const row = reinterpret_cast<T*>(shared);  // row k of L
  const index_t b = blockIdx.x, n = a.cols;
  if (threadIdx.x == 0) status(0, 0, b) = 0;
  for (index_t k = 0; k < n; ++k) {
    for (index_t j = threadIdx.x; j < k; j += blockDim.x) row[j] = a(k, j, b);
    __syncthreads();
    for (index_t i = k + threadIdx.x; i < n; i += blockDim.x) {
      T sum = a(i, k, b);
      for (index_t j = 0; j < k; ++j) sum -= a(i, j, b) * row[j];
      a(i, k, b) = sum;
    }
    for (index_t i = threadIdx.x; i < k; i += blockDim.x) a(i, k, b) = T(0);
    __syncthreads();
    const T pivot = a(k, k, b);
    if (!(pivot > T(0)) || !math::finite(pivot)) {
      if (threadIdx.x == 0) status(0, 0, b) = 1;
      return;
    }
    __syncthreads();
    const T root = math::sqrt(pivot);
    for (index_t i = k + threadIdx.x; i < n; i += blockDim.x) a(i, k, b) = i == k ? root : a(i, k, b) / root;
    __syncthreads();
  }
}

// X = L^-1 X or L^-T X; a block takes 32 columns, a lane one of them, and its warps share the rows.
template <class T>
__global__ void __launch_bounds__(256)
    solve_lower_kernel(const status_word* guard, view<const T> l, view<T> x, bool transpose) {
  if (guard && guard[blockIdx.y]) return;
  const index_t b = blockIdx.y, n = x.rows, column = static_cast<index_t>(blockIdx.x) * 32 + threadIdx.x % 32;
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const bool mine = column < x.cols;
  for (index_t step = 0; step < n; ++step) {
    const index_t k = transpose ? n - 1 - step : step;
    if (mine && warp == 0) x(k, column, b) /= l(k, k, b);
    __syncthreads();
    if (mine) {
      const T value = x(k, column, b);
      if (transpose)
        for (index_t i = warp; i < k; i += warps) x(i, column, b) -= l(k, i, b) * value;
      else
        for (index_t i = k + 1 + warp; i < n; i += warps) x(i, column, b) -= l(i, k, b) * value;
    }
    __syncthreads();
  }
}

}  // namespace matopt::cuda
