// One tile of a product, single-threaded, through Eigen's packed kernel with packing buffers that the caller owns:
// Eigen's public product takes them from the heap on each call.
#pragma once
#include <Eigen/Core>

#include "../core/view.hpp"

namespace matopt::detail {

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

}  // namespace matopt::detail
