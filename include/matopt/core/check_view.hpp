// check_view: refuses a view that no matrix of the caller's can be.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "error.hpp"
#include "extent.hpp"
#include "overlap.hpp"
#include "view.hpp"

namespace MATOPT_NAMESPACE::detail {

[[gnu::cold]] inline std::string text_of_view(index_t rows, index_t cols, index_t row_stride, index_t col_stride,
                                              index_t batch) {
  const std::pair<const char*, index_t> parts[] = {
      {"", rows}, {"x", cols}, {" (strides ", row_stride}, {", ", col_stride}, {"; batch ", batch}};
  std::string s;
  for (const auto& [before, number] : parts) s += before, s += std::to_string(number);
  return s + ")";
}
template <class T>
[[gnu::cold]] std::string text(const view<T>& v) {
  return text_of_view(v.rows, v.cols, v.row_stride, v.col_stride, v.batch) + (v.empty() ? ", null" : "");
}

// A view without elements, such as the empty shard of a matrix, has no memory to look at.
template <class T>
bool no_elements(const view<T>& v) {
  return v.rows == 0 || v.cols == 0 || v.batch == 0;
}

// What an error calls a view; it costs nothing until there is an error.
struct label {
  const char* kind;
  const std::string& of;
  operator std::string() const { return std::string(kind) + " of \"" + of + '"'; }
};

template <class T, class What>
void check_aligned(const What& what, const T* p) {
  if (reinterpret_cast<std::uintptr_t>(p) % alignof(T) != 0)
    throw bad_value(what, "an address that is no multiple of " + std::to_string(alignof(T)), "aligned to its elements");
}

// Throws bad_value unless the view is empty, or has memory and reaches each element of a matrix once. One that is only
// `read` may repeat elements by a stride of 0, as expanded tensors do.
template <class T, class What>
[[gnu::cold]] void check_view(const What& what, const view<T>& v, bool read = false) {
  if constexpr (!std::is_const_v<T>) return check_view<const T, What>(what, v, read);
  if (!addressable(v)) throw bad_value(what, text(v), "a view whose bytes can be addressed");
  const index_t least = read ? 0 : 1;
  const bool negative = v.rows < 0 || v.cols < 0 || v.batch < 0;
  const bool steps = (v.rows == 1 || v.row_stride >= least) && (v.cols == 1 || v.col_stride >= least) &&
                     (v.batch == 1 || read || v.batch_stride != 0);
  const bool legal =
      !v.table && !negative && (no_elements(v) || (v.data && steps && footprint_of(v.matrix(0)).nested()));
  if (!legal)
    throw bad_value(what, text(v),
                    std::string("a view that is not null, with positive strides that reach each element once") +
                        (read ? "; a stride of 0 repeats elements" : ""));
  if (!no_elements(v)) check_aligned(what, v.data);
}

}  // namespace MATOPT_NAMESPACE::detail
