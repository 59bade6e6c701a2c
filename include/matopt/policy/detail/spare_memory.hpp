// spare_memory: the memory of a matrix per member of the bucket that nobody reads any more, as scratch of another type.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <type_traits>

#include "../../core/pass.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class U>
class spare_memory {
 public:
  spare_memory() = default;  // none
  // The memory of matrices as a pass gives them, one after the other and without gaps. Other matrices have none to
  // spare: what lies between their elements may belong to somebody.
  explicit spare_memory(view<U> dead) : dead_(dead), size_(gapless(dead) ? dead.batch_stride * bytes_of<U> : 0) {}

  template <class T>
  bool fits(index_t rows, index_t cols) const {
    return size_ % bytes_of<T> == 0 && used_ + bytes<T>(rows, cols) <= size_;
  }
  // One matrix per member from here if it fits, else `batch` of them from the pass.
  template <class T, class E>
  view<T> take(E& e, index_t batch, index_t rows, index_t cols, bool column_major = false) {
    if (!fits<T>(rows, cols)) return e.template take_batch<T>(batch, rows, cols, column_major);
    auto* const first = reinterpret_cast<std::byte*>(dead_.data);
    T* const at = reinterpret_cast<T*>(first ? first + used_ : nullptr);
    used_ += bytes<T>(rows, cols);
    const index_t stride = size_ / bytes_of<T>;
    return column_major ? col_major(at, rows, cols, dead_.batch, stride)
                        : row_major(at, rows, cols, dead_.batch, stride);
  }

 private:
  template <class T>
  static constexpr index_t bytes_of = static_cast<index_t>(sizeof(T));
  // Up to where the next one may begin, as in an arena.
  template <class T>
  static index_t bytes(index_t rows, index_t cols) {
    constexpr index_t line = 64;
    return (rows * cols * bytes_of<T> + line - 1) / line * line;
  }
  static bool gapless(const view<U>& v) {
    const bool dense = (v.col_stride == 1 && v.row_stride == v.cols) || (v.row_stride == 1 && v.col_stride == v.rows);
    const index_t between = v.batch_stride - v.rows * v.cols;
    return !v.table && dense && between >= 0 && between * bytes_of<U> < 64;
  }
  view<U> dead_{};
  index_t size_ = 0, used_ = 0;  // bytes of a member
};

// Members first, first + 1, ... of what spare_memory or the pass gave.
template <class T>
view<T> members(view<T> v, index_t first, index_t count, index_t of) {
  return v.batch == of ? v.matrices(first, count) : v.matrices(0, count);
}

}  // namespace MATOPT_NAMESPACE::detail
