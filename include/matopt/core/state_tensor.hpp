// state_tensor: one tensor of state of one parameter, in the backend's memory; it may have no elements.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <string>

#include "index.hpp"
#include "types.hpp"

namespace MATOPT_NAMESPACE {

struct state_tensor {
  std::string name;
  element_type type;
  void* data;
  index_t rows, cols, row_stride, col_stride;
};

inline std::size_t bytes_of(const state_tensor& t) {
  return static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type);
}

// copy(where the element is in dense row-major order, where it is in the tensor's own, its size), all in bytes
template <class Copy>
void for_each_element(const state_tensor& t, Copy copy) {
  const std::size_t size = size_of(t.type);
  for (index_t i = 0; i < t.rows; ++i)
    for (index_t j = 0; j < t.cols; ++j)
      copy(static_cast<std::size_t>(i * t.cols + j) * size,
           static_cast<std::size_t>(i * t.row_stride + j * t.col_stride) * size, size);
}

}  // namespace MATOPT_NAMESPACE
