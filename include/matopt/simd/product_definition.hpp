// The definition of product(): compiled once per program with the kernels, or in every file without
// MATOPT_SIMD_COMPILED.
#pragma once
#include <algorithm>

#include "product.hpp"

namespace matopt::simd {

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
      : set_(set), kernels_(set.of<E>()), memory_(memory), threads_(threads), p_(p) {}

  void run() {
    // Panels of several matrices, or of a block of one, are packed together: few phases, each with many tasks.
    const index_t depth = p_.a.cols, most_depth = workspace::operand_size / 128 / 4 * 4 * kernels_.depth_per_step;
    for (depth_begin_ = 0; depth_begin_ == 0 || depth_begin_ < depth; depth_begin_ += most_depth) {
      depth_ = std::min(most_depth, depth - depth_begin_);
      steps_ = ceil_div(depth_, kernels_.depth_per_step);
      last_ = depth_begin_ + depth_ == depth;
      step_block_ = steps_ == 0 ? 1 : ceil_div(steps_, ceil_div(steps_, set_.steps));
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
    const index_t height = fitting(m, set_.rows), width = fitting(n, set_.cols);
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

  index_t a_size() const { return ceil_div(rows_, set_.rows) * set_.rows * steps_; }
  index_t b_size() const { return ceil_div(cols_, set_.cols) * set_.cols * steps_; }

  void pack(bool with_b) {
    if (steps_ == 0) return;
    const index_t chunks = ceil_div(steps_, step_block_);
    const index_t groups_a = ceil_div(rows_, set_.rows * panels_per_task),
                  groups_b = with_b ? ceil_div(cols_, set_.cols * panels_per_task) : 0;
    for_tasks(matrices_ * (groups_a + groups_b) * chunks, [&](index_t task, int) {
      const index_t chunk = task % chunks, group = task / chunks % (groups_a + groups_b),
                    q = task / chunks / (groups_a + groups_b);
      if (group < groups_a)
        pack_group(kernels_.pack_a, p_.a.base(matrix_ + q), p_.a.row_stride, p_.a.col_stride, row_, rows_, set_.rows,
                   group, chunk, memory_.a() + q * a_size());
      else
        pack_group(kernels_.pack_b, p_.b.base(matrix_ + q), p_.b.col_stride, p_.b.row_stride, col_, cols_, set_.cols,
                   group - groups_a, chunk, memory_.b() + q * b_size());
    });
  }
  void pack_group(pack_function<E> pack, const E* from, index_t line_stride, index_t depth_stride, index_t first,
                  index_t lines, index_t width, index_t group, index_t chunk, float* to) const {
    const index_t begin = chunk * step_block_, steps = std::min(step_block_, steps_ - begin);
    const index_t skipped = begin * kernels_.depth_per_step,
                  depth = std::min(steps * kernels_.depth_per_step, depth_ - skipped);
    from += first * line_stride + (depth_begin_ + skipped) * depth_stride;
    const index_t end = std::min(lines, (group + 1) * panels_per_task * width);
    for (index_t line = group * panels_per_task * width; line < end; line += width)
      pack(from + line * line_stride, line_stride, depth_stride, std::min(width, lines - line), depth,
           to + line * steps_ + begin * width);
  }

  void multiply() {
    // Large tiles read the panels less often; small ones keep all cores busy to the end.
    index_t height = workspace::tile_rows / set_.rows, width = workspace::tile_cols / set_.cols;
    const index_t panels_a = ceil_div(rows_, set_.rows), panels_b = ceil_div(cols_, set_.cols);
    while (matrices_ * ceil_div(panels_a, height) * ceil_div(panels_b, width) < 24 && height * width > 1) {
      if (width * set_.cols > height * set_.rows && width > 1)
        width = ceil_div(width, 2);
      else
        height = ceil_div(height, 2);
    }
    const index_t down = ceil_div(panels_a, height), across = ceil_div(panels_b, width);
    for_tasks(matrices_ * down * across, [&](index_t task, int worker) {
      // Down the columns of tiles: a thread's next tile mostly has the same panels of B, which its cache still holds.
      // A symmetric product's columns become shorter, and each ends at the diagonal: the last tasks are small ones.
      const index_t q = task / (down * across), i = down - 1 - task % down, j = task / down % across;
      const index_t row = i * height * set_.rows, col = j * width * set_.cols;
      const index_t rows = std::min(height * set_.rows, rows_ - row), cols = std::min(width * set_.cols, cols_ - col);
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
    constexpr bool is_float = std::is_same_v<E, float>;
    float* sums = scratch;
    index_t sums_stride = workspace::tile_cols;
    if constexpr (is_float) sums = d, sums_stride = p_.d.row_stride;

    // Where the sums start from: C, or what the parts of the depth before this one left in D.
    const bool first = depth_begin_ == 0;
    const float beta = first ? p_.beta : 1;
    const view<const E> start = first ? p_.c : as_const(p_.d);
    const float* c = sums;
    index_t c_stride = sums_stride;
    if (beta != 0) {
      const E* const from = start.base(matrix_ + q) + top * start.row_stride + left * start.col_stride;
      if (is_float && start.col_stride == 1)
        c = reinterpret_cast<const float*>(from), c_stride = start.row_stride;
      else
        c = scratch, c_stride = workspace::tile_cols, gather(from, start, rows, cols, diagonal, scratch);
    }

    const float *const a = memory_.a() + q * a_size() + row * steps_, *const b =
                                                                          memory_.b() + q * b_size() + col * steps_;
    for (index_t s = 0; s == 0 || s < steps_; s += step_block_) {
      const index_t steps = std::min(step_block_, steps_ - s);
      for (index_t i = 0; i < rows; i += set_.rows)
        for (index_t j = 0; j < cols && diagonal + i - j + set_.rows - 1 > 0; j += set_.cols) {
          const float* const panel = b + j * steps_ + s * set_.cols;
          // What would otherwise come from memory just when it is needed: in a row's first micro-tile the next panel of
          // A; in the others the next block of this panel of B, half of it by each of two rows.
          const bool more = s + step_block_ < steps_;
          const float* const next = j == 0 && i + set_.rows < rows ? a + (i + set_.rows) * steps_ + s * set_.rows
                                    : more ? panel + (steps + i / set_.rows % 2 * (steps / 2)) * set_.cols
                                           : panel;
          kernels_.multiply(steps, a + i * steps_ + s * set_.rows, panel, p_.alpha, s == 0 ? beta : 1,
                            s == 0 ? c + i * c_stride + j : sums + i * sums_stride + j, s == 0 ? c_stride : sums_stride,
                            sums + i * sums_stride + j, sums_stride, std::min(set_.rows, rows - i),
                            std::min(set_.cols, cols - j), diagonal + i - j, next);
        }
    }
    if constexpr (!is_float)
      for (index_t i = 0; i < rows; ++i)
        set_.narrow(sums + i * sums_stride, d + i * p_.d.row_stride, std::min(cols, diagonal + i));
    if (p_.symmetric && last_)
      kernels_.transpose(sums, sums_stride, p_.d.base(matrix_ + q) + left * p_.d.row_stride + top, p_.d.row_stride,
                         rows, cols, diagonal - 1);
  }

  void gather(const E* from, const view<const E>& v, index_t rows, index_t cols, index_t diagonal, float* to) const {
    for (index_t i = 0; i < rows; ++i, from += v.row_stride, to += workspace::tile_cols) {
      const index_t count = std::min(cols, diagonal + i);
      if (std::is_same_v<E, bfloat16> && v.col_stride == 1)
        set_.widen(reinterpret_cast<const bfloat16*>(from), to, count);
      else
        for (index_t j = 0; j < count; ++j) to[j] = from[j * v.col_stride];
    }
  }

  const kernel_set& set_;
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

}  // namespace matopt::simd
#undef MATOPT_SIMD_INLINE
