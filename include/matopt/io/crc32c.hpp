// crc32c: the checksum CRC-32C (Castagnoli; RFC 3720, appendix B.4) of bytes, by tables, eight bytes at a time.
//
//   std::uint32_t sum = crc32c(a, size_a);     sum = crc32c(b, size_b, sum);      of a followed by b
//
// It differs for any two inputs of one length that differ in a single bit, or within 32 neighbouring bits.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "../version.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
inline constexpr auto crc32c_tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t x = i;
    for (int bit = 0; bit < 8; ++bit) x = (x >> 1U) ^ (x & 1U ? 0x82F63B78U : 0U);
    t[0][i] = x;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8U) ^ t[0][t[k - 1][i] & 0xFFU];
  return t;
}();
}  // namespace detail

inline std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t before = 0) {
  const auto& t = detail::crc32c_tables;
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint32_t x = ~before;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    const auto at = [&](std::size_t table, std::size_t i, std::uint32_t mixed) {
      return t[table][(p[i] ^ mixed) & 0xFFU];
    };
    x = at(7, 0, x) ^ at(6, 1, x >> 8U) ^ at(5, 2, x >> 16U) ^ at(4, 3, x >> 24U) ^ at(3, 4, 0) ^ at(2, 5, 0) ^
        at(1, 6, 0) ^ at(0, 7, 0);
  }
  for (; bytes > 0; --bytes, ++p) x = (x >> 8U) ^ t[0][(*p ^ x) & 0xFFU];
  return ~x;
}

}  // namespace MATOPT_NAMESPACE
