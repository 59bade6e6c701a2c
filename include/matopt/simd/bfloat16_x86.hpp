// Products of bfloat16 by the instructions that x86 processors have for them: pairs (AVX512-BF16), and tiles (AMX).
//
// Highway 1.0 knows neither. The functions name their instructions themselves, so that no flag is needed; kernels.hpp
// asks the processor before it offers them. Both instructions take denormal numbers as 0, and so does narrowing here.
// Included by kernels.hpp, after the kernels for AVX-512, whose packing it uses.
#pragma once
#include <immintrin.h>

#include "kernel_set.hpp"

#define MATOPT_SIMD_BF16 __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")))
#define MATOPT_SIMD_AMX __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,amx-tile,amx-bf16")))

namespace matopt::simd::x86 {
inline constexpr index_t lanes = 16;

// --- what both have ---

MATOPT_SIMD_BF16 inline __m512 widened(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
MATOPT_SIMD_BF16 inline __m256i narrowed(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

MATOPT_SIMD_BF16 inline void finish(const float* sums, index_t sums_stride, float alpha, float beta, const bfloat16* c,
                                    index_t c_stride, bfloat16* d, index_t d_stride, index_t rows, index_t cols,
                                    index_t diagonal) {
  const __m512 by = _mm512_set1_ps(alpha), old = _mm512_set1_ps(beta);
  for (index_t i = 0; i < rows; ++i, sums += sums_stride, c += c_stride, d += d_stride) {
    const index_t count = diagonal + i < cols ? diagonal + i : cols;
    index_t j = 0;
    for (; j + 2 * lanes <= count; j += 2 * lanes) {
      __m512 left = _mm512_mul_ps(by, _mm512_loadu_ps(sums + j)),
             right = _mm512_mul_ps(by, _mm512_loadu_ps(sums + j + lanes));
      if (beta != 0) {
        left = _mm512_fmadd_ps(old, widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(c + j))), left);
        right =
            _mm512_fmadd_ps(old, widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(c + j + lanes))), right);
      }
      _mm512_storeu_si512(d + j, (__m512i)_mm512_cvtne2ps_pbh(right, left));
    }
    for (; j < count; j += lanes) {
      const auto some = static_cast<__mmask16>(count - j < lanes ? (1U << (count - j)) - 1U : 0xffffU);
      __m512 y = _mm512_mul_ps(by, _mm512_maskz_loadu_ps(some, sums + j));
      if (beta != 0) y = _mm512_fmadd_ps(old, widened(_mm256_maskz_loadu_epi16(some, c + j)), y);
      _mm256_mask_storeu_epi16(d + j, some, narrowed(y));
    }
  }
}

// --- pairs ---

inline constexpr index_t pair_rows = 14, pair_cols = 32;

MATOPT_SIMD_BF16 inline void multiply_pairs(index_t steps, const float* __restrict a, const float* __restrict b, float,
                                            float beta, const float*, index_t, float* sums, index_t stride, index_t,
                                            index_t, index_t, const float* next) {
  __m512 sum[pair_rows][2];
  if (beta == 0) {
#pragma GCC unroll 16
    for (index_t i = 0; i < pair_rows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  } else {
#pragma GCC unroll 16
    for (index_t i = 0; i < pair_rows; ++i)
      sum[i][0] = _mm512_loadu_ps(sums + i * stride), sum[i][1] = _mm512_loadu_ps(sums + i * stride + lanes);
  }
  for (index_t s = 0; s < steps; ++s, a += pair_rows, b += pair_cols, next += 16) {
    fetch_ahead<pair_rows, pair_cols>(a, b, next);
    const auto left = (__m512bh)_mm512_load_ps(b), right = (__m512bh)_mm512_load_ps(b + lanes);
#pragma GCC unroll 16
    for (index_t i = 0; i < pair_rows; ++i) {
      const auto x = (__m512bh)_mm512_set1_ps(a[i]);
      sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, left);
      sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, right);
    }
  }
#pragma GCC unroll 16
  for (index_t i = 0; i < pair_rows; ++i)
    _mm512_storeu_ps(sums + i * stride, sum[i][0]), _mm512_storeu_ps(sums + i * stride + lanes, sum[i][1]);
}

// --- tiles ---
//
// A micro-tile is 2 x 2 tiles of 16 x 16 sums. A step of the tiles is 32 deep, 16 of a panel's: there A's panel holds
// [line][32 elements]; B's is that of pairs, which is the order that a tile wants.

inline constexpr index_t tile_edge = 16, amx_edge = 2 * tile_edge, amx_steps = 16, amx_depth = 32;

// What LDTILECFG reads.
struct alignas(64) tile_shapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
inline constexpr tile_shapes whole_tiles{};

