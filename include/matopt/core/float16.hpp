// float16 storage: IEEE binary16, 11 significant bits, up to 65504. Arithmetic happens in float; this type only holds
// and converts.
//
// Conversion from float rounds to nearest, ties to even; beyond the largest number it gives infinity. NaN stays NaN.
// The host's conversions choose between numbers by masks, never by a branch, so that loops over them vectorise.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstdint>

#include "index.hpp"

namespace MATOPT_NAMESPACE {

struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  MATOPT_HD constexpr explicit float16(float x) : bits(from_float(x)) {}
  MATOPT_HD constexpr operator float() const {
#if defined(__CUDA_ARCH__)
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
    return y;
#else
    const std::uint32_t magnitude = bits & 0x7fffU, shifted = magnitude << 13;
    // A subnormal number is the difference of two normal ones, which loses nothing.
    const std::uint32_t subnormal =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(shifted + 0x38800000U) - 0x1p-14F);
    const std::uint32_t normal = shifted + 0x38000000U, special = shifted | 0x7f800000U;
    const std::uint32_t is_small = where_less(magnitude, 0x400U), finite = where_less(magnitude, 0x7c00U);
    const std::uint32_t value = (finite & ((is_small & subnormal) | (~is_small & normal))) | (~finite & special);
    return std::bit_cast<float>((static_cast<std::uint32_t>(bits & 0x8000U) << 16) | value);
#endif
  }

 private:
  // All bits set where a < b, both below 2^31.
  MATOPT_HD static constexpr std::uint32_t where_less(std::uint32_t a, std::uint32_t b) { return 0U - ((a - b) >> 31); }
  MATOPT_HD static constexpr std::uint16_t from_float(float x) {
#if defined(__CUDA_ARCH__)
    std::uint16_t y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x), magnitude = u & 0x7fffffffU;
    // Below 2^-14 a multiple of 2^-24, which adding 1/2 rounds to.
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
    const std::uint32_t normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
    const std::uint32_t special = 0x7c00U | (where_less(0x7f800000U, magnitude) & 0x200U);  // from 65520, and NaN
    const std::uint32_t is_small = where_less(magnitude, 0x38800000U), finite = where_less(magnitude, 0x477ff000U);
    const std::uint32_t value = (finite & ((is_small & subnormal) | (~is_small & normal))) | (~finite & special);
    return static_cast<std::uint16_t>(((u >> 16) & 0x8000U) | value);
#endif
  }
};

}  // namespace MATOPT_NAMESPACE
