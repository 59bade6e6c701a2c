// The kernels of reduce and reduce_rows. Every sum is formed in an order that the shape alone fixes: first by threads,
// in the arithmetic type, then across threads and blocks in double. A matrix that several blocks work on is finished by
// the block that happens to come last, in the order of the blocks' numbers.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <type_traits>

#include "../core/backend.hpp"
#include "argument.cuh"
#include "extent.cuh"

namespace MATOPT_NAMESPACE::cuda {

// Sums of one thread. A thread may add up millions of terms (of one long row), so a sum in float carries what each
// addition has rounded away into the next one (Kahan: Further remarks on reducing truncation errors; CACM 8, 1965).
template <class A, class R, int Count>
struct accumulator {
  static constexpr bool carries = std::is_same_v<A, float> && std::is_same_v<R, fn::sum>;
  A sum[Count], excess[carries ? Count : 1];
  MATOPT_HD accumulator() {
    for (int k = 0; k < Count; ++k) sum[k] = R::template identity<A>();
    for (A& x : excess) x = A(0);
  }
  template <class T>
  MATOPT_HD void operator()(const T& term) {
    const auto t = fn::as_terms(term);
    for (int k = 0; k < Count; ++k)
      if constexpr (carries) {
        const A x = static_cast<A>(t.at[k]) - excess[k], next = sum[k] + x;
        excess[k] = (next - sum[k]) - x;
        sum[k] = next;
      } else {
        sum[k] = R::combine(sum[k], static_cast<A>(t.at[k]));
      }
  }
};

// The combination over a warp, in every lane.
template <class R>
__device__ double over_warp(double x) {
  for (int distance = 16; distance > 0; distance /= 2) x = R::combine(x, __shfl_xor_sync(0xffffffffU, x, distance));
  return x;
}
// ... over a block of whole warps, in thread 0.
template <class R>
__device__ double over_block(double x) {
  __shared__ double of_warp[block_size / 32];
  x = over_warp<R>(x);
  __syncthreads();  // the array may still be read for the sum before
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x < 32) {
    x = threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : R::template identity<double>();
    x = over_warp<R>(x);
  }
  return x;
}

template <class F, class A, class T>
__device__ void put_results(const view<T>& out, index_t row, index_t b, const double* sums) {
  const auto results = fn::finish<F, A>(sums);
  for (int k = 0; k < fn::results_of<F>; ++k) out(row, k, b) = static_cast<T>(results.at[k]);
}

// Memory that the blocks of one launch share: sums of blocks, and how many blocks of a matrix are done. The counts are
// zero between launches.
struct meeting_place {
  static constexpr index_t most_blocks = 1 << 15, most_sums = 4;
  double* sums = nullptr;    // most_blocks * most_sums
  unsigned* done = nullptr;  // most_batch

  static constexpr std::size_t bytes = static_cast<std::size_t>(most_blocks * most_sums) * sizeof(double) +
                                       static_cast<std::size_t>(most_batch) * sizeof(unsigned);
  static meeting_place in(std::byte* memory) {
    double* const sums = reinterpret_cast<double*>(memory);
    return {sums, reinterpret_cast<unsigned*>(sums + most_blocks * most_sums)};
  }
};

// The results of a matrix, from what the threads of all its blocks (of this blockIdx.y) have summed.
template <class F, class A, class R, class T, int Count>
__device__ void finish_matrix(const accumulator<A, R, Count>& own, const view<T>& out, index_t b,
                              const meeting_place& meet) {
  static_assert(Count <= meeting_place::most_sums);
  double sum[Count];
  for (int k = 0; k < Count; ++k) sum[k] = over_block<R>(static_cast<double>(own.sum[k]));
  if (gridDim.x == 1) {
    if (threadIdx.x == 0) put_results<F, A>(out, 0, b, sum);
    return;
  }
  double* const of_matrix = meet.sums + static_cast<index_t>(blockIdx.y) * gridDim.x * Count;
  __shared__ bool last;
  if (threadIdx.x == 0) {
    for (int k = 0; k < Count; ++k) of_matrix[blockIdx.x * Count + k] = sum[k];
    __threadfence();
    last = atomicAdd(meet.done + blockIdx.y, 1U) + 1 == gridDim.x;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int k = 0; k < Count; ++k) {
    double x = R::template identity<double>();
    for (unsigned block = threadIdx.x; block < gridDim.x; block += blockDim.x)
      x = R::combine(x, __ldcg(of_matrix + block * Count + k));
    sum[k] = over_block<R>(x);
  }
  if (threadIdx.x == 0) {
    put_results<F, A>(out, 0, b, sum);
    meet.done[blockIdx.y] = 0;
  }
}

