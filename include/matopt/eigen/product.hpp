// One tile of a product, single-threaded, through Eigen's packed kernel with packing buffers that the caller owns:
// Eigen's public product takes them from the heap on each call.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "../core/bfloat16.hpp"
#include "../core/view.hpp"

namespace MATOPT_NAMESPACE::detail {

// Packing buffers of one thread, for tiles up to max_rows x max_cols.
template <class T>
class packing : public Eigen::internal::level3_blocking<T, T> {
 public:
  static constexpr index_t max_rows = 256, max_cols = 256, max_depth = 256;
  static constexpr std::size_t bytes = 2 * static_cast<std::size_t>(max_rows * max_depth) * sizeof(T);

  packing(std::byte* memory, index_t rows, index_t cols, index_t depth) {
    this->m_blockA = reinterpret_cast<T*>(memory);
    this->m_blockB = reinterpret_cast<T*>(memory) + max_rows * max_depth;
    this->m_mc = std::min(rows, max_rows);
    this->m_nc = std::min(cols, max_cols);
    this->m_kc = std::min(depth, max_depth);
  }
};

// D += alpha A B; D column-major, A and B with one unit stride.
template <class T>
void add_product(T alpha, const view<const T>& a, const view<const T>& b, const view<T>& d, std::byte* memory) {
  packing<T> blocks(memory, d.rows, d.cols, a.cols);
  const auto run = [&]<int OrderA, int OrderB>(std::integral_constant<int, OrderA>,
                                               std::integral_constant<int, OrderB>) {
    Eigen::internal::general_matrix_matrix_product<index_t, T, OrderA, false, T, OrderB, false, Eigen::ColMajor,
                                                   1>::run(d.rows, d.cols, a.cols, a.data,
                                                           OrderA == Eigen::ColMajor ? a.col_stride : a.row_stride,
                                                           b.data,
                                                           OrderB == Eigen::ColMajor ? b.col_stride : b.row_stride,
                                                           d.data, 1, d.col_stride, alpha, blocks, nullptr);
  };
  constexpr std::integral_constant<int, Eigen::ColMajor> col{};
  constexpr std::integral_constant<int, Eigen::RowMajor> row{};
  const bool a_col = a.row_stride == 1, b_col = b.row_stride == 1;
  if (a_col && b_col) run(col, col);
  if (a_col && !b_col) run(col, row);
  if (!a_col && b_col) run(row, col);
  if (!a_col && !b_col) run(row, row);
}

// D = alpha A B + beta C for one tile of at most max_edge x max_edge; D column-major.
template <class T>
struct tile_product {
  static constexpr index_t max_edge = packing<T>::max_rows;

  static void run(T alpha, const view<const T>& a, const view<const T>& b, T beta, const view<const T>& c,
                  const view<T>& d, std::byte* memory) {
    for (index_t j = 0; j < d.cols; ++j) {
      T* const y = d.data + j * d.col_stride;
      for (index_t i = 0; i < d.rows; ++i) y[i] = beta == T(0) ? T(0) : beta * c(i, j);
    }
    if (a.cols > 0) add_product(alpha, a, b, d, memory);
  }
};

// The same in float, through widened copies behind the packing buffers.
template <>
struct tile_product<bfloat16> {
  static constexpr index_t max_edge = 128, max_depth = 128;

  static void run(float alpha, const view<const bfloat16>& a, const view<const bfloat16>& b, float beta,
                  const view<const bfloat16>& c, const view<bfloat16>& d, std::byte* memory) {
    static_assert(packing<float>::bytes + (2 * max_depth + max_edge) * max_edge * sizeof(float) <=
                  packing<double>::bytes);
    float* const copies = reinterpret_cast<float*>(memory + packing<float>::bytes);
    const view<float> sums = col_major(copies, d.rows, d.cols);
    for (index_t j = 0; j < d.cols; ++j)
      for (index_t i = 0; i < d.rows; ++i) sums(i, j) = beta == 0 ? 0 : beta * c(i, j);
    for (index_t k = 0; k < a.cols; k += max_depth) {
      const index_t depth = std::min(max_depth, a.cols - k);
      const view<float> wide_a = col_major(copies + max_edge * max_edge, a.rows, depth),
                        wide_b = col_major(wide_a.data + max_edge * max_depth, depth, b.cols);
      widen(a.col_block(k, depth), wide_a), widen(b.row_block(k, depth), wide_b);
      add_product<float>(alpha, wide_a, wide_b, sums, memory);
    }
    for (index_t j = 0; j < d.cols; ++j)
      for (index_t i = 0; i < d.rows; ++i) d(i, j) = bfloat16(sums(i, j));
  }

 private:
  static void widen(const view<const bfloat16>& from, const view<float>& to) {
    for (index_t j = 0; j < to.cols; ++j)
      for (index_t i = 0; i < to.rows; ++i) to(i, j) = from(i, j);
  }
};

}  // namespace MATOPT_NAMESPACE::detail
