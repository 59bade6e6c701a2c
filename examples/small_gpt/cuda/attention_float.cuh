// Attention (attention_shape.cuh) in float, without tensor cores: slow, and as exact as float is. A block has 32 rows,
// of each of which eight neighbouring threads take every eighth column.
#pragma once
#include "attention_shape.cuh"

namespace small_gpt::gpu {

// 32 rows of D elements in shared memory; one more per row keeps rows in different banks.
template <int D>
struct float_tile {
  static constexpr int rows = 32, stride = D + 1, floats = rows * stride;
  float* at;

  // Rows from `live` on and columns from `width` on become zero.
  __device__ void fetch(const float* from, index_t from_stride, int live, int width) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * D; i += static_cast<int>(blockDim.x)) {
      const int row = i / D, column = i % D;
      at[row * stride + column] = row < live && column < width ? from[row * from_stride + column] : 0.0F;
    }
  }
  __device__ const float* row(int r) const { return at + r * stride; }
};

template <int D>
__device__ float dot(const float* a, const float* b) {
  float sum = 0;
  for (int i = 0; i < D; ++i) sum += a[i] * b[i];
  return sum;
}

// What a thread of these kernels knows of its place.
struct float_thread {
  int row = static_cast<int>(threadIdx.x) / 8, part = static_cast<int>(threadIdx.x) % 8;
};

// With `Measure`, `largest` has a number for each head, which is raised to its largest logit.
template <int D, bool Measure>
__global__ void attention_forward_kernel_float(attention_shape a, float scale_log2, const float* qkv, float* y,
                                               float* log_sum, float* largest) {
  extern __shared__ float floats[];
  const float_tile<D> q{floats}, k{q.at + q.floats}, v{k.at + k.floats};
  float* p = v.at + v.floats;  // [32, 33]
  const head_place at(a, 32);
  const float_thread me;
  const int length = static_cast<int>(a.length), first = at.tile * 32, row = first + me.row;
  const index_t stride = 3 * a.width();
  const float* in = qkv + at.in_qkv;
  q.fetch(in + first * stride, stride, length - first, a.head_width);
  float o[D / 8] = {}, top = -INFINITY, sum = 0;
  for (int begin = 0; begin <= first; begin += 32) {
    __syncthreads();
    k.fetch(in + a.width() + begin * stride, stride, length - begin, a.head_width);
    v.fetch(in + 2 * a.width() + begin * stride, stride, length - begin, a.head_width);
    __syncthreads();
    float s[4], t = top;
    for (int j = 0; j < 4; ++j) {
      const int c = me.part + 8 * j;
      s[j] = begin + c > row ? -INFINITY : dot<D>(q.row(me.row), k.row(c)) * scale_log2;
      t = fmaxf(t, s[j]);
    }
    t = lane_max(t, 8);
    const float shrink = exp2f(top - t);
    top = t, sum *= shrink;
    for (int j = 0; j < 4; ++j) {
      s[j] = exp2f(s[j] - t), sum += s[j];
      p[me.row * 33 + me.part + 8 * j] = s[j];
    }
    __syncwarp();
    for (int i = 0; i < D / 8; ++i) {
      o[i] *= shrink;
      for (int c = 0; c < 32; ++c) o[i] += p[me.row * 33 + c] * v.row(c)[me.part + 8 * i];
    }
  }
  sum = lane_sum(sum, 8);
  if constexpr (Measure) raise_by_warp(largest + at.head, row < length ? top : -INFINITY);
  if (row >= length) return;
  for (int i = 0; i < D / 8; ++i)
    if (const int c = me.part + 8 * i; c < a.head_width) y[at.in_y + row * a.width() + c] = o[i] / sum;
  if (me.part == 0) log_sum[at.in_rows + row] = top + log2f(sum);
}

