// D = alpha A B + beta C for a batch of matrices by tiles, through Eigen's kernels; of a symmetric D only the tiles on
// and below the diagonal, mirrored.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>

#include "../core/types.hpp"
#include "product.hpp"

namespace MATOPT_NAMESPACE::detail {

// run_tasks(count, elements, f) calls f(task, worker) for each task; `memory` holds packing<double>::bytes per worker.
template <class T, class Run>
void tiled_product(const Run& run_tasks, std::byte* memory, arithmetic_t<T> alpha, view<const T> a, view<const T> b,
                   arithmetic_t<T> beta, view<const T> c, view<T> d, bool symmetric) {
  if (d.row_stride != 1) return tiled_product<T>(run_tasks, memory, alpha, b.t(), a.t(), beta, c.t(), d.t(), symmetric);
  // Large tiles pack less; small ones keep all cores busy when there are few.
  const auto count = [](index_t size, index_t tile) { return (size + tile - 1) / tile; };
  index_t edge = tile_product<T>::max_edge;
  while (edge > 64 && d.batch * count(d.rows, edge) * count(d.cols, edge) < 8) edge /= 2;
  const index_t down = count(d.rows, edge), across = count(d.cols, edge);
  const index_t work = d.batch * d.rows * d.cols * std::max<index_t>(1, a.cols) / 4;
  run_tasks(d.batch * down * across, work, [&](index_t task, int worker = 0) {
    const index_t m = task / (down * across), i = task / across % down, j = task % across;
    if (symmetric && j > i) return;
    const auto block = [&](const auto& v, index_t row, index_t rows, index_t col, index_t cols) {
      return v.matrix(m).row_block(row, rows).col_block(col, cols);
    };
    const index_t row = i * edge, rows = std::min(edge, d.rows - row), col = j * edge,
                  cols = std::min(edge, d.cols - col);
    const view<T> to = block(d, row, rows, col, cols);
    tile_product<T>::run(alpha, block(a, row, rows, 0, a.cols), block(b, 0, b.rows, col, cols), beta,
                         block(c, row, rows, col, cols), to,
                         memory + static_cast<std::size_t>(worker) * packing<double>::bytes);
    if (symmetric) {
      const view<T> mirror = block(d, col, cols, row, rows);
      for (index_t q = 0; q < cols; ++q)
        for (index_t p = i == j ? q + 1 : 0; p < rows; ++p) mirror(q, p) = to(p, q);
    }
  });
}

}  // namespace MATOPT_NAMESPACE::detail
