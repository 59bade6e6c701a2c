// Memory for products, taken once: packed operands, shared by all threads, and two tiles per thread.
//
// An operand that does not fit is packed in parts. The size is a compromise: 20 MiB hold one operand of 2048 x 2560 in
// float; pages that no product touches cost nothing. Large pages, where the system gives them, save the walks through
// page tables that reading panels would need.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <memory>
#include <new>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "../core/index.hpp"

namespace MATOPT_NAMESPACE::simd {

class workspace {
 public:
  static constexpr index_t operand_size = 5 << 20;  // floats
  // Whole panels of 14 lines, and whole cache lines of a row of the mirrored tile.
  static constexpr index_t tile_rows = 112, tile_cols = 128;

  explicit workspace(int threads) {
    const auto floats = static_cast<std::size_t>(2 * operand_size + threads * 2 * tile_rows * tile_cols);
    memory_.reset(static_cast<float*>(::operator new(floats * sizeof(float), alignment)));
#ifdef __linux__
    madvise(memory_.get(), floats * sizeof(float), MADV_HUGEPAGE);  // a wish: a refusal changes nothing
#endif
  }

  float* a() { return memory_.get(); }
  float* b() { return memory_.get() + operand_size; }
  float* tile(int thread) { return memory_.get() + 2 * operand_size + thread * 2 * tile_rows * tile_cols; }
  float* gathered(int thread) { return tile(thread) + tile_rows * tile_cols; }  // a tile of C

 private:
  static constexpr std::align_val_t alignment{std::size_t{2} << 20};
  struct release {
    void operator()(float* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<float, release> memory_;
};

}  // namespace MATOPT_NAMESPACE::simd