template <int D>
__global__ void attention_query_gradient_kernel_float(attention_shape a, float scale, float scale_log2,
                                                      const float* qkv, const float* y, const float* dy,
                                                      const float* log_sum, float* delta, float* dqkv) {
  extern __shared__ float floats[];
  const float_tile<D> q{floats}, d{q.at + q.floats}, k{d.at + d.floats}, v{k.at + k.floats};
  float* ds = v.at + v.floats;
  const head_place at(a, 32);
  const float_thread me;
  const int length = static_cast<int>(a.length), first = at.tile * 32, row = first + me.row;
  const index_t stride = 3 * a.width();
  const float* in = qkv + at.in_qkv;
  q.fetch(in + first * stride, stride, length - first, a.head_width);
  d.fetch(dy + at.in_y + first * a.width(), a.width(), length - first, a.head_width);
  __syncthreads();
  float along = 0, total = 0, dq[D / 8] = {};
  if (row < length) {
    total = log_sum[at.in_rows + row];
    for (int c = me.part; c < a.head_width; c += 8) along += d.row(me.row)[c] * y[at.in_y + row * a.width() + c];
  }
  along = lane_sum(along, 8);
  if (row < length && me.part == 0) delta[at.in_rows + row] = along;
  for (int begin = 0; begin <= first; begin += 32) {
    __syncthreads();
    k.fetch(in + a.width() + begin * stride, stride, length - begin, a.head_width);
    v.fetch(in + 2 * a.width() + begin * stride, stride, length - begin, a.head_width);
    __syncthreads();
    for (int j = 0; j < 4; ++j) {
      const int c = me.part + 8 * j;
      const float p = begin + c > row ? 0.0F : exp2f(dot<D>(q.row(me.row), k.row(c)) * scale_log2 - total);
      ds[me.row * 33 + c] = p * (dot<D>(d.row(me.row), v.row(c)) - along);
    }
    __syncwarp();
    for (int i = 0; i < D / 8; ++i)
      for (int c = 0; c < 32; ++c) dq[i] += ds[me.row * 33 + c] * k.row(c)[me.part + 8 * i];
  }
  if (row >= length) return;
  for (int i = 0; i < D / 8; ++i)
    if (const int c = me.part + 8 * i; c < a.head_width) dqkv[at.in_qkv + row * stride + c] = dq[i] * scale;
}

template <int D>
__global__ void attention_key_gradient_kernel_float(attention_shape a, float scale, float scale_log2, const float* qkv,
                                                    const float* dy, const float* log_sum, const float* delta,
                                                    float* dqkv) {
  extern __shared__ float floats[];
  const float_tile<D> k{floats}, v{k.at + k.floats}, q{v.at + v.floats}, d{q.at + q.floats};
  float *p = d.at + d.floats, *ds = p + 32 * 33;
  const head_place at(a, 32);
  const float_thread me;
  const int length = static_cast<int>(a.length), first = at.tile * 32, row = first + me.row;
  const index_t stride = 3 * a.width();
  const float* in = qkv + at.in_qkv;
  k.fetch(in + a.width() + first * stride, stride, length - first, a.head_width);
  v.fetch(in + 2 * a.width() + first * stride, stride, length - first, a.head_width);
  float dk[D / 8] = {}, dv[D / 8] = {};
  for (int begin = first; begin < length; begin += 32) {
    __syncthreads();
    q.fetch(in + begin * stride, stride, length - begin, a.head_width);
    d.fetch(dy + at.in_y + begin * a.width(), a.width(), length - begin, a.head_width);
    __syncthreads();
    for (int j = 0; j < 4; ++j) {
      const int c = me.part + 8 * j, query = begin + c;
      const bool live = query < length && row <= query;
      const float x = live ? exp2f(dot<D>(k.row(me.row), q.row(c)) * scale_log2 - log_sum[at.in_rows + query]) : 0.0F;
      p[me.row * 33 + c] = x;
      ds[me.row * 33 + c] = live ? x * (dot<D>(v.row(me.row), d.row(c)) - delta[at.in_rows + query]) : 0.0F;
    }
    __syncwarp();
    for (int i = 0; i < D / 8; ++i)
      for (int c = 0; c < 32; ++c) {
        dv[i] += p[me.row * 33 + c] * d.row(c)[me.part + 8 * i];
        dk[i] += ds[me.row * 33 + c] * q.row(c)[me.part + 8 * i];
      }
  }
  if (row >= length) return;
  float* out = dqkv + at.in_qkv + row * stride + a.width();
  for (int i = 0; i < D / 8; ++i)
    if (const int c = me.part + 8 * i; c < a.head_width) out[c] = dk[i] * scale, out[a.width() + c] = dv[i];
}

}  // namespace small_gpt::gpu