template <class A, class F, class T, class... V>
__global__ void __launch_bounds__(block_size)
    reduce_kernel(const status_word* guard, F f, extent e, index_t first, index_t packs_per_block, view<T> out,
                  meeting_place meet, V... v) {
  using R = fn::reduction_of<F>;
  constexpr int at_once = packs_at_once<A>;
  if (guard && guard[first + blockIdx.y]) return;
  const index_t b = first + blockIdx.y, begin = blockIdx.x * packs_per_block,
                end = min(begin + packs_per_block, e.packs());
  accumulator<A, R, fn::sums_of<F>> own;
  const auto all = [&](const auto&... located) {
    for (index_t at = begin + threadIdx.x; at < end; at += block_size * at_once)
      apply<A>(f, packs_from<at_once>(e, at, block_size, end), own, located...);
  };
  all(locate<pack_size>(v, b, e.lines)...);
  finish_matrix<F>(own, out, b, meet);
}

template <class A, class F, class T, class... V>
void reduce(cudaStream_t stream, const status_word* guard, const F& f, const extent& e, const view<T>& out,
            const meeting_place& meet, const V&... v) {
  constexpr index_t least = 16 * block_size;  // packs worth a block
  for (index_t first = 0; first < e.batch;) {
    const index_t batch = std::min({e.batch - first, most_batch, meeting_place::most_blocks});
    const index_t most = std::max<index_t>(1, std::min<index_t>(1024, meeting_place::most_blocks / batch));
    const index_t packs = std::max(least, (e.packs() + most - 1) / most);
    const dim3 grid(static_cast<unsigned>(std::max<index_t>(1, (e.packs() + packs - 1) / packs)),
                    static_cast<unsigned>(batch));
    reduce_kernel<A><<<grid, block_size, 0, stream>>>(guard, f, e, first, packs, out, meet, v...);
    first += batch;
  }
}

// A warp per line, its lanes along the line.
template <class A, class F, class T, class... V>
__global__ void __launch_bounds__(block_size)
    reduce_lines_kernel(const status_word* guard, F f, extent e, view<T> out, V... v) {
  using R = fn::reduction_of<F>;
  constexpr int n = fn::sums_of<F>, at_once = packs_at_once<A>;
  const index_t warp = (static_cast<index_t>(blockIdx.x) * block_size + threadIdx.x) / 32, lane = threadIdx.x % 32;
  const index_t warps = static_cast<index_t>(gridDim.x) * block_size / 32;
  for (index_t b = blockIdx.y; b < e.batch; b += gridDim.y)
    for (index_t line = warp; line < e.lines && !(guard && guard[b]); line += warps) {
      accumulator<A, R, n> own;
      const auto all = [&](const auto&... located) {
        for (index_t at = lane; at < e.packs_per_line(); at += 32 * at_once)
          apply<A>(f, packs_of_line<at_once>(e, line, at, 32), own, located...);
      };
      all(locate<pack_size>(v, b, e.lines)...);
      double sum[n];
      for (int k = 0; k < n; ++k) sum[k] = over_warp<R>(static_cast<double>(own.sum[k]));
      if (lane == 0) put_results<F, A>(out, line, b, sum);
    }
}
// Where neighbouring lines, not neighbouring elements of one, lie side by side: the lanes of a warp take one line each.
template <class A, class F, class T, class... V>
__global__ void __launch_bounds__(block_size)
    reduce_side_by_side_kernel(const status_word* guard, F f, extent e, view<T> out, V... v) {
  using R = fn::reduction_of<F>;
  constexpr int n = fn::sums_of<F>, warps = block_size / 32;
  __shared__ double of_warp[n][warps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (index_t b = blockIdx.y; b < e.batch; b += gridDim.y)
    for (index_t first = static_cast<index_t>(blockIdx.x) * 32; first < e.lines && !(guard && guard[b]);
         first += static_cast<index_t>(gridDim.x) * 32) {
      const index_t line = first + lane;
      accumulator<A, R, n> own;
      if (line < e.lines)
        for (index_t j = warp; j < e.length; j += warps)
          apply<A>(f, spots<1, 1>{{line}, {j}, {1}, true}, own, locate<1>(v, b, e.lines)...);
      __syncthreads();
      for (int k = 0; k < n; ++k) of_warp[k][warp][lane] = static_cast<double>(own.sum[k]);
      __syncthreads();
      if (warp == 0 && line < e.lines) {
        double sum[n];
        for (int k = 0; k < n; ++k) {
          sum[k] = of_warp[k][0][lane];
          for (int w = 1; w < warps; ++w) sum[k] = R::combine(sum[k], of_warp[k][w][lane]);
        }
        put_results<F, A>(out, line, b, sum);
      }
    }
}

template <class A, class F, class T, class... V>
void reduce_lines(cudaStream_t stream, const status_word* guard, const F& f, const extent& e, bool side_by_side,
                  const view<T>& out, const V&... v) {
  constexpr index_t most_blocks = 1 << 20, warps = block_size / 32;
  const index_t lines_per_block = side_by_side ? 32 : warps;
  const dim3 grid(static_cast<unsigned>(std::min(most_blocks, (e.lines + lines_per_block - 1) / lines_per_block)),
                  static_cast<unsigned>(std::min(most_batch, e.batch)));
  if (side_by_side)
    reduce_side_by_side_kernel<A><<<grid, block_size, 0, stream>>>(guard, f, e, out, v...);
  else
    reduce_lines_kernel<A><<<grid, block_size, 0, stream>>>(guard, f, e, out, v...);
}

}  // namespace MATOPT_NAMESPACE::cuda
