// Attention on the GPU, for the two element types: chooses the kernel for the head's width, and launches it.
#pragma once
#include <string>

#include <matopt/core/error.hpp>

#include "attention_float.cuh"
#include "attention_tensor.cuh"
#include "attention_tensor_keys.cuh"

namespace small_gpt::gpu {

// Throws bad_value for a head that there is no kernel for.
template <class T>
void check_head_width(index_t head_width) {
  constexpr bool exact = std::is_same_v<T, float>;
  const index_t most = exact ? 256 : 128;
  if (head_width > most || (!exact && head_width % 8 != 0))
    throw matopt::bad_value("width / heads", std::to_string(head_width),
                            exact ? "at most 256 on a GPU" : "a multiple of 8, at most 128, in bf16 on a GPU");
}

// Calls f with the width that the kernel is made for, as a constant; wider than the head, if need be.
template <class T, class F>
void with_head_width(index_t head_width, F f) {
  if (head_width <= 32) return f(std::integral_constant<int, 32>{});
  if (head_width <= 64) return f(std::integral_constant<int, 64>{});
  if (head_width <= 128) return f(std::integral_constant<int, 128>{});
  if constexpr (std::is_same_v<T, float>) f(std::integral_constant<int, 256>{});
}

// Launches with more shared memory than is given without asking.
template <class... P, class... A>
void launch(cudaStream_t stream, void (*kernel)(P...), unsigned blocks, int threads, int shared_bytes, A... arguments) {
  matopt::cuda::check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
                      "attention");
  kernel<<<blocks, static_cast<unsigned>(threads), static_cast<std::size_t>(shared_bytes), stream>>>(arguments...);
  matopt::cuda::check_launch("attention");
}

inline constexpr int attention_forward_warps = 8, attention_backward_warps = 4;

// y [rows, width]; log_sum keeps a float for each row of each head of each sequence. `largest`, if given, has one for
// each head, which begins as nothing_yet() and is raised to the head's largest logit, with its factor scale().
template <class T>
void attention_forward(cudaStream_t stream, const attention_shape& a, const T* qkv, T* y, float* log_sum,
                       float* largest = nullptr) {
  with_head_width<T>(a.head_width, [&](auto width) {
    constexpr int d = width();
    if constexpr (std::is_same_v<T, float>) {
      launch(stream, largest ? attention_forward_kernel_float<d, true> : attention_forward_kernel_float<d, false>,
             a.blocks(32), 256, static_cast<int>(sizeof(float)) * (3 * float_tile<d>::floats + 32 * 33), a,
             a.scale_log2(), qkv, y, log_sum, largest);
    } else {
      constexpr int warps = attention_forward_warps, rows = 16 * warps;
      launch(stream, largest ? attention_forward_kernel<d, warps, true> : attention_forward_kernel<d, warps, false>,
             a.blocks(rows), 32 * warps, tile<d>::bytes(rows) + 4 * tile<d>::bytes(attention_columns), a,
             a.scale_log2(), qkv, y, log_sum, largest);
    }
  });
}

// Overwrites dqkv. `delta` is scratch of the size of log_sum.
template <class T>
void attention_backward(cudaStream_t stream, const attention_shape& a, const T* qkv, const T* y, const T* dy,
                        const float* log_sum, float* delta, T* dqkv) {
  with_head_width<T>(a.head_width, [&](auto width) {
    constexpr int d = width();
    if constexpr (std::is_same_v<T, float>) {
      constexpr int bytes = static_cast<int>(sizeof(float)) * (4 * float_tile<d>::floats + 2 * 32 * 33);
      launch(stream, attention_query_gradient_kernel_float<d>, a.blocks(32), 256, bytes, a, a.scale(), a.scale_log2(),
             qkv, y, dy, log_sum, delta, dqkv);
      launch(stream, attention_key_gradient_kernel_float<d>, a.blocks(32), 256, bytes, a, a.scale(), a.scale_log2(),
             qkv, dy, log_sum, delta, dqkv);
    } else {
      constexpr int warps = attention_backward_warps, rows = 16 * warps;
      constexpr int bytes = 2 * tile<d>::bytes(rows) + 4 * tile<d>::bytes(attention_columns);
      launch(stream, attention_query_gradient_kernel<d, warps>, a.blocks(rows), 32 * warps, bytes, a, a.scale(),
             a.scale_log2(), qkv, y, dy, log_sum, delta, dqkv);
      launch(stream, attention_key_gradient_kernel<d, warps>, a.blocks(rows), 32 * warps, bytes, a, a.scale(),
             a.scale_log2(), qkv, dy, log_sum, delta, dqkv);
    }
  });
}

}  // namespace small_gpt::gpu
