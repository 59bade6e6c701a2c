// How a tensor is a matrix, or a stack of matrices: fan-out x fan-in, by strides.
//
//   (m, n)            m x n
//   (m, c, kh, kw)    m x (c kh kw), a convolution; other numbers of dimensions in the same way
//   (n)               n x 1, for rules that step vectors
//   ()                1 x 1
//   (b, m, ...)       b matrices of m x (...), if the group says `stacked`
//
// A tensor whose strides do not make such a matrix (a convolution in channels_last) has none; it is copied.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "../../core/error.hpp"
#include "../../core/view.hpp"

namespace MATOPT_NAMESPACE::detail {

struct torch_matrix {
  index_t rows = 1, cols = 1, row_stride = 1, col_stride = 1, batch = 1, batch_stride = 0;

  template <class T>
  view<T> at(void* data) const {
    return {static_cast<T*>(data), rows, cols, row_stride, col_stride, batch, batch_stride};
  }
};

inline std::string text(at::IntArrayRef sizes) {
  std::string s = "(";
  for (const auto n : sizes) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
  return s + ")";
}

// Dimensions [first, last) as one: their number of elements, and the stride if there is one.
struct joined_dimensions {
  index_t size = 1;
  std::optional<index_t> stride = 1;
};
inline joined_dimensions join_dimensions(at::IntArrayRef sizes, at::IntArrayRef strides, std::size_t first,
                                         std::size_t last) {
  joined_dimensions out;
  index_t next = 0;
  for (std::size_t i = last; i-- > first;) {
    if (sizes[i] != 1) {
      if (out.size == 1)
        out.stride = strides[i];
      else if (strides[i] != next)
        out.stride.reset();
      next = strides[i] * sizes[i];
    }
    out.size *= sizes[i];
  }
  return out;
}

// The matrix of a tensor of these sizes and strides, or none.
inline std::optional<torch_matrix> matrix_of(at::IntArrayRef sizes, at::IntArrayRef strides, bool stacked) {
  const std::size_t row = stacked ? 1 : 0;
  torch_matrix m;
  if (sizes.size() <= row) return m;
  const auto rest = join_dimensions(sizes, strides, row + 1, sizes.size());
  if (!rest.stride) return {};
  m.rows = sizes[row], m.cols = rest.size, m.col_stride = *rest.stride;
  m.row_stride = m.rows == 1 ? m.cols * m.col_stride : strides[row];
  if (stacked) m.batch = sizes[0], m.batch_stride = strides[0];
  return m;
}

// The strides of a tensor without gaps, the last dimension innermost.
inline std::vector<int64_t> dense_strides(at::IntArrayRef sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (std::size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(1, sizes[i]);
  return strides;
}
inline bool same_strides(at::IntArrayRef sizes, at::IntArrayRef a, at::IntArrayRef b) {
  for (std::size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] > 1 && a[i] != b[i]) return false;
  return true;
}

// The type that a step computes in: double for double, float for float and for the types of 16 bits.
inline at::ScalarType compute_type_of(const std::string& name, const at::Tensor& t) {
  if (t.layout() != at::kStrided) throw bad_value("\"" + name + "\"", "sparse", "a dense tensor");
  if (t.key_set().has(c10::DispatchKey::Python))  // its memory is somewhere else
    throw bad_value("\"" + name + "\"", "of a class that stands for other tensors, as DTensor does",
                    "a plain tensor; of a DTensor that is not sharded, its to_local()");
  switch (t.scalar_type()) {
    case at::kDouble:
      return at::kDouble;
    case at::kFloat:
    case at::kBFloat16:
    case at::kHalf:
      return at::kFloat;
    default:
      throw bad_value("type of \"" + name + '"', at::toString(t.scalar_type()), "Float, Double, BFloat16 or Half");
  }
}

}  // namespace MATOPT_NAMESPACE::detail
