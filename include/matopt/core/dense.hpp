// dense<T>: a matrix that owns its memory, row-major, on the host. For metrics and compression, where the results are
// new.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

#include "view.hpp"

namespace MATOPT_NAMESPACE {

template <class T>
class dense {
 public:
  dense() = default;
  dense(index_t rows, index_t cols) : rows_(rows), cols_(cols), data_(static_cast<std::size_t>(rows * cols)) {}
  // A converting copy of one matrix in host memory.
  template <class U>
  explicit dense(const view<U>& v) : dense(v.rows, v.cols) {
    for (index_t i = 0; i < rows_; ++i)
      for (index_t j = 0; j < cols_; ++j) (*this)(i, j) = static_cast<T>(v(i, j));
  }

  index_t rows() const { return rows_; }
  index_t cols() const { return cols_; }
  T& operator()(index_t i, index_t j) { return data_[static_cast<std::size_t>(i * cols_ + j)]; }
  const T& operator()(index_t i, index_t j) const { return data_[static_cast<std::size_t>(i * cols_ + j)]; }
  matopt::view<T> view() { return row_major(data_.data(), rows_, cols_); }
  matopt::view<const T> view() const { return row_major(data_.data(), rows_, cols_); }

 private:
  index_t rows_ = 0, cols_ = 0;
  std::vector<T> data_;
};

}  // namespace MATOPT_NAMESPACE
