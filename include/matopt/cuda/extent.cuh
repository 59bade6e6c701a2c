// How the elements of a batch are dealt out to threads: by packs of neighbouring elements of a line.
#pragma once
#include <algorithm>

#include "../core/index.hpp"

namespace matopt::cuda {

inline constexpr int pack_size = 4, block_size = 256;
inline constexpr index_t most_batch = 65535;  // of one launch: the limit of gridDim.y

struct extent {
  index_t lines, length, batch;

  MATOPT_HD index_t packs_per_line() const { return (length + pack_size - 1) / pack_size; }
  MATOPT_HD index_t packs() const { return lines * packs_per_line(); }
};

// Pack number `at` of a matrix: f(line, first element, count).
template <class F>
MATOPT_HD void with_pack(const extent& e, index_t at, F f) {
  const index_t per_line = e.packs_per_line();
  const index_t line = e.lines == 1 ? 0
                       : (at >> 31) == 0
                           ? static_cast<index_t>(static_cast<unsigned>(at) / static_cast<unsigned>(per_line))
                           : at / per_line;
  const index_t j = (at - line * per_line) * pack_size, left = e.length - j;
  f(line, j, left < pack_size ? static_cast<int>(left) : pack_size);
}

}  // namespace matopt::cuda
