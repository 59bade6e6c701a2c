// The thin singular value decomposition by one-sided Jacobi rotations, for batches, without the host.
//
//   X J_1 J_2 ... = Y S        X = A for tall A, A^T otherwise; pairs of columns are turned until they are orthogonal
//   A = Y S J^T, or J S Y^T
//
// A sweep turns every pair once, in rounds of disjoint pairs (a round-robin tournament), which run side by side. Here a
// block of threads does a whole matrix of some dozen columns; larger ones are done by blocks of columns
// (block_jacobi_svd.cuh). The host reads nothing back, so a graph can hold it: cuSOLVER's routines wait for the device.
// The factor J is orthogonal even where singular values are zero; such columns of Y are zero.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "block_jacobi_svd.cuh"
#include "factorize.cuh"

namespace MATOPT_NAMESPACE::cuda {

inline constexpr int jacobi_max_sweeps = 30;

// Where the pieces for one matrix lie, in scalars.
struct jacobi_layout {
  index_t rows, cols;  // of X
  MATOPT_HD index_t turned() const { return rows * cols; }
  MATOPT_HD index_t norms() const { return turned() + cols * cols; }
  MATOPT_HD index_t rest() const { return norms() + cols; }  // max |A|, ||X||^2
  MATOPT_HD index_t size() const { return (rest() + 2 + 31) / 32 * 32; }
};

// X = A / max |A|, J = I.
template <class T>
__global__ void __launch_bounds__(1024)
    jacobi_begin(const status_word* guard, view<const T> a, jacobi_layout l, T* memory) {
  if (guard && guard[blockIdx.x]) return;
  T* const x = memory + blockIdx.x * l.size();
  T* const j = x + l.turned();
  T* const rest = x + l.rest();
  __shared__ double of_warp[32];
  __shared__ T largest;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const index_t b = blockIdx.x;
  double most = 0;
  for (index_t k = threadIdx.x; k < l.rows * l.cols; k += blockDim.x) {
    const T value = a(k % l.rows, k / l.rows, b);
    x[k] = value;
    most = math::max(most, static_cast<double>(math::abs(value)));
  }
  most = over_warp<fn::maximum>(most);
  if (lane == 0) of_warp[warp] = most;
  __syncthreads();
  if (warp == 0) {
    most = over_warp<fn::maximum>(of_warp[lane]);
    if (lane == 0) largest = static_cast<T>(most);
  }
  __syncthreads();
  double squares = 0;
  for (index_t k = threadIdx.x; k < l.rows * l.cols; k += blockDim.x) {
    x[k] = largest > T(0) ? x[k] / largest : T(0);
    squares += static_cast<double>(x[k]) * static_cast<double>(x[k]);
  }
  for (index_t k = threadIdx.x; k < l.cols * l.cols; k += blockDim.x) j[k] = T(k / l.cols == k % l.cols);
  squares = over_warp<fn::sum>(squares);
  __syncthreads();
  if (lane == 0) of_warp[warp] = squares;
  __syncthreads();
  if (warp == 0) {
    squares = over_warp<fn::sum>(of_warp[lane]);
    if (lane == 0) rest[0] = largest, rest[1] = static_cast<T>(squares);
  }
}

// The sine of the rotation that makes columns with these inner products orthogonal, and the tangent of half its angle;
// false if they are. Why these two: see half_angle in block_jacobi.cuh.
template <class T>
__device__ bool jacobi_rotation(const jacobi_layout& l, T all_squares, T pp, T qq, T pq, T& sine, T& tangent) {
  const T eps = std::numeric_limits<T>::epsilon(), negligible = all_squares * eps * eps * eps;
  if (!(pp > negligible) || !(qq > negligible)) return false;
  if (!(math::abs(pq) > eps * math::sqrt(static_cast<T>(l.cols)) * math::sqrt(pp) * math::sqrt(qq))) return false;
  const T zeta = (qq - pp) / (T(2) * pq);
  const T t = (zeta < T(0) ? T(-1) : T(1)) / (math::abs(zeta) + math::sqrt(T(1) + zeta * zeta));
  tangent = t / (T(1) + math::sqrt(T(1) + t * t));
  sine = T(2) * tangent / (T(1) + tangent * tangent);
  return true;
}
// By a warp.
template <class T>
__device__ void jacobi_turn(T* p, T* q, index_t n, T sine, T tangent) {
  for (index_t i = threadIdx.x % 32; i < n; i += 32) {
    const T a = p[i], b = q[i];
    p[i] = a - sine * (b + tangent * a);
    q[i] = b + sine * (a - tangent * b);
  }
}

template <class T>
__global__ void __launch_bounds__(1024) jacobi_sweeps_in_block(const status_word* guard, jacobi_layout l, T* memory) {
  if (guard && guard[blockIdx.x]) return;
  T* const x = memory + blockIdx.x * l.size();
  T* const j = x + l.turned();
  const T all_squares = x[l.rest() + 1];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const index_t players = l.cols + l.cols % 2;
  __shared__ int turned;
  for (int sweep = 0; sweep < jacobi_max_sweeps; ++sweep) {
    __syncthreads();
    if (threadIdx.x == 0) turned = 0;
    __syncthreads();
    for (index_t round = 0; round < players - 1; ++round) {
      for (index_t pair = warp; pair < players / 2; pair += 32) {
        const index_t p = tournament_player(pair, round, players),
                      q = tournament_player(players - 1 - pair, round, players);
        if (p >= l.cols || q >= l.cols) continue;
        T *xp = x + p * l.rows, *xq = x + q * l.rows, pp = 0, qq = 0, pq = 0;
        for (index_t i = lane; i < l.rows; i += 32) pp += xp[i] * xp[i], qq += xq[i] * xq[i], pq += xp[i] * xq[i];
        pp = warp_sum(pp), qq = warp_sum(qq), pq = warp_sum(pq);
        T sine, tangent;
        if (!jacobi_rotation(l, all_squares, pp, qq, pq, sine, tangent)) continue;
        turned = 1;
        jacobi_turn(xp, xq, l.rows, sine, tangent);
        jacobi_turn(j + p * l.cols, j + q * l.cols, l.cols, sine, tangent);
      }
      __syncthreads();
    }
    if (!turned) break;
  }
}

// Norms of the columns of X, descending, and the columns in that order: X / norm to y, J to j.
template <class T>
__global__ void __launch_bounds__(1024) jacobi_sort_and_store(const status_word* guard, jacobi_layout l, T* memory,
                                                              view<T> y, view<T> values, view<T> other) {
  if (guard && guard[blockIdx.x]) return;
  T* const x = memory + blockIdx.x * l.size();
  T* const j = x + l.turned();
  T* const norm = x + l.norms();
  const T largest = x[l.rest()];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const index_t b = blockIdx.x;
  for (index_t k = warp; k < l.cols; k += 32) {
    T squares = 0;
    for (index_t i = lane; i < l.rows; i += 32) squares += x[k * l.rows + i] * x[k * l.rows + i];
    squares = warp_sum(squares);
    if (lane == 0) norm[k] = math::sqrt(squares);
  }
  __syncthreads();
  for (index_t k = warp; k < l.cols; k += 32) {
    const T n = norm[k];
    int before = 0;
    for (index_t i = lane; i < l.cols; i += 32) before += norm[i] > n || (norm[i] == n && i < k);
    before = warp_sum(before);
    const index_t to = before < l.cols ? before : l.cols - 1;
    if (lane == 0) values(to, 0, b) = n * largest;
    for (index_t i = lane; i < l.rows; i += 32) y(i, to, b) = n > T(0) ? x[k * l.rows + i] / n : T(0);
    for (index_t i = lane; i < l.cols; i += 32) other(i, to, b) = largest > T(0) ? j[k * l.cols + i] : T(0);
  }
}

template <class T>
class jacobi_svd {
 public:
  static constexpr index_t one_block = 64;  // columns up to which a block of threads does a whole matrix
  static bool by_blocks(index_t rows, index_t cols) { return math::min(rows, cols) > one_block; }

