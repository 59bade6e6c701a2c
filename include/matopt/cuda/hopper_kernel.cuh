// The kernel of products in 16 bits on GPUs of compute capability 9.0: D = alpha A B + beta C, sums in float, for a
// batch of matrices; of a symmetric D one triangle of tiles is computed and stored twice.
//
// A block stays on its multiprocessor and takes tile after tile of all the matrices. One thread lets the copy engine
// bring panels of A and B in three stages, another the tile of C; two warp groups multiply, each 64 of the tile's 128
// rows. A group stores its half while the panels of the next tile arrive. Tiles of 128 x 256; tiles of half the width
// fill the diagonal and the last round.
//
// D may be of floats: its groups then store their sums from registers, and read C there, without the copy engine. Of a
// symmetric one the elements below the diagonal are stored twice, so that it is symmetric to the last bit.
//
// Matrices whose guard is raised are left out: nothing of them is read or written.
//
// Nothing depends on timing: each element has one writer, and sums run along k.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "hopper_floats.cuh"
#include "hopper_instructions.cuh"
#include "hopper_tiles.cuh"

namespace MATOPT_NAMESPACE::cuda::hopper {

#if defined(MATOPT_SM90A_DEVICE)

struct barriers {
  std::uint64_t filled[stages], emptied[stages], c_filled[2], c_emptied[2];
};

struct ring {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

template <bool LinesAreK>
__device__ void load_panel(std::uint32_t to, const CUtensorMap& map, int first, int count, int k, int matrix,
                           std::uint32_t barrier) {
  // Lines along k: boxes of 128 lines. Lines across: boxes of 64 k by 64.
  constexpr int each = LinesAreK ? box : 128;
  for (int at = 0; at < count; at += each, to += each * line_bytes) {
    if constexpr (LinesAreK)
      load_box(to, map, first + at, k, matrix, barrier);
    else
      load_box(to, map, k, first + at, matrix, barrier);
  }
}

template <class T, int Columns, bool ALinesAreK, bool BLinesAreK>
__device__ __forceinline__ void multiply(float (&sum)[Columns / 2], const work& w, std::uint32_t a, std::uint32_t b,
                                         barriers& at, ring& r, int warp_lane, bool& storing, bool leader,
                                         std::uint32_t c_emptied) {
  for (int step = 0; step < w.depth_steps; ++step) {
    wait(shared_address(&at.filled[r.stage]), r.parity);
    const std::uint64_t a_of = operand<ALinesAreK>(a + static_cast<std::uint32_t>(r.stage) * a_bytes, 0);
    const std::uint64_t b_of = operand<BLinesAreK>(b + static_cast<std::uint32_t>(r.stage) * b_bytes, box_bytes);
    begin_products();
#pragma unroll
    for (int k = 0; k < depth / 16; ++k)
      multiply_add<T, Columns, ALinesAreK, BLinesAreK>(sum, a_of + k * sixteen_k<ALinesAreK>,
                                                       b_of + k * sixteen_k<BLinesAreK>, step > 0 || k > 0);
    close_products();
    if (step > 0) {
      wait_for_products<1>();
      if (warp_lane == 0) arrive(shared_address(&at.emptied[(r.stage + stages - 1) % stages]));
    }
    if (storing) {  // the last tile's stores have had time meanwhile
      if (leader) {
        wait_for_stores();
        arrive(c_emptied);
      }
      storing = false;
    }
    r.advance();
  }
  wait_for_products<0>();
  if (warp_lane == 0) arrive(shared_address(&at.emptied[(r.stage + stages - 1) % stages]));
}

// From the sums of a group, 64 x Columns, to D and, transposed, to its mirror image.
template <class T, int Columns>
__device__ __forceinline__ void store(float (&sum)[Columns / 2], const work& w, const job& t, std::uint32_t corner,
                                      int group, int lane, std::uint32_t c_filled, std::uint32_t parity,
                                      const CUtensorMap& d, const CUtensorMap& mirror) {
  const int warp = lane / 32, in_warp = lane % 32, block = in_warp / 8, line = in_warp % 8;
  // Of four blocks, two are below each other and two side by side.
  const int row = 16 * warp + 8 * (block & 1) + line;
  const auto place = [&](int q) {  // the line of D that this lane hands over, from column 8 q on
    const int chunk = q + block / 2;
    return corner + static_cast<std::uint32_t>(chunk / 8) * box_bytes + static_cast<std::uint32_t>(row) * line_bytes +
           static_cast<std::uint32_t>((chunk % 8) ^ (row % 8)) * 16;
  };
  std::uint32_t out[Columns / 4];
  if (w.beta != 0) {
    wait(c_filled, parity);
#pragma unroll
    for (int q = 0; q < Columns / 8; q += 2) {
      std::uint32_t c[4];
      load_blocks(c, place(q));
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 old = unpack<T>(c[e]);
        out[2 * q + e] =
            pack<T>(w.alpha * sum[4 * q + 2 * e] + w.beta * old.x, w.alpha * sum[4 * q + 2 * e + 1] + w.beta * old.y);
      }
    }
  } else {
#pragma unroll
    for (int e = 0; e < Columns / 4; ++e) out[e] = pack<T>(w.alpha * sum[2 * e], w.alpha * sum[2 * e + 1]);
  }
#pragma unroll
  for (int q = 0; q < Columns / 8; q += 2)
    store_blocks<false>(place(q), out[2 * q], out[2 * q + 1], out[2 * q + 2], out[2 * q + 3]);
  publish_to_copies();
  meet(static_cast<std::uint32_t>(1 + group));
  const int first = t.row + group_rows * group;
  if (lane == 0) {
    for (int at = 0; at < Columns; at += box)
      store_box(corner + static_cast<std::uint32_t>(at / box) * box_bytes, d, t.column + at, first, t.matrix);
    close_stores();
  }
  if (t.mirrored == 0) return;
  if (lane == 0) wait_for_stores();
  meet(static_cast<std::uint32_t>(1 + group));
#pragma unroll
  for (int q = 0; q < Columns / 8; q += 2) {
    const int column = 8 * (q + block / 2) + line, chunk = 2 * warp + (block & 1);
    store_blocks<true>(corner + static_cast<std::uint32_t>(column) * line_bytes +
                           static_cast<std::uint32_t>(chunk ^ (column % 8)) * 16,
                       out[2 * q], out[2 * q + 1], out[2 * q + 2], out[2 * q + 3]);
  }
  publish_to_copies();
  meet(static_cast<std::uint32_t>(1 + group));
  if (lane == 0) {
    for (int at = 0; at < t.mirrored; at += 128)
      store_box(corner + static_cast<std::uint32_t>(at) * line_bytes, mirror, first, t.column + at, t.matrix);
    close_stores();
  }
}

#endif  // MATOPT_SM90A_DEVICE

// Boxes: a and b as load_panel says, c and d 64 x 64, mirror (of D) 128 lines of 64.
#if defined(MATOPT_SM90A_DEVICE)
#define MATOPT_PRODUCT_THREADS matopt::cuda::hopper::threads
#else
#define MATOPT_PRODUCT_THREADS 32  // by which the host knows that the kernel is empty
#endif
template <class T, bool ALinesAreK, bool BLinesAreK, bool ToFloat = false>
__global__ void __launch_bounds__(MATOPT_PRODUCT_THREADS, 1)
    product_kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                   const __grid_constant__ CUtensorMap c, const __grid_constant__ CUtensorMap d,
                   const __grid_constant__ CUtensorMap mirror, const work w, const float_result result) {
#if defined(MATOPT_SM90A_DEVICE)
  extern __shared__ std::uint8_t memory[];
  __shared__ barriers at;
  const std::uint32_t a_panels = (shared_address(memory) + 1023) / 1024 * 1024;
  const std::uint32_t b_panels = a_panels + stages * a_bytes, corners = b_panels + stages * b_bytes;
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 128;
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) {
      init_barrier(shared_address(&at.filled[s]), 1);
      init_barrier(shared_address(&at.emptied[s]), 8);  // the warps that multiply
    }
    for (int g = 0; g < 2; ++g) {
      init_barrier(shared_address(&at.c_filled[g]), 1);
      init_barrier(shared_address(&at.c_emptied[g]), 1);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    publish_to_copies();
  }
  __syncthreads();
  start_next_kernel();
  if (w.guard || ToFloat) wait_for_last_kernel();  // all threads read memory

  if (group == 2) {
    keep_registers<40>();
    if (lane == 0) {
      fetch_map(a), fetch_map(b);
      wait_for_last_kernel();  // what is stored later depends on what is loaded
      ring r;
      each_job(w, [&](const job& t, auto columns) {
        for (int step = 0; step < w.depth_steps; ++step, r.advance()) {
          const std::uint32_t filled = shared_address(&at.filled[r.stage]);
          const auto stage = static_cast<std::uint32_t>(r.stage);
          wait(shared_address(&at.emptied[r.stage]), r.parity ^ 1);
          arrive_expecting(filled, a_bytes + static_cast<std::uint32_t>(columns()) * line_bytes);
          load_panel<ALinesAreK>(a_panels + stage * a_bytes, a, t.row, tile_rows, step * depth, t.matrix, filled);
          load_panel<BLinesAreK>(b_panels + stage * b_bytes, b, t.column, columns(), step * depth, t.matrix, filled);
        }
      });
    } else if (!ToFloat && lane == 32 && w.beta != 0) {
      fetch_map(c);
      wait_for_last_kernel();
      std::uint32_t parity = 1;
      each_job(w, [&](const job& t, auto columns) {
        for (int g = 0; g < 2; ++g) {
          const std::uint32_t filled = shared_address(&at.c_filled[g]);
          wait(shared_address(&at.c_emptied[g]), parity);
          arrive_expecting(filled, static_cast<std::uint32_t>(columns()) * line_bytes);
          for (int x = 0; x < columns(); x += box)
            load_box(corners + static_cast<std::uint32_t>(g) * corner_bytes +
                         static_cast<std::uint32_t>(x / box) * box_bytes,
                     c, t.column + x, t.row + group_rows * g, t.matrix, filled);
        }
        parity ^= 1;
      });
    }
  } else {
    take_registers<232>();
    if (!ToFloat && lane == 0) fetch_map(d), fetch_map(mirror);
    const std::uint32_t corner = corners + static_cast<std::uint32_t>(group) * corner_bytes;
    const std::uint32_t a_half = a_panels + static_cast<std::uint32_t>(group) * box_bytes;
    const std::uint32_t c_filled = shared_address(&at.c_filled[group]),
                        c_emptied = shared_address(&at.c_emptied[group]);
    ring r;
    std::uint32_t parity = 0;
    bool storing = false;
    each_job(w, [&]<int Columns>(const job& t, std::integral_constant<int, Columns>) {
      float sum[Columns / 2];
      multiply<T, Columns, ALinesAreK, BLinesAreK>(sum, w, a_half, b_panels, at, r, lane % 32, storing, lane == 0,
                                                   c_emptied);
      if constexpr (ToFloat) {
        store_floats<Columns>(sum, w, result, t, group, lane);
      } else {
        if (w.beta == 0) meet(static_cast<std::uint32_t>(1 + group));
        store<T, Columns>(sum, w, t, corner, group, lane, c_filled, parity, d, mirror);
        storing = true, parity ^= 1;
      }
    });
    if (lane == 0) finish_stores();
  }
#endif
}
#undef MATOPT_PRODUCT_THREADS

}  // namespace MATOPT_NAMESPACE::cuda::hopper
