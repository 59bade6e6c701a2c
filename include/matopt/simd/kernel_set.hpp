// What one kind of processor offers to products: packing, the micro-kernel, and the writing of finished tiles.
//
//   micro-tile   D[i][j] = alpha sum_s a[s][i] b[s][j] + beta C[i][j]     i < rows, j < cols
//
// A panel holds `rows` lines of A, or `cols` lines of B^T, one step of the depth after the other: panel[step][line]. A
// step is one float per line, or, where the processor multiplies pairs of bfloat16, two of them. (What a kernel packs
// for itself, it may order otherwise within `step_multiple` steps.) Lines beyond the edge of the matrix repeat the last
// one: what they give is never written. kernel_sets.hpp makes the sets.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../core/bfloat16.hpp"
#include "../core/index.hpp"

namespace MATOPT_NAMESPACE::simd {

// Element (line, k) is from[line line_stride + k depth_stride]; `depth` of them make ceil(depth / depth_per_step)
// steps.
template <class E>
using pack_function = void (*)(const E* from, index_t line_stride, index_t depth_stride, index_t lines, index_t depth,
                               float* panel);

// Row i is written up to column min(cols, diagonal + i). C is not read where beta is 0; it may be D. `next`, 64 bytes
// per step, will be read soon: fetched meanwhile.
using multiply_function = void (*)(index_t steps, const float* a, const float* b, float alpha, float beta,
                                   const float* c, index_t c_stride, float* d, index_t d_stride, index_t rows,
                                   index_t cols, index_t diagonal, const float* next);

// to[j][i] = from[i][j] for j < min(cols, diagonal + i)
template <class E>
using transpose_function = void (*)(const E* from, index_t from_stride, E* to, index_t to_stride, index_t rows,
                                    index_t cols, index_t diagonal);

// d = alpha sums + beta C, up to column min(cols, diagonal + i) of row i. C is not read where beta is 0; it may be D.
template <class E>
using finish_function = void (*)(const float* sums, index_t sums_stride, float alpha, float beta, const E* c,
                                 index_t c_stride, E* d, index_t d_stride, index_t rows, index_t cols,
                                 index_t diagonal);

template <class E>
struct element_kernels {
  index_t rows = 0, cols = 0;  // of the micro-tile
  index_t steps = 1;           // at most, of one call of multiply
  index_t depth_per_step = 1;
  index_t step_multiple = 1;  // of the steps of a panel: packing fills them up with zeros
  pack_function<E> pack_a = nullptr, pack_b = nullptr;
  multiply_function multiply = nullptr;
  transpose_function<E> transpose = nullptr;
  // For elements narrower than float: multiply gives whole micro-tiles of plain sums (alpha 1, beta 0 or 1).
  finish_function<E> finish = nullptr;
  // What a thread does before and after a number of micro-tiles.
  void (*begin)() = nullptr, (*end)() = nullptr;
};

struct kernel_set {
  const char* name = "";
  element_kernels<float> of_float{};
  element_kernels<bfloat16> of_bfloat16{};
  double bfloat16_speed = 1;  // of a chain of products, in units of that of float: at least so many

  template <class E>
  const element_kernels<E>& of() const {
    if constexpr (sizeof(E) == sizeof(float))
      return of_float;
    else
      return of_bfloat16;
  }
};

}  // namespace MATOPT_NAMESPACE::simd
