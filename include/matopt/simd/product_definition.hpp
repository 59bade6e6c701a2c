// The definition of product(): compiled once per program with the kernels, or in every file without
// MATOPT_SIMD_COMPILED.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>

#include "product.hpp"

namespace MATOPT_NAMESPACE::simd {

#ifdef MATOPT_SIMD_COMPILED
#define MATOPT_SIMD_INLINE
#else
#define MATOPT_SIMD_INLINE inline
#endif

namespace detail {

constexpr index_t ceil_div(index_t x, index_t by) { return (x + by - 1) / by; }

// One product: the shape's cutting into blocks, tiles and depth, and the tasks of a phase.
template <class E>
class product_run {
 public:
  product_run(const kernel_set& set, workspace& memory, task_runner threads, const product_problem<E>& p)
      : kernels_(set.of<E>()), memory_(memory), threads_(threads), p_(p) {}

  void run() {
    // Panels of several matrices, or of a block of one, are packed together: few phases, each with many tasks.
    const index_t depth = p_.a.cols, most_depth = workspace::operand_size / 128 / 4 * 4 * kernels_.depth_per_step;
    for (depth_begin_ = 0; depth_begin_ == 0 || depth_begin_ < depth; depth_begin_ += most_depth) {
      depth_ = std::min(most_depth, depth - depth_begin_);
      const index_t multiple = kernels_.step_multiple, stretches = ceil_div(depth_, kernels_.depth_per_step * multiple);
      steps_ = stretches * multiple;
      last_ = depth_begin_ + depth_ == depth;
      step_block_ = steps_ == 0 ? 1 : ceil_div(stretches, ceil_div(steps_, kernels_.steps)) * multiple;
      blocks();
    }
  }

 private:
  static constexpr index_t panels_per_task = 4;  // in packing
  static constexpr index_t unlimited = index_t{1} << 40;

  void blocks() {
    const auto fitting = [&](index_t lines, index_t width) {
      const index_t fit = workspace::operand_size / std::max<index_t>(1, steps_) / width * width;
      const index_t parts = ceil_div(lines, fit);
      return ceil_div(ceil_div(lines, parts), width) * width;
    };
    const index_t m = p_.d.rows, n = p_.d.cols;
    const index_t height = fitting(m, kernels_.rows), width = fitting(n, kernels_.cols);
    index_t together = 1;  // matrices in one phase
    if (height >= m && width >= n)
      together = std::clamp<index_t>(workspace::operand_size / std::max<index_t>(1, std::max(height, width) * steps_),
                                     1, p_.d.batch);
    for (matrix_ = 0; matrix_ < p_.d.batch; matrix_ += together) {
      matrices_ = std::min(together, p_.d.batch - matrix_);
      for (col_ = 0; col_ < n; col_ += width)
        for (row_ = 0, cols_ = std::min(width, n - col_); row_ < m; row_ += height) {
          rows_ = std::min(height, m - row_);
          if (p_.symmetric && row_ + rows_ <= col_) continue;
          pack(first_use_of_b());
          multiply();
        }
    }
  }
  bool first_use_of_b() {
    const bool first = !(b_matrix_ == matrix_ && b_col_ == col_ && b_depth_ == depth_begin_);
    b_matrix_ = matrix_, b_col_ = col_, b_depth_ = depth_begin_;
    return first;
  }

  template <class F>
  void for_tasks(index_t tasks, F&& f) {
    // Waking the threads takes some microseconds.
    if (matrices_ * rows_ * cols_ * std::max<index_t>(1, depth_) < (index_t{1} << 19)) {
      for (index_t i = 0; i < tasks; ++i) f(i, 0);
      return;
    }
    threads_.run(
        threads_.pool, tasks,
        [](void* closure, index_t i, int worker) { (*static_cast<std::remove_reference_t<F>*>(closure))(i, worker); },
        &f);
  }

  index_t a_size() const { return ceil_div(rows_, kernels_.rows) * kernels_.rows * steps_; }
  index_t b_size() const { return ceil_div(cols_, kernels_.cols) * kernels_.cols * steps_; }

