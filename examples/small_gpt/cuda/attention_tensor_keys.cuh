// Attention (attention_shape.cuh) in bfloat16 on tensor cores: the gradients of K and V. A block has a tile of rows of
// K and V, a warp 16 of them; tiles of Q and dY stream by. It works on the transposed pieces
//   S' = K Q',  dP' = V dY',  dV += P' dY,  dK += dS' Q.
#pragma once
#include "attention_tensor.cuh"

namespace small_gpt::gpu {

// Entries of a piece of S' that begins at (row, column) and belong to columns before their row become `value`.
template <int N>
__device__ void mask_transposed(float (&s)[N][4], int row, int column, float value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (column + 8 * n + lane % 4 * 2 + k % 2 < row + lane / 4 + k / 2 * 8) s[n][k] = value;
}

template <int D, int Warps>
__global__ void __launch_bounds__(32 * Warps, D > 64 ? 1 : 3)
    attention_key_gradient_kernel(attention_shape a, float scale, float scale_log2, const bfloat16* qkv,
                                  const bfloat16* dy, const float* log_sum, const float* delta, bfloat16* dqkv) {
  extern __shared__ __align__(128) unsigned char memory[];
  constexpr int rows = 16 * Warps, columns = attention_columns, part = 32;
  const head_place at(a, rows);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int length = static_cast<int>(a.length), first = at.tile * rows, mine = first + 16 * warp;
  const index_t stride = 3 * a.width();
  const bfloat16 *q = qkv + at.in_qkv, *k = q + a.width(), *v = k + a.width();
  const std::uint32_t own = shared_address(memory), own_v = own + tile<D>::bytes(rows),
                      stream = own_v + tile<D>::bytes(rows);

  tile<D>::fetch(own, k + first * stride, stride, rows, length - first, a.head_width);
  tile<D>::fetch(own_v, v + first * stride, stride, rows, length - first, a.head_width);
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  std::uint32_t kf[D / 16][4], vf[D / 16][4];
  // Of the queries of a tile: what forward kept, and rowsum(Y dY). While one tile is worked on, the next one's are
  // read.
  __shared__ __align__(16) float2 of_query[2][columns];
  const auto fetch_sums = [&](int row) {
    const int query = row + static_cast<int>(threadIdx.x);
    if (threadIdx.x < columns)
      of_query[row / columns % 2][threadIdx.x] =
          query < length ? float2{log_sum[at.in_rows + query], delta[at.in_rows + query]} : float2{INFINITY, 0};
  };
  const int begin = first / columns, end = (length + columns - 1) / columns;
  fetch_sums(begin * columns);

  const auto step = [&](std::uint32_t q_tile, std::uint32_t dy_tile, int row) {
    fetch_sums(row + columns);
    if (row == begin * columns) {
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
        tile<D>::left(kf[i], own, 16 * warp, i), tile<D>::left(vf[i], own_v, 16 * warp, i);
    }
#pragma unroll 1
    for (int c = 0; c < columns; c += part) {
      if (row + c + part - 1 < mine) continue;  // all of these rows of S end before this warp's columns
      float p[part / 8][4] = {}, ds[part / 8][4] = {};
      multiply_transposed<D>(p, kf, q_tile, c);
      multiply_transposed<D>(ds, vf, dy_tile, c);
      if (row + c < mine + 15) mask_transposed(p, mine, row + c, -INFINITY);
#pragma unroll
      for (int n = 0; n < part / 8; ++n) {
        const float4 sums = *reinterpret_cast<const float4*>(&of_query[row / columns % 2][c + 8 * n + lane % 4 * 2]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float *x = &p[n][2 * half], *d = &ds[n][2 * half];
          x[0] = fast_exp2(x[0] * scale_log2 - sums.x), x[1] = fast_exp2(x[1] * scale_log2 - sums.z);
          d[0] = x[0] * (d[0] - sums.y), d[1] = x[1] * (d[1] - sums.w);
        }
      }
      multiply<D>(dv, p, dy_tile, c);
      multiply<D>(dk, ds, q_tile, c);
    }
  };
  stream_tiles<D>(stream, q, stride, dy + at.in_y, a.width(), begin, end, length, a.head_width, step);

  bfloat16* dq = dqkv + at.in_qkv;
  write_rows<D>(dq + a.width(), stride, mine, length, a.head_width, dk, scale, scale);
  write_rows<D>(dq + 2 * a.width(), stride, mine, length, a.head_width, dv, 1.0F, 1.0F);
}

}  // namespace small_gpt::gpu
