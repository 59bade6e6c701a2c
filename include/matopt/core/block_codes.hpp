// Codes of 8 bits for blocks of numbers: what a code means, and which one is nearest to a number.
//
// A matrix is taken as one line, row after row. Each block of it has one float, its scale s: the largest |x|, rounded
// up. A code stands for s times a number in [-1, 1]:
//
//   linear    q / 127, q = round(127 x / s), ties to even         error at most s / 254
//   dynamic   one of 256 values: 0, 1, and +-10^(i-6) (0.1 + 0.9 (j + 1/2) / 2^i), i = 0..6, j < 2^i; the nearest, of
//             two the lower. Error at most 0.00704 s, and a tenth of the value or less down to 3e-6 s
//   e4m3      e / 448, e = 448 x / s rounded to the 8-bit float of OCP, ties to even
//             error at most x / 16, or s / 458752
//
// linear is stored as a signed integer, dynamic as the place in the sorted table (the values are those of the signed map
// of bitsandbytes), e4m3 as OCP's bits. dynamic has no -1: a block whose extreme is negative comes back with -0.993 s.
// So linear and e4m3 give the same codes again for what they stand for, and dynamic may not. A block of zeros has s = 0
// and codes of 0. An entry that is not a number becomes 0, and one beyond the largest float counts as that.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>

#include "math.hpp"
#include "types.hpp"

namespace MATOPT_NAMESPACE {

enum class code_map { linear, dynamic, e4m3 };
constexpr auto enum_names(code_map) { return std::array<std::string_view, 3>{"linear", "dynamic", "e4m3"}; }

// How a matrix is coded.
struct block_format {
  code_map map = code_map::linear;
  index_t block = 256;  // elements that share a scale, at least 1

