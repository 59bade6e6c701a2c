// Tiles of bfloat16 in shared memory, and the warp's multiply-add on 16 x 8 x 16 pieces of them.
//
// A tile has rows of D elements. The 16-byte chunks of a row are permuted by the row's number, so that the eight rows
// that one read takes lie in different banks.
#pragma once
#include "elements.cuh"

namespace small_gpt::gpu {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// d += a b
__device__ inline void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void load_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
// 16 bytes, or 16 zero bytes; later commit_copies() and wait_for_copies<how many commits may be outstanding>()
__device__ inline void copy_chunk(std::uint32_t to, const void* from, bool zero) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(zero ? 0 : 16));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;"); }
template <int Outstanding>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Outstanding));
}

template <int D>
struct tile {
  static constexpr int chunks = D / 8, row_bytes = 2 * D;
  static constexpr int bytes(int rows) { return rows * row_bytes; }

  // Of a chunk of a row, in bytes.
  __device__ static std::uint32_t place(int row, int chunk) {
    constexpr int spread = chunks < 8 ? chunks : 8, rows_per_line = 8 / spread;
    return static_cast<std::uint32_t>((row * chunks + (chunk ^ (row / rows_per_line % spread))) * 16);
  }
  // All threads of the block copy `rows` rows, `stride` elements apart; rows from `live` on and columns from `width` on
  // become zero.
  __device__ static void fetch(std::uint32_t to, const bfloat16* from, index_t stride, int rows, int live, int width) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * chunks; i += static_cast<int>(blockDim.x)) {
      const int row = i / chunks, chunk = i % chunks;
      const bool outside = row >= live || 8 * chunk >= width;
      copy_chunk(to + place(row, chunk), outside ? from : from + row * stride + 8 * chunk, outside);
    }
  }
  // The left factor: 16 rows from `row` on, 16 columns from 16 k on.
  __device__ static void left(std::uint32_t (&a)[4], std::uint32_t at, int row, int k) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    load_matrices(a, at + place(row + lane % 16, 2 * k + lane / 16));
  }
  // The right factor T' of two neighbouring 16 x 8 pieces: rows of the tile are its columns, 16 of them from `row` on.
  __device__ static void right_transposed(std::uint32_t (&b)[4], std::uint32_t at, int row, int k) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    load_matrices(b, at + place(row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
  }
  // The right factor T of two neighbouring 16 x 8 pieces: 16 rows from `row` on, 16 columns from 16 n on.
  __device__ static void right(std::uint32_t (&b)[4], std::uint32_t at, int row, int n) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    load_transposed(b, at + place(row + lane % 16, 2 * n + lane / 16));
  }
};

// A 16 x 16 left factor from two 16 x 8 results that lie side by side.
__device__ inline void as_left(std::uint32_t (&a)[4], const float (&first)[4], const float (&second)[4]) {
  a[0] = pack(first[0], first[1]), a[1] = pack(first[2], first[3]);
  a[2] = pack(second[0], second[1]), a[3] = pack(second[2], second[3]);
}

// result[n] += L T' for the 16 rows of a warp: L as fragments, T a tile of which the rows from `row` on are taken.
template <int D, int N>
__device__ void multiply_transposed(float (&result)[N][4], const std::uint32_t (&l)[D / 16][4], std::uint32_t at,
                                    int row) {
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t b[4];
      tile<D>::right_transposed(b, at, row + 8 * n, k);
      multiply_add(result[n], l[k], b[0], b[1]);
      multiply_add(result[n + 1], l[k], b[2], b[3]);
    }
  }
}
// result += M T for the 16 rows of a warp: M the 16 x 8 N results of an earlier product, T the 8 N rows of a tile from
// `row` on.
template <int D, int N>
__device__ void multiply(float (&result)[D / 8][4], const float (&m)[N][4], std::uint32_t at, int row) {
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    std::uint32_t a[4];
    as_left(a, m[k], m[k + 1]);
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      std::uint32_t b[4];
      tile<D>::right(b, at, row + 8 * k, n);
      multiply_add(result[2 * n], a, b[0], b[1]);
      multiply_add(result[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// Writes the 16 rows of a warp, times a factor for each half, where the row is below `live` and the column below
// `width`.
template <int D>
__device__ void write_rows(bfloat16* to, index_t stride, int row, int live, int width, const float (&x)[D / 8][4],
                           float upper, float lower) {
  const int lane = static_cast<int>(threadIdx.x) % 32, first = row + lane / 4;
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    const int column = 8 * n + lane % 4 * 2;
    if (column >= width) continue;
    if (first < live)
      *reinterpret_cast<std::uint32_t*>(to + first * stride + column) = pack(x[n][0] * upper, x[n][1] * upper);
    if (first + 8 < live)
      *reinterpret_cast<std::uint32_t*>(to + (first + 8) * stride + column) = pack(x[n][2] * lower, x[n][3] * lower);
  }
}

}  // namespace small_gpt::gpu
