// check_view: refuses a view that no matrix of the caller's can be.
#pragma once
#include <cstdint>
#include <string>

#include "error.hpp"
#include "extent.hpp"
#include "view.hpp"

namespace matopt::detail {

template <class T>
std::string text(const view<T>& v) {
  return std::to_string(v.rows) + "x" + std::to_string(v.cols) + " (strides " + std::to_string(v.row_stride) + ", " +
         std::to_string(v.col_stride) + "; batch " + std::to_string(v.batch) + ")" + (v.empty() ? ", null" : "");
}

template <class T>
void check_aligned(const std::string& what, const T* p) {
  if (reinterpret_cast<std::uintptr_t>(p) % alignof(T) != 0)
    throw bad_value(what, "an address that is no multiple of " + std::to_string(alignof(T)), "aligned to its elements");
}

// Throws bad_value unless the view has memory, is at least 1x1, and reaches each element once.
template <class T>
void check_view(const std::string& what, const view<T>& v) {
  if (!addressable(v)) throw bad_value(what, text(v), "a view whose bytes can be addressed");
  const bool rows_outer = v.row_stride >= v.col_stride;
  const index_t inner_span = rows_outer ? (v.cols - 1) * v.col_stride : (v.rows - 1) * v.row_stride;
  const index_t outer_stride = rows_outer ? v.row_stride : v.col_stride, outer_count = rows_outer ? v.rows : v.cols;
  const bool distinct = (v.rows == 1 || v.row_stride > 0) && (v.cols == 1 || v.col_stride > 0) &&
                        (outer_count <= 1 || outer_stride > inner_span) && (v.batch <= 1 || v.batch_stride != 0);
  if (v.table || !v.data || v.rows < 1 || v.cols < 1 || v.batch < 1 || !distinct)
    throw bad_value(what, text(v),
                    "a view that is not null, at least 1x1, with positive strides that reach each element once");
  check_aligned(what, v.data);
}

}  // namespace matopt::detail