  static jacobi_layout layout_of(index_t rows, index_t cols) {
    return rows > cols ? jacobi_layout{rows, cols} : jacobi_layout{cols, rows};
  }
  static std::size_t workspace(index_t rows, index_t cols, index_t batch) {
    if (by_blocks(rows, cols)) return block_jacobi_svd<T>::workspace(rows, cols, batch);
    return static_cast<std::size_t>(layout_of(rows, cols).size() * batch) * sizeof(T);
  }

  // `verbs` are the backend's.
  template <class Backend>
  static void run(Backend& verbs, cudaStream_t stream, const status_word* guard, const view<const T>& a,
                  const view<T>& u, const view<T>& s, const view<T>& v, std::byte* workspace) {
    if (a.rows == 0 || a.cols == 0 || a.batch == 0) return;
    if (by_blocks(a.rows, a.cols)) return block_jacobi_svd<T>::run(verbs, stream, guard, a, u, s, v, workspace);
    T* const memory = reinterpret_cast<T*>(workspace);
    const jacobi_layout l = layout_of(a.rows, a.cols);
    const bool tall = a.rows > a.cols;
    const auto batch = static_cast<unsigned>(a.batch);
    jacobi_begin<<<batch, 1024, 0, stream>>>(guard, tall ? a : a.t(), l, memory);
    if (l.cols > 1) jacobi_sweeps_in_block<<<batch, 1024, 0, stream>>>(guard, l, memory);
    jacobi_sort_and_store<<<batch, 1024, 0, stream>>>(guard, l, memory, tall ? u : v, s, tall ? v : u);
  }
};

}  // namespace MATOPT_NAMESPACE::cuda
