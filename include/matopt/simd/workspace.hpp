// Memory for products, taken once: packed operands, shared by all threads, and one unfinished tile per thread.
//
// An operand that does not fit is packed in parts. The size is a compromise: 20 MiB hold one operand of 2048 x 2560 in
// float; pages that no product touches cost nothing.
#pragma once
#include <cstddef>
#include <memory>
#include <new>

#include "../core/index.hpp"

namespace matopt::simd {

class workspace {
 public:
  static constexpr index_t operand_size = 5 << 20;  // floats
  static constexpr index_t tile_rows = 84, tile_cols = 256;

  explicit workspace(int threads)
      : memory_(static_cast<float*>(::operator new(
            static_cast<std::size_t>(2 * operand_size + threads * tile_rows * tile_cols) * sizeof(float), alignment))) {
  }

  float* a() { return memory_.get(); }
  float* b() { return memory_.get() + operand_size; }
  float* tile(int thread) { return memory_.get() + 2 * operand_size + thread * tile_rows * tile_cols; }

 private:
  static constexpr std::align_val_t alignment{256};
  struct release {
    void operator()(float* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<float, release> memory_;
};

}  // namespace matopt::simd
