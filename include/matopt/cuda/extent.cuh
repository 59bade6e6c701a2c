// How the elements of a batch are dealt out to threads: by packs of neighbouring elements of a line.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>

#include "../core/index.hpp"
#include "argument.cuh"

namespace MATOPT_NAMESPACE::cuda {

inline constexpr int pack_size = 4, block_size = 256;
inline constexpr index_t most_batch = 65535;  // of one launch: the limit of gridDim.y

struct extent {
  index_t lines, length, batch;

  MATOPT_HD index_t packs_per_line() const { return (length + pack_size - 1) / pack_size; }
  MATOPT_HD index_t packs() const { return lines * packs_per_line(); }
};

// How many packs a thread takes at a time.
template <class A>
inline constexpr int packs_at_once = sizeof(A) <= 4 ? 2 : 1;

// Packs number at, at + apart, ... of a matrix, as far as they lie before `end`.
template <int U>
__device__ spots<pack_size, U> packs_from(const extent& e, index_t at, index_t apart, index_t end) {
  spots<pack_size, U> s;
  const index_t per_line = e.packs_per_line();
  s.whole = true;
#pragma unroll
  for (int u = 0; u < U; ++u, at += apart) {
    s.line[u] = e.lines == 1      ? 0
                : (at >> 31) == 0 ? static_cast<index_t>(static_cast<unsigned>(at) / static_cast<unsigned>(per_line))
                                  : at / per_line;
    s.j[u] = (at - s.line[u] * per_line) * pack_size;
    const index_t left = at < end ? e.length - s.j[u] : 0;
    s.count[u] = left < pack_size ? static_cast<int>(left) : pack_size;
    s.whole = s.whole && s.count[u] == pack_size;
  }
  return s;
}

// The same of one line, `at` counted from its beginning.
template <int U>
__device__ spots<pack_size, U> packs_of_line(const extent& e, index_t line, index_t at, index_t apart) {
  spots<pack_size, U> s;
  s.whole = true;
#pragma unroll
  for (int u = 0; u < U; ++u, at += apart) {
    s.line[u] = line, s.j[u] = at * pack_size;
    const index_t left = e.length - s.j[u];
    s.count[u] = left < pack_size ? (left > 0 ? static_cast<int>(left) : 0) : pack_size;
    s.whole = s.whole && s.count[u] == pack_size;
  }
  return s;
}

}  // namespace MATOPT_NAMESPACE::cuda