MATOPT_SIMD_AMX inline void begin_tiles() { _tile_loadconfig(&whole_tiles); }
MATOPT_SIMD_AMX inline void end_tiles() { _tile_release(); }

MATOPT_SIMD_AMX inline void multiply_tiles(index_t steps, const float* __restrict a, const float* __restrict b, float,
                                           float beta, const float*, index_t, float* sums, index_t stride, index_t,
                                           index_t, index_t, const float* next) {
  float* const lower = sums + tile_edge * stride;
  const auto row = static_cast<std::size_t>(stride) * sizeof(float);
  if (beta == 0) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, row);
    _tile_loadd(1, sums + tile_edge, row);
    _tile_loadd(2, lower, row);
    _tile_loadd(3, lower + tile_edge, row);
  }
  for (index_t s = 0; s < steps; s += amx_steps, a += amx_steps * amx_edge, b += amx_steps * amx_edge) {
    for (index_t i = 0; i < amx_steps; ++i, next += 16) __builtin_prefetch(next, 0, 2);
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 128);
    _tile_loadd(5, a + tile_edge * amx_steps, 64);
    _tile_loadd(7, b + tile_edge, 128);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + tile_edge, row);
  _tile_stored(2, lower, row);
  _tile_stored(3, lower + tile_edge, row);
}

MATOPT_SIMD_BF16 inline void pack_tiles_a(const bfloat16* from, index_t line_stride, index_t depth_stride,
                                          index_t lines, index_t depth, float* panel) {
  for (index_t k = 0; k < depth; k += amx_depth, panel += amx_steps * amx_edge) {
    const index_t count = depth - k < amx_depth ? depth - k : amx_depth;
    auto* const to = reinterpret_cast<bfloat16*>(panel);
    const bfloat16* const at = from + k * depth_stride;
    if (depth_stride == 1) {
      const auto some = static_cast<__mmask32>(count < amx_depth ? (std::uint32_t{1} << count) - 1U : 0xffffffffU);
      for (index_t i = 0; i < amx_edge; ++i)
        _mm512_store_si512(to + i * amx_depth,
                           _mm512_maskz_loadu_epi16(some, at + (i < lines ? i : lines - 1) * line_stride));
    } else if (line_stride == 1 && lines == amx_edge && count == amx_depth) {
      N_AVX3::transpose<bfloat16>(at, depth_stride, to, amx_depth, amx_depth, amx_edge, index_t{1} << 40);
    } else {
      for (index_t i = 0; i < amx_edge; ++i)
        for (index_t p = 0; p < amx_depth; ++p)
          to[i * amx_depth + p] =
              p < count ? at[(i < lines ? i : lines - 1) * line_stride + p * depth_stride] : bfloat16(0.0F);
    }
  }
}
inline void pack_tiles_b(const bfloat16* from, index_t line_stride, index_t depth_stride, index_t lines, index_t depth,
                         float* panel) {
  N_AVX3::pack_pairs<amx_edge>(from, line_stride, depth_stride, lines, depth, panel);
  const index_t steps = (depth + 1) / 2, missing = (amx_steps - steps % amx_steps) % amx_steps;
  std::memset(panel + steps * amx_edge, 0, static_cast<std::size_t>(missing * amx_edge) * sizeof(float));
}

inline constexpr kernel_set avx512_bf16{
    .name = "AVX-512; bfloat16 by AVX512-BF16",
    .of_float = N_AVX3::kernels.of_float,
    .of_bfloat16 = {.rows = pair_rows,
                    .cols = pair_cols,
                    .steps = 512,
                    .depth_per_step = 2,
                    .pack_a = N_AVX3::pack_pairs<pair_rows>,
                    .pack_b = N_AVX3::pack_pairs<pair_cols>,
                    .multiply = multiply_pairs,
                    .transpose = N_AVX3::transpose<bfloat16>,
                    .finish = finish},
    .bfloat16_speed = 1.7,
};
inline constexpr kernel_set amx{
    .name = "AVX-512; bfloat16 by AMX tiles",
    .of_float = N_AVX3::kernels.of_float,
    .of_bfloat16 = {.rows = amx_edge,
                    .cols = amx_edge,
                    .steps = 512,
                    .depth_per_step = 2,
                    .step_multiple = amx_steps,
                    .pack_a = pack_tiles_a,
                    .pack_b = pack_tiles_b,
                    .multiply = multiply_tiles,
                    .transpose = N_AVX3::transpose<bfloat16>,
                    .finish = finish,
                    .begin = begin_tiles,
                    .end = end_tiles},
    .bfloat16_speed = 3,
};

}  // namespace matopt::simd::x86
#undef MATOPT_SIMD_BF16
#undef MATOPT_SIMD_AMX
