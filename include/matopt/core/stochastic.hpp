// stochastic<T>: an element type of 16 bits for state. It is stored and read as T is, but what a step writes is rounded
// stochastically.
//
//   optimizer<adamw, eigen_backend, types<float, float, stochastic<bfloat16>>> opt(cpu);     beta2 0.999 works
//
// A number x between its neighbours a < b becomes b with probability (x - a) / (b - a), so that its mean is x: a change
// too small for one step is made in one of several steps. Averages can therefore be as slow as one likes
// (slowest_average in limits.hpp), and move by chance around what they would be in float, by some units in the last
// place. The random bits are of Philox with counter (row, column, step, 0): the same on every backend, in a recorded
// step, with any number of threads, for every matrix, and after a checkpoint. What is representable stays as it is, and
// nothing within T's range leaves it. The matrices that one formula writes take words 0, 1, 2 and 3 in turn. Rows,
// columns and steps are told apart up to 2^24 if steps are computed in float.
//
// It costs about 100 integer operations per element that is written, and passes that could go over a matrix as one line
// go row by row. Gupta et al., arXiv 1502.02551.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstdint>
#include <type_traits>

#include "bfloat16.hpp"
#include "float16.hpp"

namespace MATOPT_NAMESPACE {

template <class T>
requires(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>) struct stochastic : T {
  using stored = T;
  using T::T;
};

template <class T>
inline constexpr bool is_stochastic = false;
template <class T>
inline constexpr bool is_stochastic<stochastic<T>> = true;

namespace detail {

// x with one bit pattern of `width` bits of a random number added behind the digits that stay, which carries with just
// the right probability; `most` bounds what is finite.
MATOPT_HD constexpr float carry_by_chance(float x, std::uint32_t random, unsigned width) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x), mask = (1U << width) - 1U;
  return std::bit_cast<float>((bits + (random >> (32 - width))) & ~mask);
}

// One of the two neighbours in T of x; the largest number for what is beyond it. Infinities and NaN stay as they are.
template <class T>
MATOPT_HD constexpr float rounded_by_chance(float x, std::uint32_t random) {
  constexpr float most = std::is_same_v<T, bfloat16> ? 0x1.fep127F : 65504.F;
  if (!(x - x == 0.F)) return x;
  if (x > most || x < -most) return x > 0 ? most : -most;
  if constexpr (std::is_same_v<T, float16>) {
    const std::uint32_t sign = std::bit_cast<std::uint32_t>(x) & 0x80000000U;
    const float size = x < 0 ? -x : x;
    if (size < 0x1p-14F) {  // multiples of 2^-24
      const float units = size * 0x1p24F, below = static_cast<float>(static_cast<std::uint32_t>(units));
      const float up = units - below > static_cast<float>(random >> 8) * 0x1p-24F ? 1.F : 0.F;
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>((below + up) * 0x1p-24F) | sign);
    }
    return carry_by_chance(x, random, 13);
  } else {
    return carry_by_chance(x, random, 16);
  }
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
