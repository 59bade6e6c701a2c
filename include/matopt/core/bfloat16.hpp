// bfloat16 storage: the upper half of a float. Arithmetic happens in float; this type only holds and converts.
//
// Conversion from float rounds to nearest, ties to even. NaN stays NaN.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstdint>

#include "index.hpp"

namespace MATOPT_NAMESPACE {

struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  MATOPT_HD constexpr explicit bfloat16(float x) : bits(round(std::bit_cast<std::uint32_t>(x))) {}
  MATOPT_HD constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

 private:
  MATOPT_HD static constexpr std::uint16_t round(std::uint32_t x) {
    if ((x & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((x >> 16) | 0x40U);  // keep NaN a NaN
    return static_cast<std::uint16_t>((x + 0x7fffU + ((x >> 16) & 1U)) >> 16);
  }
};

}  // namespace MATOPT_NAMESPACE
