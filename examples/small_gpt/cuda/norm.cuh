// LayerNorm with a gain and RMSNorm without parameters, as layers.hpp has them; one warp takes one row.
//   forward   c = x - mean(x) (LayerNorm) or x (RMSNorm);  s = 1 / sqrt(mean(c^2) + eps);  hat = s c;  y = gain * hat
//   backward  e = gain * dy;  dx = s (e - mean(e) - hat mean(e hat)), without mean(e) for RMSNorm;  dgain = sum dy hat
#pragma once
#include "elements.cuh"

namespace small_gpt::gpu {

enum class norm_kind { layer_norm, rms_norm };

inline constexpr float norm_epsilon = 1e-5F;

// Row r of the input is row `from[r]` of x, or row r without `from`. `scaled` takes gain * hat, or hat again without a
// gain; it may be null, and so may `gain`.
template <int N, class T>
__global__ void norm_forward_kernel(norm_kind kind, const T* x, const std::int32_t* from, const T* gain, index_t rows,
                                    int width, T* hat, float* scale, T* scaled) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const index_t row = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) / warp_size;
  if (row >= rows) return;
  const T* in = x + (from ? from[row] : row) * width;
  float mean = 0, squares = 0, v[N];
  if (kind == norm_kind::layer_norm) {
    for (int i = lane * N; i < width; i += warp_size * N) {
      load<N>(in + i, v);
      for (int k = 0; k < N; ++k) mean += v[k];
    }
    mean = lane_sum(mean) / static_cast<float>(width);
  }
  for (int i = lane * N; i < width; i += warp_size * N) {
    load<N>(in + i, v);
    for (int k = 0; k < N; ++k) squares += (v[k] - mean) * (v[k] - mean);
  }
  const float s = 1.0F / sqrtf(lane_sum(squares) / static_cast<float>(width) + norm_epsilon);
  if (lane == 0) scale[row] = s;
  for (int i = lane * N; i < width; i += warp_size * N) {
    load<N>(in + i, v);
    for (int k = 0; k < N; ++k) v[k] = (v[k] - mean) * s;
    store<N>(hat + row * width + i, v);
    if (!scaled) continue;
    if (gain) {
      float g[N];
      load<N>(gain + i, g);
      for (int k = 0; k < N; ++k) v[k] *= g[k];
    }
    store<N>(scaled + row * width + i, v);
  }
}

// Adds to dx, or overwrites it.
template <int N, class T>
__global__ void norm_backward_kernel(norm_kind kind, const T* hat, const float* scale, const T* gain, const T* dy,
                                     index_t rows, int width, bool add, T* dx) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const index_t row = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) / warp_size;
  if (row >= rows) return;
  hat += row * width, dy += row * width, dx += row * width;
  float h[N], e[N];
  const auto incoming = [&](int i) {  // h and e of the elements from i on
    load<N>(hat + i, h), load<N>(dy + i, e);
    if (!gain) return;
    float g[N];
    load<N>(gain + i, g);
    for (int k = 0; k < N; ++k) e[k] *= g[k];
  };
  float mean = 0, along = 0;
  for (int i = lane * N; i < width; i += warp_size * N) {
    incoming(i);
    for (int k = 0; k < N; ++k) mean += e[k], along += e[k] * h[k];
  }
  mean = kind == norm_kind::layer_norm ? lane_sum(mean) / static_cast<float>(width) : 0.0F;
  along = lane_sum(along) / static_cast<float>(width);
  const float s = scale[row];
  for (int i = lane * N; i < width; i += warp_size * N) {
    incoming(i);
    float d[N] = {};
    if (add) load<N>(dx + i, d);
    for (int k = 0; k < N; ++k) d[k] += s * (e[k] - mean - h[k] * along);
    store<N>(dx + i, d);
  }
}

// Column sums of dy * hat over the rows [part * rows / parts, (part + 1) * rows / parts) of each part.
template <class T>
__global__ void gain_gradient_parts(const T* hat, const T* dy, index_t rows, int width, float* partial) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= width) return;
  const index_t part = blockIdx.y, parts = gridDim.y;
  float sum = 0;
  for (index_t r = part * rows / parts; r < (part + 1) * rows / parts; ++r)
    sum += static_cast<float>(dy[r * width + column]) * static_cast<float>(hat[r * width + column]);
  partial[part * width + column] = sum;
}
// gradient (+)= the sum of the parts, in their order
static __global__ void gain_gradient_sum(const float* partial, int parts, int width, bool add, float* gradient) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= width) return;
  float sum = add ? gradient[column] : 0.0F;
  for (int p = 0; p < parts; ++p) sum += partial[p * width + column];
  gradient[column] = sum;
}

inline constexpr int gain_gradient_most_parts = 256;

template <class T>
void norm_forward(cudaStream_t stream, norm_kind kind, const T* x, const std::int32_t* from, const T* gain,
                  index_t rows, index_t width, T* hat, float* scale, T* scaled) {
  with_width<T>(width, [&](auto n) {
    norm_forward_kernel<n()><<<blocks_for(rows, block_size / warp_size), block_size, 0, stream>>>(
        kind, x, from, gain, rows, static_cast<int>(width), hat, scale, scaled);
  });
  matopt::cuda::check_launch("norm");
}
template <class T>
void norm_backward(cudaStream_t stream, norm_kind kind, const T* hat, const float* scale, const T* gain, const T* dy,
                   index_t rows, index_t width, bool add, T* dx) {
  with_width<T>(width, [&](auto n) {
    norm_backward_kernel<n()><<<blocks_for(rows, block_size / warp_size), block_size, 0, stream>>>(
        kind, hat, scale, gain, dy, rows, static_cast<int>(width), add, dx);
  });
  matopt::cuda::check_launch("norm's gradient");
}
// `partial` holds gain_gradient_most_parts * width values.
template <class T>
void gain_gradient(cudaStream_t stream, const T* hat, const T* dy, index_t rows, index_t width, float* partial,
                   bool add, float* gradient) {
  const auto parts = static_cast<unsigned>(std::min<index_t>(gain_gradient_most_parts, (rows + 15) / 16));
  const unsigned blocks = blocks_for(width, 64);
  gain_gradient_parts<<<dim3(blocks, parts), 64, 0, stream>>>(hat, dy, rows, static_cast<int>(width), partial);
  gain_gradient_sum<<<blocks, 64, 0, stream>>>(partial, static_cast<int>(parts), static_cast<int>(width), add,
                                               gradient);
  matopt::cuda::check_launch("gain's gradient");
}

}  // namespace small_gpt::gpu
