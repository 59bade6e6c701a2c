// float16 storage: IEEE binary16, 11 significant bits, up to 65504. Arithmetic happens in float; this type only holds
// and converts.
//
// Conversion from float rounds to nearest, ties to even; beyond the largest number it gives infinity. NaN stays NaN.
#pragma once
#include <bit>
#include <cstdint>

#include "index.hpp"

namespace matopt {

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
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16, rest = bits & 0x7fffU;
    if (rest >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | ((rest & 0x3ffU) << 13));
    if (rest >= 0x400U) return std::bit_cast<float>(sign | ((rest << 13) + 0x38000000U));
    const float subnormal = static_cast<float>(rest) * 0x1p-24F;  // exact
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
#endif
  }

 private:
  MATOPT_HD static constexpr std::uint16_t from_float(float x) {
#if defined(__CUDA_ARCH__)
    std::uint16_t y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x), magnitude = u & 0x7fffffffU;
    const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000U);
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // 65520 and more
    if (magnitude < 0x38800000U) {  // below 2^-14: a multiple of 2^-24, which adding 1/2 rounds to
      const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
      return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U));
    }
    const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
#endif
  }
};

}  // namespace matopt
