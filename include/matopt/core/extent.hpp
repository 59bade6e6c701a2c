// Products and sums of sizes that are >= 0, such as rows times stride. One that does not fit becomes the largest index,
// so that a caller's absurd number is refused by a comparison and never wraps around into one that looks legal.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "view.hpp"

namespace MATOPT_NAMESPACE::detail {

inline constexpr index_t largest_index = std::numeric_limits<index_t>::max();

constexpr index_t product(index_t a, index_t b) { return a > 0 && b > largest_index / a ? largest_index : a * b; }
constexpr index_t sum(index_t a, index_t b) { return b > largest_index - a ? largest_index : a + b; }

// How many elements lie between the first and the last of a view that is not empty.
template <class T>
constexpr index_t extent(const view<T>& v) {
  const auto reach = [](index_t count, index_t stride) {
    const index_t size = stride >= 0 ? stride : stride == -largest_index - 1 ? largest_index : -stride;
    return product(count - 1, size);
  };
  return sum(sum(reach(v.rows, v.row_stride), reach(v.cols, v.col_stride)), reach(v.batch, v.batch_stride));
}

// Whether memory of this machine could hold the view: its bytes are counted by an index_t.
template <class T>
constexpr bool addressable(const view<T>& v) {
  return v.rows < 1 || v.cols < 1 || v.batch < 1 || extent(v) < largest_index / static_cast<index_t>(sizeof(T));
}

}  // namespace MATOPT_NAMESPACE::detail