  void pack(bool with_b) {
    if (steps_ == 0) return;
    const index_t chunks = ceil_div(steps_, step_block_);
    const index_t groups_a = ceil_div(rows_, kernels_.rows * panels_per_task),
                  groups_b = with_b ? ceil_div(cols_, kernels_.cols * panels_per_task) : 0;
    for_tasks(matrices_ * (groups_a + groups_b) * chunks, [&](index_t task, int) {
      const index_t chunk = task % chunks, group = task / chunks % (groups_a + groups_b),
                    q = task / chunks / (groups_a + groups_b);
      if (group < groups_a)
        pack_group(kernels_.pack_a, p_.a.base(matrix_ + q), p_.a.row_stride, p_.a.col_stride, row_, rows_,
                   kernels_.rows, group, chunk, memory_.a() + q * a_size());
      else
        pack_group(kernels_.pack_b, p_.b.base(matrix_ + q), p_.b.col_stride, p_.b.row_stride, col_, cols_,
                   kernels_.cols, group - groups_a, chunk, memory_.b() + q * b_size());
    });
  }
  void pack_group(pack_function<E> pack_panel, const E* from, index_t line_stride, index_t depth_stride, index_t first,
                  index_t lines, index_t width, index_t group, index_t chunk, float* to) const {
    const index_t begin = chunk * step_block_, steps = std::min(step_block_, steps_ - begin);
    const index_t skipped = begin * kernels_.depth_per_step,
                  depth = std::min(steps * kernels_.depth_per_step, depth_ - skipped);
    from += first * line_stride + (depth_begin_ + skipped) * depth_stride;
    const index_t end = std::min(lines, (group + 1) * panels_per_task * width);
    for (index_t line = group * panels_per_task * width; line < end; line += width)
      pack_panel(from + line * line_stride, line_stride, depth_stride, std::min(width, lines - line), depth,
                 to + line * steps_ + begin * width);
  }

  void multiply() {
    // Large tiles read the panels less often; small ones keep all cores busy to the end.
    index_t height = workspace::tile_rows / kernels_.rows, width = workspace::tile_cols / kernels_.cols;
    const index_t panels_a = ceil_div(rows_, kernels_.rows), panels_b = ceil_div(cols_, kernels_.cols);
    while (matrices_ * ceil_div(panels_a, height) * ceil_div(panels_b, width) < 24 && height * width > 1) {
      if (width * kernels_.cols > height * kernels_.rows && width > 1)
        width = ceil_div(width, 2);
      else
        height = ceil_div(height, 2);
    }
    const index_t down = ceil_div(panels_a, height), across = ceil_div(panels_b, width);
    for_tasks(matrices_ * down * across, [&](index_t task, int worker) {
      // Down the columns of tiles: a thread's next tile mostly has the same panels of B, which its cache still holds.
      // A symmetric product's columns become shorter, and each ends at the diagonal: the last tasks are small ones.
      const index_t q = task / (down * across), i = down - 1 - task % down, j = task / down % across;
      const index_t row = i * height * kernels_.rows, col = j * width * kernels_.cols;
      const index_t rows = std::min(height * kernels_.rows, rows_ - row),
                    cols = std::min(width * kernels_.cols, cols_ - col);
      if (p_.symmetric && row_ + row + rows <= col_ + col) return;
      tile(q, row, rows, col, cols, worker);
    });
  }

