// arena: carves views out of one block of memory. Without a block it only counts, so the same code sizes and places.
//
// A frame gives everything taken during its life back at its end; `peak` is what a block must hold.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>

#include "error.hpp"
#include "extent.hpp"

namespace MATOPT_NAMESPACE {

struct arena {
  static constexpr std::size_t alignment = 256;              // bytes; a cuBLAS-friendly start for every view
  static constexpr std::size_t most = std::size_t{1} << 61;  // bytes; no sum of two such sizes wraps around

  std::byte* base = nullptr;
  std::size_t top = 0, peak = 0;

  std::byte* bytes(std::size_t count) {
    if (count > most || top > most - count) throw out_of_memory("more bytes are wanted than can be addressed");
    std::byte* p = base ? base + top : nullptr;
    top += (count + alignment - 1) / alignment * alignment;
    peak = std::max(peak, top);
    return p;
  }

  // `batch` stacked matrices, each beginning on a 64-byte boundary.
  template <class T>
  view<T> take(index_t rows, index_t cols, index_t batch = 1, bool column_major = false) {
    constexpr index_t unit = static_cast<index_t>(64 / sizeof(T));
    const index_t stride = detail::sum(detail::product(rows, cols), unit - 1) / unit * unit;
    const index_t size = detail::product(detail::product(stride, batch), static_cast<index_t>(sizeof(T)));
    T* p = reinterpret_cast<T*>(bytes(static_cast<std::size_t>(size)));
    return column_major ? col_major(p, rows, cols, batch, stride) : row_major(p, rows, cols, batch, stride);
  }
};

struct arena_frame {
  explicit arena_frame(arena& a) : owner(a), top(a.top) {}
  arena_frame(const arena_frame&) = delete;
  arena_frame& operator=(const arena_frame&) = delete;
  ~arena_frame() { owner.top = top; }

  arena& owner;
  std::size_t top;
};

}  // namespace MATOPT_NAMESPACE
