// RMSNorm of each head of q and k, then rotary positions, in place, as layers.hpp has them. A few lanes take the vector
// of one head: each of them N elements of its first half, and their partners in the second half.
#pragma once
#include <cmath>
#include <vector>

#include "elements.cuh"
#include "norm.cuh"

namespace small_gpt::gpu {

// Cosines, then sines: [2, positions, d / 2], of the angles position * 10000^(-2 i / d).
inline std::vector<float> rotary_table(index_t positions, index_t head_width) {
  const index_t half = head_width / 2;
  std::vector<float> table(static_cast<std::size_t>(2 * positions * half));
  for (index_t p = 0; p < positions; ++p) {
    for (index_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
      const auto at = static_cast<std::size_t>(p * half + i);
      table[at] = static_cast<float>(std::cos(angle));
      table[at + static_cast<std::size_t>(positions * half)] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

// Where q and k lie, and how they are shared out: rows of [q | k | v], 2 * heads vectors of q and k in each.
struct rotary_shape {
  index_t rows, length;
  int heads, head_width, lanes;
};

template <int N>
__device__ void load_angles(const float* table, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = *table;
  } else {
#pragma unroll
    for (int k = 0; k < N; k += 4) {
      const float4 x = *reinterpret_cast<const float4*>(table + k);
      to[k] = x.x, to[k + 1] = x.y, to[k + 2] = x.z, to[k + 3] = x.w;
    }
  }
}

// Calls each(offset of the vector in qkv, offset of its position in the table, its number, lane) for every vector that
// exists; lanes beyond the last vector take the last one again, and are told so by `valid`.
template <class F>
__device__ void for_vector(const rotary_shape& s, F each) {
  const index_t thread = index_t{blockIdx.x} * blockDim.x + threadIdx.x, count = s.rows * 2 * s.heads;
  const bool valid = thread / s.lanes < count;
  const index_t vector = valid ? thread / s.lanes : count - 1;
  const index_t row = vector / (2 * s.heads), head = vector % (2 * s.heads);
  each(row * 3 * s.heads * s.head_width + head * s.head_width, (row % s.length) * (s.head_width / 2), vector,
       static_cast<int>(thread % s.lanes), valid);
}

template <int N, class T>
__global__ void qk_norm_rotary_forward_kernel(rotary_shape s, const float* cosine, const float* sine, T* qkv,
                                              float* scale) {
  for_vector(s, [&](index_t at, index_t angles, index_t vector, int lane, bool valid) {
    const int half = s.head_width / 2;
    T *first = qkv + at, *second = first + half;
    float a[N], b[N], c[N], d[N], squares = 0;
    for (int i = lane * N; i < half; i += s.lanes * N) {
      load<N>(first + i, a), load<N>(second + i, b);
      for (int k = 0; k < N; ++k) squares += a[k] * a[k] + b[k] * b[k];
    }
    const float factor = 1.0F / sqrtf(lane_sum(squares, s.lanes) / static_cast<float>(s.head_width) + norm_epsilon);
    if (!valid) return;
    if (lane == 0) scale[vector] = factor;
    for (int i = lane * N; i < half; i += s.lanes * N) {
      load<N>(first + i, a), load<N>(second + i, b);
      load_angles<N>(cosine + angles + i, c), load_angles<N>(sine + angles + i, d);
      for (int k = 0; k < N; ++k) {
        const float turned = factor * (a[k] * c[k] + b[k] * d[k]);
        b[k] = factor * (b[k] * c[k] - a[k] * d[k]), a[k] = turned;
      }
      store<N>(first + i, a), store<N>(second + i, b);
    }
  });
}

//   g = d loss / d (rotated, normalised x);  dx = rotate back(s (g - x mean(g x)))
template <int N, class T>
__global__ void qk_norm_rotary_backward_kernel(rotary_shape s, const float* cosine, const float* sine, const T* qkv,
                                               const float* scale, T* dqkv) {
  for_vector(s, [&](index_t at, index_t angles, index_t vector, int lane, bool valid) {
    const int half = s.head_width / 2;
    const T *first = qkv + at, *second = first + half;
    T *d_first = dqkv + at, *d_second = d_first + half;
    float x[N], y[N], a[N], b[N], c[N], d[N], along = 0;
    for (int i = lane * N; i < half; i += s.lanes * N) {
      load<N>(first + i, x), load<N>(second + i, y), load<N>(d_first + i, a), load<N>(d_second + i, b);
      for (int k = 0; k < N; ++k) along += x[k] * a[k] + y[k] * b[k];
    }
    along = lane_sum(along, s.lanes) / static_cast<float>(s.head_width);
    if (!valid) return;
    const float factor = scale[vector];
    for (int i = lane * N; i < half; i += s.lanes * N) {
      load<N>(first + i, x), load<N>(second + i, y), load<N>(d_first + i, a), load<N>(d_second + i, b);
      load_angles<N>(cosine + angles + i, c), load_angles<N>(sine + angles + i, d);
      for (int k = 0; k < N; ++k) {
        const float u = factor * (a[k] - x[k] * along), v = factor * (b[k] - y[k] * along);
        a[k] = u * c[k] - v * d[k], b[k] = v * c[k] + u * d[k];
      }
      store<N>(d_first + i, a), store<N>(d_second + i, b);
    }
  });
}

// Calls f(elements at once, shape, blocks).
template <class T, class F>
void with_rotary_shape(index_t rows, index_t length, index_t heads, index_t head_width, F f) {
  const index_t half = head_width / 2;
  with_width<T>(half, [&](auto n) {
    int lanes = 1;
    while (lanes * n() < half && lanes < warp_size) lanes *= 2;
    f(n, rotary_shape{rows, length, static_cast<int>(heads), static_cast<int>(head_width), lanes},
      blocks_for(rows * 2 * heads * lanes, block_size));
  });
}

// `scale` keeps the 2 * heads factors of each row; the table is of `positions` >= length positions.
template <class T>
void qk_norm_rotary_forward(cudaStream_t stream, index_t rows, index_t length, index_t heads, index_t head_width,
                            const float* table, index_t positions, T* qkv, float* scale) {
  const float* sine = table + positions * (head_width / 2);
  with_rotary_shape<T>(rows, length, heads, head_width, [&](auto n, const rotary_shape& s, unsigned blocks) {
    qk_norm_rotary_forward_kernel<n()><<<blocks, block_size, 0, stream>>>(s, table, sine, qkv, scale);
  });
  matopt::cuda::check_launch("rotary positions");
}
template <class T>
void qk_norm_rotary_backward(cudaStream_t stream, index_t rows, index_t length, index_t heads, index_t head_width,
                             const float* table, index_t positions, const T* qkv, const float* scale, T* dqkv) {
  const float* sine = table + positions * (head_width / 2);
  with_rotary_shape<T>(rows, length, heads, head_width, [&](auto n, const rotary_shape& s, unsigned blocks) {
    qk_norm_rotary_backward_kernel<n()><<<blocks, block_size, 0, stream>>>(s, table, sine, qkv, scale, dqkv);
  });
  matopt::cuda::check_launch("rotary positions' gradient");
}

}  // namespace small_gpt::gpu
