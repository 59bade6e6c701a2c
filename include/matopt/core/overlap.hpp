// overlap(a, b): whether two single-matrix views share a byte. Column blocks of one row-major matrix interleave without
// sharing.
#pragma once
#include <cstdint>

#include "view.hpp"

namespace matopt::detail {

// The view as runs of bytes in rising order: `count` runs of `length` bytes, `stride` bytes apart.
struct byte_runs {
  std::uintptr_t first = 0, length = 0, stride = 0, count = 0;
  std::uintptr_t begin(std::uintptr_t i) const { return first + i * stride; }
  std::uintptr_t end(std::uintptr_t i) const { return begin(i) + length; }
};

template <class T>
byte_runs runs_of(const view<T>& v) {
  const bool rows_outer = v.row_stride >= v.col_stride;
  const index_t outer = rows_outer ? v.rows : v.cols, outer_stride = rows_outer ? v.row_stride : v.col_stride;
  const index_t inner = rows_outer ? v.cols : v.rows, inner_stride = rows_outer ? v.col_stride : v.row_stride;
  // Elements between those of a strided run count as its own.
  return {reinterpret_cast<std::uintptr_t>(v.data),
          static_cast<std::uintptr_t>((inner - 1) * inner_stride + 1) * sizeof(T),
          static_cast<std::uintptr_t>(outer_stride) * sizeof(T), static_cast<std::uintptr_t>(outer)};
}

template <class T, class U>
bool overlap(const view<T>& a, const view<U>& b) {
  const byte_runs x = runs_of(a), y = runs_of(b);
  std::uintptr_t i = 0, j = 0;
  while (i < x.count && j < y.count) {
    if (x.begin(i) < y.end(j) && y.begin(j) < x.end(i)) return true;
    // Jump over the runs that end before the other view's next one begins.
    if (x.end(i) <= y.begin(j))
      i += x.stride && y.begin(j) > x.end(i) ? 1 + (y.begin(j) - x.end(i)) / x.stride : 1;
    else
      j += y.stride && x.begin(i) > y.end(j) ? 1 + (x.begin(i) - y.end(j)) / y.stride : 1;
  }
  return false;
}

}  // namespace matopt::detail
