// Attention (attention_shape.cuh) in bfloat16 on tensor cores, sums in float: forward, and the gradient of Q. A block
// has a tile of rows of Q, a warp 16 of them; tiles of K and V stream by, two of each in flight.
#pragma once
#include "attention_shape.cuh"
#include "tensor_core.cuh"

namespace small_gpt::gpu {

inline constexpr int attention_columns = 64;  // rows of the tiles that stream by

// Calls step(address of the tile of first, of second, number of their first row) for tiles [begin, end) of two matrices
// whose rows are `stride` apart; while one pair is worked on, the next is on its way. All threads of the block call it;
// copies that they committed earlier have arrived at the first step.
template <int D, class F>
__device__ void stream_tiles(std::uint32_t memory, const bfloat16* first, index_t first_stride, const bfloat16* second,
                             index_t second_stride, int begin, int end, int length, int width, F step) {
  constexpr int rows = attention_columns, bytes = tile<D>::bytes(rows);
  const auto fetch = [&](int t) {
    const std::uint32_t to = memory + static_cast<std::uint32_t>((t - begin) % 2 * 2 * bytes);
    const int row = t * rows;
    tile<D>::fetch(to, first + row * first_stride, first_stride, rows, length - row, width);
    tile<D>::fetch(to + bytes, second + row * second_stride, second_stride, rows, length - row, width);
  };
  if (begin < end) fetch(begin);
  commit_copies();
  for (int t = begin; t < end; ++t) {
    if (t + 1 < end) fetch(t + 1);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    const std::uint32_t at = memory + static_cast<std::uint32_t>((t - begin) % 2 * 2 * bytes);
    step(at, at + bytes, t * rows);
    __syncthreads();
  }
}

// Entries of a 16 x 8 N piece of S that begins at (row, column) and belong to columns beyond their row become `value`.
template <int N>
__device__ void mask(float (&s)[N][4], int row, int column, float value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (column + 8 * n + lane % 4 * 2 + k % 2 > row + lane / 4 + k / 2 * 8) s[n][k] = value;
}

// With `Measure`, `largest` has a number for each head, which is raised to its largest logit.
template <int D, int Warps, bool Measure>
__global__ void __launch_bounds__(32 * Warps, D > 64 ? 1 : 2)
    attention_forward_kernel(attention_shape a, float scale_log2, const bfloat16* qkv, bfloat16* y, float* log_sum,
                             float* largest) {
  extern __shared__ __align__(128) unsigned char memory[];
  constexpr int rows = 16 * Warps, columns = attention_columns, pieces = columns / 8;
  head_place at(a, rows);
  at.tile = static_cast<int>(a.tiles(rows)) - 1 - at.tile;  // the longest rows first
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int length = static_cast<int>(a.length), first = at.tile * rows, mine = first + 16 * warp;
  const index_t stride = 3 * a.width();
  const bfloat16* q = qkv + at.in_qkv;
  const std::uint32_t own = shared_address(memory), stream = own + tile<D>::bytes(rows);

  tile<D>::fetch(own, q + first * stride, stride, rows, length - first, a.head_width);
  std::uint32_t qf[D / 16][4];
  float o[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  const int tiles = (min(length, first + rows) + columns - 1) / columns;
  const auto step = [&](std::uint32_t k, std::uint32_t v, int column) {
    if (column == 0)
#pragma unroll
      for (int i = 0; i < D / 16; ++i) tile<D>::left(qf[i], own, 16 * warp, i);
    if (column > mine + 15) return;
    float s[pieces][4] = {};
    multiply_transposed<D>(s, qf, k, 0);
    if (column + columns - 1 > mine) mask(s, mine, column, -INFINITY);
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // the rows lane / 4 and lane / 4 + 8
      float t = top[half];
#pragma unroll
      for (int n = 0; n < pieces; ++n) t = fmaxf(t, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      t = lane_max(t, 4);
      const float shrink = fast_exp2((top[half] - t) * scale_log2), offset = t * scale_log2;
      top[half] = t, sum[half] *= shrink;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) o[n][2 * half] *= shrink, o[n][2 * half + 1] *= shrink;
#pragma unroll
      for (int n = 0; n < pieces; ++n) {
        s[n][2 * half] = fast_exp2(s[n][2 * half] * scale_log2 - offset);
        s[n][2 * half + 1] = fast_exp2(s[n][2 * half + 1] * scale_log2 - offset);
        sum[half] += s[n][2 * half] + s[n][2 * half + 1];
      }
    }
    multiply<D>(o, s, v, 0);
  };
  stream_tiles<D>(stream, q + a.width(), stride, q + 2 * a.width(), stride, 0, tiles, length, a.head_width, step);

  sum[0] = lane_sum(sum[0], 4), sum[1] = lane_sum(sum[1], 4);
  write_rows<D>(y + at.in_y, a.width(), mine, length, a.head_width, o, 1.0F / sum[0], 1.0F / sum[1]);
  if constexpr (Measure) {
    const int row = mine + lane / 4;
    const float most = row + 8 < length ? fmaxf(top[0], top[1]) : row < length ? top[0] : -INFINITY;
    raise_by_warp(largest + at.head, most * scale_log2);
  }
  if (lane % 4 != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (const int row = mine + lane / 4 + 8 * half; row < length)
      log_sum[at.in_rows + row] = top[half] * scale_log2 + log2f(sum[half]);
}

// Also writes rowsum(Y dY) for the kernel of dK and dV.
template <int D, int Warps>
__global__ void __launch_bounds__(32 * Warps, D > 64 ? 1 : 3)
    attention_query_gradient_kernel(attention_shape a, float scale, float scale_log2, const bfloat16* qkv,
                                    const bfloat16* y, const bfloat16* dy, const float* log_sum, float* delta,
                                    bfloat16* dqkv) {
  extern __shared__ __align__(128) unsigned char memory[];
  constexpr int rows = 16 * Warps, columns = attention_columns, part = 32;
  head_place at(a, rows);
  at.tile = static_cast<int>(a.tiles(rows)) - 1 - at.tile;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int length = static_cast<int>(a.length), first = at.tile * rows, mine = first + 16 * warp;
  const index_t stride = 3 * a.width();
  const bfloat16* q = qkv + at.in_qkv;
  const std::uint32_t own = shared_address(memory), own_dy = own + tile<D>::bytes(rows),
                      stream = own_dy + tile<D>::bytes(rows);

  tile<D>::fetch(own, q + first * stride, stride, rows, length - first, a.head_width);
  tile<D>::fetch(own_dy, dy + at.in_y + first * a.width(), a.width(), rows, length - first, a.head_width);
  std::uint32_t qf[D / 16][4], df[D / 16][4];
  float dq[D / 8][4] = {}, total[2], along[2] = {};
  const int tiles = (min(length, first + rows) + columns - 1) / columns;
  const auto step = [&](std::uint32_t k, std::uint32_t v, int column) {
    if (column == 0) {
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
        tile<D>::left(qf[i], own, 16 * warp, i), tile<D>::left(df[i], own_dy, 16 * warp, i);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = min(mine + lane / 4 + 8 * half, length - 1);
        const bfloat16* out = y + at.in_y + row * a.width();
        total[half] = log_sum[at.in_rows + row];
#pragma unroll
        for (int i = 0; i < D / 16; ++i)
#pragma unroll
          for (int j = 0; j < 2; ++j)
            if (const int c = 16 * i + 8 * j + lane % 4 * 2; c < a.head_width) {
              const std::uint32_t mask_high = 0xffff0000U, g = df[i][2 * j + half],
                                  o = *reinterpret_cast<const std::uint32_t*>(out + c);
              along[half] += __uint_as_float(o << 16) * __uint_as_float(g << 16) +
                             __uint_as_float(o & mask_high) * __uint_as_float(g & mask_high);
            }
        along[half] = lane_sum(along[half], 4);
        if (lane % 4 == 0 && mine + lane / 4 + 8 * half < length) delta[at.in_rows + row] = along[half];
      }
    }
#pragma unroll 1
    for (int c = 0; c < columns; c += part) {
      if (column + c > mine + 15) return;
      float s[part / 8][4] = {}, ds[part / 8][4] = {};
      multiply_transposed<D>(s, qf, k, c);
      multiply_transposed<D>(ds, df, v, c);
      if (column + c + part - 1 > mine) mask(s, mine, column + c, -INFINITY);
#pragma unroll
      for (int n = 0; n < part / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          ds[n][i] = fast_exp2(s[n][i] * scale_log2 - total[i / 2]) * (ds[n][i] - along[i / 2]);
      multiply<D>(dq, ds, k, c);
    }
  };
  stream_tiles<D>(stream, q + a.width(), stride, q + 2 * a.width(), stride, 0, tiles, length, a.head_width, step);
  write_rows<D>(dqkv + at.in_qkv, stride, mine, length, a.head_width, dq, scale, scale);
}

}  // namespace small_gpt::gpu
