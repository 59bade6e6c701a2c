// Results of hopper_kernel.cuh's products as floats, stored from registers.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "hopper_instructions.cuh"
#include "hopper_tiles.cuh"

namespace MATOPT_NAMESPACE::cuda::hopper {

// D and C of floats, by rows.
struct float_result {
  float* to;
  const float* from;
  index_t to_row, to_batch, from_row, from_batch;
  int rows, columns;
};

#if defined(MATOPT_SM90A_DEVICE)

// Stored as one. In PTX, because ptxas 13.0 crashes on a store of float2 here when the code before it was not optimized.
__device__ __forceinline__ void store_two(float* to, float x, float y) {
  asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x), "f"(y) : "memory");
}

// Two neighbours of a row of D, and of a symmetric D what lies opposite.
__device__ __forceinline__ void store_pair(float x, float y, int row, int column, const work& w, const float_result& r,
                                           float* to, const float* from) {
  if (row < r.rows && column < r.columns && !(w.symmetric && column > row)) {
    if (w.beta != 0) {
      const float2 old = *reinterpret_cast<const float2*>(from + row * r.from_row + column);
      x += w.beta * old.x, y += w.beta * old.y;
    }
    if (!w.symmetric || column < row)
      store_two(to + row * r.to_row + column, x, y);
    else
      to[row * r.to_row + column] = x;
    if (w.symmetric && column < row) {
      to[column * r.to_row + row] = x;
      if (column + 1 < row) to[(column + 1) * r.to_row + row] = y;
    }
  }
}

// From the sums of a group, 64 x Columns, to D and, of a symmetric D, to its mirror image. Two neighbouring columns of
// eight rows are whole sectors of memory, and so are eight neighbouring rows of a column.
template <int Columns>
__device__ __forceinline__ void store_floats(const float (&sum)[Columns / 2], const work& w, const float_result& r,
                                             const job& t, int group, int lane) {
  float* const to = r.to + t.matrix * r.to_batch;
  const float* const from = r.from + t.matrix * r.from_batch;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = t.row + group_rows * group + 16 * (lane / 32) + lane % 32 / 4 + 8 * h;
#pragma unroll
    for (int q = 0; q < Columns / 8; ++q)
      store_pair(w.alpha * sum[4 * q + 2 * h], w.alpha * sum[4 * q + 2 * h + 1], row, t.column + 8 * q + 2 * (lane % 4),
                 w, r, to, from);
  }
}

#endif  // MATOPT_SM90A_DEVICE

}  // namespace MATOPT_NAMESPACE::cuda::hopper