  // Rows and columns count within the block.
  void tile(index_t q, index_t row, index_t rows, index_t col, index_t cols, int worker) const {
    const index_t top = row_ + row, left = col_ + col;
    const index_t diagonal = p_.symmetric ? top - left + 1 : unlimited;  // row i has this many columns, plus i
    E* const d = p_.d.base(matrix_ + q) + top * p_.d.row_stride + left;
    float* const scratch = memory_.tile(worker);

    // Where the sums start from: C, or what the parts of the depth before this one left in D.
    const bool first = depth_begin_ == 0;
    const float beta = first ? p_.beta : 1;
    const view<const E> start = first ? p_.c : as_const(p_.d);
    const E* c = d;
    index_t c_stride = p_.d.row_stride;
    if (beta != 0) {
      const E* const from = start.base(matrix_ + q) + top * start.row_stride + left * start.col_stride;
      if (start.col_stride == 1)
        c = from, c_stride = start.row_stride;
      else
        c = reinterpret_cast<E*>(memory_.gathered(worker)), c_stride = workspace::tile_cols,
        gather(from, start, rows, cols, diagonal, reinterpret_cast<E*>(memory_.gathered(worker)));
    }

    const float* const a = memory_.a() + q * a_size() + row * steps_;
    const float* const b = memory_.b() + q * b_size() + col * steps_;
    if (kernels_.begin) kernels_.begin();
    for (index_t s = 0; s == 0 || s < steps_; s += step_block_) {
      const index_t steps = std::min(step_block_, steps_ - s);
      for (index_t i = 0; i < rows; i += kernels_.rows)
        for (index_t j = 0; j < cols && diagonal + i - j + kernels_.rows - 1 > 0; j += kernels_.cols) {
          const float* const panel = b + j * steps_ + s * kernels_.cols;
          // What would otherwise come from memory just when it is needed: in a row's first micro-tile the next panel of
          // A; in the others the next block of this panel of B, half of it by each of two rows.
          const bool more = s + step_block_ < steps_;
          const float* const next = j == 0 && i + kernels_.rows < rows
                                        ? a + (i + kernels_.rows) * steps_ + s * kernels_.rows
                                    : more ? panel + (steps + i / kernels_.rows % 2 * (steps / 2)) * kernels_.cols
                                           : panel;
          const float* const left_panel = a + i * steps_ + s * kernels_.rows;
          const index_t height = std::min(kernels_.rows, rows - i), width = std::min(kernels_.cols, cols - j);
          const E* const c_tile = c + i * c_stride + j;
          E* const d_tile = d + i * p_.d.row_stride + j;
          if constexpr (std::is_same_v<E, float>) {
            kernels_.multiply(steps, left_panel, panel, p_.alpha, s == 0 ? beta : 1, s == 0 ? c_tile : d_tile,
                              s == 0 ? c_stride : p_.d.row_stride, d_tile, p_.d.row_stride, height, width,
                              diagonal + i - j, next);
          } else {
            if (!more) fetch(c_tile, beta != 0 ? c_stride : 0, d_tile, height);
            // Sums that nothing is added to any more stay in the first-level cache.
            float* const sums = s == 0 && !more ? scratch : scratch + i * workspace::tile_cols + j;
            kernels_.multiply(steps, left_panel, panel, 1, s == 0 ? 0.0F : 1.0F, sums, workspace::tile_cols, sums,
                              workspace::tile_cols, kernels_.rows, kernels_.cols, unlimited, next);
            if (!more)
              kernels_.finish(sums, workspace::tile_cols, p_.alpha, beta, c_tile, c_stride, d_tile, p_.d.row_stride,
                              height, width, diagonal + i - j);
          }
        }
    }
    if (kernels_.end) kernels_.end();
    if (p_.symmetric && last_)
      kernels_.transpose(d, p_.d.row_stride, p_.d.base(matrix_ + q) + left * p_.d.row_stride + top, p_.d.row_stride,
                         rows, cols, diagonal - 1);
  }

  // Lines of a micro-tile, which are read and written when all its sums are finished.
  void fetch(const E* c, index_t c_stride, const E* d, index_t rows) const {
    for (index_t i = 0; i < rows; ++i, d += p_.d.row_stride) __builtin_prefetch(d, 1);
    for (index_t i = 0; c_stride != 0 && c != d && i < rows; ++i, c += c_stride) __builtin_prefetch(c);
  }

  void gather(const E* from, const view<const E>& v, index_t rows, index_t cols, index_t diagonal, E* to) const {
    for (index_t i = 0; i < rows; ++i, from += v.row_stride, to += workspace::tile_cols) {
      const index_t count = std::min(cols, diagonal + i);
      for (index_t j = 0; j < count; ++j) to[j] = from[j * v.col_stride];
    }
  }

  const element_kernels<E>& kernels_;
  workspace& memory_;
  task_runner threads_;
  product_problem<E> p_;
  // the part of the work in hand
  index_t depth_begin_ = 0, depth_ = 0, steps_ = 0, step_block_ = 1;
  bool last_ = true;
  index_t matrix_ = 0, matrices_ = 0, row_ = 0, rows_ = 0, col_ = 0, cols_ = 0;
  index_t b_matrix_ = -1, b_col_ = -1, b_depth_ = -1;  // what is packed of B
};

template <class E>
void product(const kernel_set& kernels, workspace& memory, task_runner threads, product_problem<E>& p) {
  if (p.d.rows == 0 || p.d.cols == 0) return;
  if (!p.d.row_contiguous()) p = {p.alpha, p.b.t(), p.a.t(), p.beta, p.c.t(), p.d.t(), p.symmetric};
  product_run<E>(kernels, memory, threads, p).run();
}

}  // namespace detail

MATOPT_SIMD_INLINE void product(const kernel_set& kernels, workspace& memory, task_runner threads,
                                product_problem<float> problem) {
  detail::product(kernels, memory, threads, problem);
}
MATOPT_SIMD_INLINE void product(const kernel_set& kernels, workspace& memory, task_runner threads,
                                product_problem<bfloat16> problem) {
  detail::product(kernels, memory, threads, problem);
}

}  // namespace MATOPT_NAMESPACE::simd
#undef MATOPT_SIMD_INLINE