  // How many scales a matrix has.
  MATOPT_HD constexpr index_t blocks(index_t elements) const { return elements / block + (elements % block > 0); }
};

// The element type that a file has for codes.
constexpr element_type element_type_of(code_map map) {
  return map == code_map::linear ? element_type::i8 : map == code_map::dynamic ? element_type::u8 : element_type::f8;
}
constexpr code_map code_map_of(element_type t) {
  return t == element_type::i8 ? code_map::linear : t == element_type::u8 ? code_map::dynamic : code_map::e4m3;
}

// The scales of the state "momentum" are "momentum_absmax_256", if blocks have 256 elements.
inline constexpr std::string_view absmax_infix = "_absmax_";

// The positive values of the dynamic map in their order, with 0 before them: 128 is 1. Numerator and denominator are
// whole, so that one division rounds once.
MATOPT_HD constexpr float dynamic_value(int n) {
  if (n == 0 || n >= 128) return n == 0 ? 0.F : 1.F;
  int i = 0;
  float tens = 1e7F;  // 10^(7-i)
  while (n >= 2 << i) ++i, tens /= 10.F;
  const int step = 1 << i;
  return static_cast<float>(2 * step + 18 * (n - step) + 9) / tens / static_cast<float>(2 * step);
}
struct dynamic_table {
  float at[129];
  MATOPT_HD constexpr dynamic_table() : at{} {
    for (int n = 0; n <= 128; ++n) at[n] = dynamic_value(n);
  }
};
inline constexpr dynamic_table dynamic_values{};

namespace detail {

// What the step and the digits of an e4m3 number are in the bits of a float or double.
template <class A>
struct e4m3_in;
template <>
struct e4m3_in<float> {
  using bits = std::uint32_t;
  static constexpr int shift = 20, bias = 127;
  static constexpr float smallest_step = 0x1p14F;  // where neighbours are 2^-9 apart
};
template <>
struct e4m3_in<double> {
  using bits = std::uint64_t;
  static constexpr int shift = 49, bias = 1023;
  static constexpr double smallest_step = 0x1p43;
};

// Adding and subtracting it rounds to a whole number, ties to even.
template <class A>
inline constexpr A rounder = std::is_same_v<A, float> ? A(0x1.8p23) : A(0x1.8p52);

// top x / s within [-top, top]; 0 where that is no number. There is no sum in it that a compiler could join with the
// product, so all backends get the same bits; and the product does not overflow where s is large.
template <class A>
MATOPT_HD constexpr A share_of(A x, A s, A top) {
  const A room = s > A(0x1p100F) ? A(0x1p-10F) : A(1);
  A v = (top * (x * room)) / (s * room);
  v = v > top ? top : v;
  v = v < -top ? -top : v;
  return v == v ? v : A(0);
}

// The code of share_of(x, s, top), and what a code stands for in units of s.
template <code_map Map>
struct coder;

template <>
struct coder<code_map::linear> {
  static constexpr int top = 127;
  template <class A>
  MATOPT_HD static std::uint8_t of(A v, const float*) {
    // The low bits of the sum are those of the whole number.
    if constexpr (std::is_same_v<A, float>)
      return static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(v + rounder<A>));
    else
      return static_cast<std::uint8_t>(std::bit_cast<std::uint64_t>(v + rounder<A>));
  }
  template <class A>
  MATOPT_HD static A value(std::uint8_t code, const float*) {
    return static_cast<A>(static_cast<std::int8_t>(code)) / A(127);
  }
};

template <>
struct coder<code_map::dynamic> {
  static constexpr int top = 1;
  template <class A>
  MATOPT_HD static std::uint8_t of(A v, const float* table) {
    const A size = math::abs(v);
    int n = 0;  // the last value that is not larger, of those below 1
    for (int step = 64; step > 0; step /= 2) n += size >= A(table[n + step]) ? step : 0;
    const A below = size - A(table[n]), above = A(table[n + 1]) - size;
    if (v < A(0)) return static_cast<std::uint8_t>(127 - (n < 127 && above <= below ? n + 1 : n));
    return static_cast<std::uint8_t>(127 + (below <= above ? n : n + 1));
  }
  template <class A>
  MATOPT_HD static A value(std::uint8_t code, const float* table) {
    const int n = static_cast<int>(code) - 127;
    return n < 0 ? -A(table[-n]) : A(table[n]);
  }
};

template <>
struct coder<code_map::e4m3> {
  static constexpr int top = 448;
  template <class A>
  MATOPT_HD static std::uint8_t of(A v, const float*) {
    using in = e4m3_in<A>;
    using bits = typename in::bits;
    const A size = math::abs(v);
    const bits u = std::bit_cast<bits>(size), one = 1;
    const bits normal = ((u + ((one << (in::shift - 1)) - 1) + ((u >> in::shift) & one)) >> in::shift) -
                        (static_cast<bits>(in::bias - 7) << 3);
    const bits subnormal = std::bit_cast<bits>(size + in::smallest_step) - std::bit_cast<bits>(in::smallest_step);
    const bits magnitude = size < A(0x1p-6) ? subnormal : normal;
    return static_cast<std::uint8_t>(magnitude | (v < A(0) && magnitude != 0 ? 0x80U : 0U));
  }
  template <class A>
  MATOPT_HD static A value(std::uint8_t code, const float*) {
    const std::uint32_t magnitude = code & 0x7fU;
    const float normal = std::bit_cast<float>((magnitude << 20) + (120U << 23));
    const float size = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9F : normal;
    return static_cast<A>((code & 0x80U) ? -size : size) / A(448);
  }
};

// use(coder<map>{})
template <class Use>
void with_map(code_map map, Use use) {
  switch (map) {
    case code_map::linear:
      return use(coder<code_map::linear>{});
    case code_map::dynamic:
      return use(coder<code_map::dynamic>{});
    case code_map::e4m3:
      return use(coder<code_map::e4m3>{});
  }
}

// The scale of a block whose largest |x| this is.
template <class A>
MATOPT_HD constexpr float scale_of(A largest) {
  constexpr float most = std::numeric_limits<float>::max();
  if (!(largest < A(most))) return most;
  const float nearest = static_cast<float>(largest);
  return static_cast<A>(nearest) < largest ? std::bit_cast<float>(std::bit_cast<std::uint32_t>(nearest) + 1U) : nearest;
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
