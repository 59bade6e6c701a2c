// Counter-based random numbers: Philox4x32-10 and standard normals from it, the same bits on every backend.
//
// Philox (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011) maps a 128-bit counter and
// a 64-bit key to 128 random bits by ten rounds of two 32 x 32 multiplications. Number n of a stream needs no earlier
// number.
//
// A normal is the inverse distribution function of one 32-bit word, by the rational approximations of Wichura's PPND7
// (AS 241, Applied Statistics 37, 1988; relative error about 1e-7). Every multiply-add is an explicit fma and the
// logarithm is a series of our own: no compiler's contraction and no library's log can change a bit.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "index.hpp"

namespace MATOPT_NAMESPACE {

struct philox {
  using counter = std::array<std::uint32_t, 4>;
  using key = std::array<std::uint32_t, 2>;

  MATOPT_HD static constexpr counter bits(counter c, key k) {
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = 0xD2511F53ULL * c[0], p1 = 0xCD9E8D57ULL * c[2];
      c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
           static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
      k = {k[0] + 0x9E3779B9U, k[1] + 0xBB67AE85U};
    }
    return c;
  }

  // Element `index` of the stream (seed, stream, step).
  MATOPT_HD static double normal(std::uint64_t seed, std::uint32_t stream, std::uint32_t step, std::uint64_t index) {
    const std::uint64_t block = index / 4;
    const counter c = bits({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), stream, step},
                           {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    return normal_of(c[static_cast<std::size_t>(index % 4)]);
  }

  // The normal quantile at (word + 1/2) / 2^32; within +-6.34.
  MATOPT_HD static double normal_of(std::uint32_t word) {
    const double p = (static_cast<double>(word) + 0.5) * 0x1p-32, q = p - 0.5;
    if (q <= 0.425 && q >= -0.425) {
      const double r = ::fma(-q, q, 0.180625);
      return q * horner(r, 59.109374720, 159.29113202, 50.434271938, 3.3871327179) /
             horner(r, 67.187563600, 78.757757664, 17.895169469, 1.0);
    }
    const double r = ::sqrt(-log_of(q < 0 ? p : 1.0 - p));
    double x = 0;
    if (r <= 5.0) {
      const double s = r - 1.6;
      x = horner(s, 0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777) /
          horner(s, 0.12021132975, 0.73700164250, 1.0);
    } else {
      const double s = r - 5.0;
      x = horner(s, 0.017337203997, 0.42868294337, 3.0812263860, 6.6579051150) /
          horner(s, 0.012258202635, 0.24197894225, 1.0);
    }
    return q < 0 ? -x : x;
  }

 private:
  template <class... C>
  MATOPT_HD static double horner(double x, double leading, C... rest) {
    ((leading = ::fma(leading, x, rest)), ...);
    return leading;
  }
  // log x = e log 2 + 2 artanh((m - 1) / (m + 1)) for x = m 2^e, m in [1, 2)
  MATOPT_HD static double log_of(double x) {
    const std::uint64_t u = std::bit_cast<std::uint64_t>(x);
    const double e = static_cast<double>(static_cast<std::int64_t>(u >> 52) - 1023);
    const double m = std::bit_cast<double>((u & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
    const double z = (m - 1.0) / (m + 1.0), z2 = z * z;
    double series = 1.0 / 31;
    for (int k = 29; k > 0; k -= 2) series = ::fma(series, z2, 1.0 / k);
    return ::fma(e, 0.69314718055994530942, 2.0 * z * series);
  }
};

}  // namespace MATOPT_NAMESPACE
