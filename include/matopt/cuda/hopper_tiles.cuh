// The tiles that hopper_kernel.cuh's products are made of, and which block takes which.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/backend.hpp"

namespace MATOPT_NAMESPACE::cuda::hopper {

constexpr int tile_rows = 128, tile_columns = 256, depth = 64, stages = 3, box = 64, band = 16;
constexpr int group_rows = 64, threads = 384;
constexpr std::uint32_t line_bytes = 128, box_bytes = box * line_bytes;
constexpr std::uint32_t a_bytes = tile_rows * line_bytes, b_bytes = tile_columns * line_bytes;
constexpr std::uint32_t corner_bytes = tile_columns * line_bytes;  // 64 x 256 elements of D, or of its transpose
constexpr std::uint32_t shared_bytes = stages * (a_bytes + b_bytes) + 2 * corner_bytes + 1024;  // 1024 to align

// Which tiles there are, and who takes them: job number n of the whole tiles goes to block n mod blocks; half tiles
// first to the `behind` blocks that had one whole tile less, two each, then to all in turn.
struct work {
  int depth_steps, row_tiles, column_tiles;
  int tiles;           // whole tiles of one matrix
  int diagonal_tiles;  // half tiles of one matrix: the 128 x 128 blocks on the diagonal of even rows of tiles
  int whole;           // whole tiles of all matrices that are taken whole; the rest is cut
  int diagonal, half;  // half tiles on diagonals; all
  int behind;
  bool symmetric;
  float alpha, beta;
  const status_word* guard;  // of each matrix, or null
};

struct job {
  int matrix, row, column;  // first row and column of the tile
  int mirrored;             // leading columns that are stored transposed, too
};

// Whole tile i, j of the matrix: in bands of 16 rows of tiles, so that those worked on at a time share panels in the
// cache. The triangle has the whole tiles j < (i + 1) / 2.
__device__ inline job whole_tile(const work& w, int number) {
  int rest = number % w.tiles, first = 0, i, j;
  if (w.symmetric) {
    int rows;
    for (;; first += band) {
      rows = min(band, w.row_tiles - first);
      const int pairs = (rows - 1) / 2, size = first / 2 * rows + pairs * (pairs + 1) + (rows % 2 == 0 ? pairs + 1 : 0);
      if (rest < size) break;
      rest -= size;
    }
    if (const int rectangle = first / 2 * rows; rest < rectangle) {
      i = first + rest % rows, j = rest / rows;
    } else {
      rest -= rectangle;
      int pair = 0;  // of rows with equally many
      for (; rest >= 2 * (pair + 1); ++pair) rest -= 2 * (pair + 1);
      i = first + 1 + 2 * pair + rest / (pair + 1), j = first / 2 + rest % (pair + 1);
    }
  } else {
    first = rest / (band * w.column_tiles) * band;
    rest -= first * w.column_tiles;
    const int rows = min(band, w.row_tiles - first);
    i = first + rest % rows, j = rest / rows;
  }
  const int mirrored = !w.symmetric ? 0 : 2 * j + 1 == i ? tile_columns / 2 : tile_columns;
  return {number / w.tiles, i * tile_rows, j * tile_columns, mirrored};
}
__device__ inline job half_tile(const work& w, int number) {
  constexpr int width = tile_columns / 2;
  if (number < w.diagonal) {
    const int at = number % w.diagonal_tiles * tile_columns;
    return {number / w.diagonal_tiles, at, at, 0};
  }
  const int cut = number - w.diagonal;
  job t = whole_tile(w, w.whole + cut / 2);
  if (cut % 2 == 0)
    t.mirrored = min(t.mirrored, width);
  else
    t.column += width, t.mirrored = max(t.mirrored - width, 0);
  return t;
}

// Calls take(job, width of its tile as a constant) for all jobs of this block.
template <class Take>
__device__ void each_job(const work& w, Take give) {
  const auto take = [&](const job& t, auto width) {
    if (!(w.guard && w.guard[t.matrix])) give(t, width);
  };
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  for (int n = block; n < w.whole; n += blocks) take(whole_tile(w, n), std::integral_constant<int, tile_columns>{});
  const int own = block - (blocks - w.behind);  // among those behind
  for (int n = own >= 0 ? own : 2 * w.behind + block, turn = own >= 0 ? 0 : 2; n < w.half; ++turn) {
    take(half_tile(w, n), std::integral_constant<int, tile_columns / 2>{});
    n = turn == 0 ? n + w.behind : turn == 1 ? 2 * w.behind + block : n + blocks;
  }
}

}  // namespace MATOPT_NAMESPACE::cuda::hopper
