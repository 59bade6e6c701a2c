// Attention (attention_shape.cuh) in bfloat16 on tensor cores: the gradients of K and V. A block has a tile of rows of
// K and V, a warp 16 of them; tiles of Q and dY stream by. It works on the transposed pieces
//   S' = K Q',  dP' = V dY',  dV += P' dY,  dK += dS' Q.
#pragma once
#include "attention_tensor.cuh"

namespace small_gpt::gpu {

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
  const int begin = first / columns, end = (length + columns - 1) / columns;
  stream_tiles<D>(stream, q, stride, dy + at.in_y, a.width(), begin, end, length, a.head_width,
                  [&](std::uint32_t q_tile, std::uint32_t dy_tile, int row) {
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
#pragma unroll
                      for (int n = 0; n < part / 8; ++n) {
#pragma unroll
                        for (int j = 0; j < 2; ++j) {
                          const int query = row + c + 8 * n + lane % 4 * 2 + j;
                          const bool live = query < length;
                          const float total = live ? log_sum[at.in_rows + query] : INFINITY;
                          const float along = live ? delta[at.in_rows + query] : 0.0F;
#pragma unroll
                          for (int half = 0; half < 2; ++half) {
                            float& x = p[n][2 * half + j];
                            x = mine + lane / 4 + 8 * half > query ? 0.0F : fast_exp2(x * scale_log2 - total);
                            ds[n][2 * half + j] = x * (ds[n][2 * half + j] - along);
                          }
                        }
                      }
                      multiply<D>(dv, p, dy_tile, c);
                      multiply<D>(dk, ds, q_tile, c);
                    }
                  });
  bfloat16* dq = dqkv + at.in_qkv;
  write_rows<D>(dq + a.width(), stride, mine, length, a.head_width, dk, scale, scale);
  write_rows<D>(dq + 2 * a.width(), stride, mine, length, a.head_width, dv, 1.0F, 1.0F);
}

}  // namespace small_gpt::gpu
