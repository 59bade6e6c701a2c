// Activations, as layers.hpp has them, but for this: forward keeps u, and backward computes the slope from it, because
// a slope that is stored would be one more pass over memory.
#pragma once
#include "elements.cuh"

namespace small_gpt::gpu {

enum class activation { squared_relu, gelu };

// h = f(u)
template <activation A>
__device__ float activated(float u) {
  if constexpr (A == activation::squared_relu) {
    const float r = fmaxf(u, 0.0F);
    return r * r;
  } else {
    return u * normcdff(u);  // u times the normal distribution function, the exact form of GELU
  }
}
// f'(u)
template <activation A>
__device__ float slope(float u) {
  if constexpr (A == activation::squared_relu) {
    return 2.0F * fmaxf(u, 0.0F);
  } else {
    constexpr float density_scale = 0.398942280F;  // 1 / sqrt(2 pi)
    return normcdff(u) + u * density_scale * __expf(-0.5F * u * u);
  }
}

template <activation A, int N, class T>
__global__ void activation_forward_kernel(const T* u, T* h, index_t size) {
  const index_t i = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i >= size) return;
  float v[N];
  load<N>(u + i, v);
  for (int k = 0; k < N; ++k) v[k] = activated<A>(v[k]);
  store<N>(h + i, v);
}
// dh <- dh * f'(u)
template <activation A, int N, class T>
__global__ void activation_backward_kernel(const T* u, T* dh, index_t size) {
  const index_t i = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i >= size) return;
  float v[N], d[N];
  load<N>(u + i, v), load<N>(dh + i, d);
  for (int k = 0; k < N; ++k) d[k] *= slope<A>(v[k]);
  store<N>(dh + i, d);
}

template <class F>
void with_activation(activation a, F f) {
  if (a == activation::squared_relu)
    f(std::integral_constant<activation, activation::squared_relu>{});
  else
    f(std::integral_constant<activation, activation::gelu>{});
}

template <class T>
void activation_forward(cudaStream_t stream, activation a, const T* u, T* h, index_t size) {
  with_activation(a, [&](auto kind) {
    with_width<T>(size, [&](auto n) {
      activation_forward_kernel<kind(), n()><<<blocks_for(size, block_size * n()), block_size, 0, stream>>>(u, h, size);
    });
  });
  matopt::cuda::check_launch("activation");
}
template <class T>
void activation_backward(cudaStream_t stream, activation a, const T* u, T* dh, index_t size) {
  with_activation(a, [&](auto kind) {
    with_width<T>(size, [&](auto n) {
      activation_backward_kernel<kind(), n()>
          <<<blocks_for(size, block_size * n()), block_size, 0, stream>>>(u, dh, size);
    });
  });
  matopt::cuda::check_launch("activation's gradient");
}

}  // namespace small_gpt::gpu
