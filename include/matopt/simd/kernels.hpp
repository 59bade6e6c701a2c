// Compiles kernels.inc for every processor target and says which of them run here. Needs Highway, and libhwy to link.
//
// SPDX-License-Identifier: MIT
#pragma once
#ifdef MATOPT_HIGHWAY
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "kernel_set.hpp"

namespace MATOPT_NAMESPACE::simd {

// These two are compiled for no target, so that they can be inlined into functions for any.

// Asks for the lines of a micro-tile, which are written, and perhaps read, after all the steps.
template <index_t Cols>
[[gnu::always_inline]] inline void fetch_tile(const float* at, index_t stride, index_t rows) {
  for (index_t i = 0; i < rows; ++i, at += stride) __builtin_prefetch(at), __builtin_prefetch(at + Cols - 1);
}

// Asks for the panels that the steps reach soon, and for `next`: not into the first level, which is full. Vectors
// shorter than a cache line leave no time for more than that.
template <index_t Rows, index_t Cols>
[[gnu::always_inline]] inline void fetch_ahead(const float* a, const float* b, const float* next) {
  __builtin_prefetch(next, 0, 2);
  if constexpr (Cols == 32) {
    __builtin_prefetch(a + 16 * Rows);
    __builtin_prefetch(b + 8 * Cols);
    __builtin_prefetch(b + 8 * Cols + 16);
  }
}

}  // namespace MATOPT_NAMESPACE::simd

// The oldest targets have too few registers to be worth a kernel, and those after AVX-512's first version bring nothing
// that a product in float can use. Vectors of unknown length cannot be held in arrays.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "matopt/simd/kernels.inc"
#include <hwy/foreach_target.h>

#include "kernels.inc"

#if HWY_TARGETS & HWY_AVX3
#include "bfloat16_x86.inc"
#include "processor_x86.hpp"
#endif

#ifdef MATOPT_SIMD_COMPILED
#define MATOPT_SIMD_INLINE
#else
#define MATOPT_SIMD_INLINE inline
#endif

namespace MATOPT_NAMESPACE::simd {

MATOPT_SIMD_INLINE std::span<const kernel_set* const> kernel_sets() {
  struct table {
    const kernel_set* sets[8] = {};
    std::size_t count = 0;
    void add(bool runs, const kernel_set& set) {
      if (runs) sets[count++] = &set;
    }
    table() {
      [[maybe_unused]] const auto here = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
      const bool wide = here & HWY_AVX3, pairs = wide && x86::has_pairs(), slow = x86::pairs_are_slow();
      add(pairs && x86::has_tiles() && x86::may_use_tiles(), x86::amx);
      add(pairs && !slow, x86::avx512_bf16);
      add(wide, N_AVX3::kernels);
      add(pairs && slow, x86::avx512_bf16);
#endif
#if HWY_TARGETS & HWY_AVX2
      add(here & HWY_AVX2, N_AVX2::kernels);
#endif
#if HWY_TARGETS & HWY_NEON
      add(here & HWY_NEON, N_NEON::kernels);
#endif
#ifdef MATOPT_SIMD_EMULATE_PAIRS
#if HWY_TARGETS & HWY_AVX3
      add(wide, N_AVX3::kernels_with_pairs);
#endif
#if HWY_TARGETS & HWY_AVX2
      add(here & HWY_AVX2, N_AVX2::kernels_with_pairs);
#endif
#if HWY_TARGETS & HWY_NEON
      add(here & HWY_NEON, N_NEON::kernels_with_pairs);
#endif
#endif
    }
  };
  static const table t;
  return {t.sets, t.count};
}

MATOPT_SIMD_INLINE const char* why_not_faster() {
#if HWY_TARGETS & HWY_AVX3
  if (!(hwy::SupportedTargets() & HWY_AVX3)) return "the processor has no AVX-512";
  if (!x86::has_pairs()) return "the processor has no AVX512-BF16";
  if (x86::has_tiles() && !x86::may_use_tiles()) return "the system does not permit AMX";
  if (x86::has_tiles()) return "";
  return x86::pairs_are_slow() ? "the processor's AVX512-BF16 is slower than float, and it has no AMX" : "";
#else
  return "";
#endif
}

}  // namespace MATOPT_NAMESPACE::simd
#undef MATOPT_SIMD_INLINE
#endif
