// Small host and device functions that every elementwise formula may use. finite() looks at the bits, so that it also
// holds in programs compiled with -ffast-math.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "index.hpp"

// Square roots that leave errno alone: a loop with a call that may set it is not vectorised. The C library's functions
// are declared once more, as functions of nothing but their argument; g++ has them under names of its own besides, so
// that std::sqrt of the program around us stays what it was.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
namespace MATOPT_NAMESPACE::detail {
using builtin_float = decltype(__builtin_sqrtf32(1));
using builtin_double = decltype(__builtin_sqrtf64(1));
}  // namespace MATOPT_NAMESPACE::detail
extern "C" __attribute__((const))
matopt::detail::builtin_float __builtin_sqrtf32(matopt::detail::builtin_float) noexcept;
extern "C" __attribute__((const))
matopt::detail::builtin_double __builtin_sqrtf64(matopt::detail::builtin_double) noexcept;
#elif defined(__clang__) && !defined(__CUDACC__)
namespace MATOPT_NAMESPACE::pure {
extern "C" __attribute__((const)) float sqrtf(float) noexcept(noexcept(::sqrtf(0.0F)));
extern "C" __attribute__((const)) double sqrt(double) noexcept(noexcept(::sqrt(0.0)));
}  // namespace MATOPT_NAMESPACE::pure
#endif

namespace MATOPT_NAMESPACE::math {

MATOPT_HD constexpr bool finite(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7f800000U) != 0x7f800000U; }
MATOPT_HD constexpr bool finite(double x) {
  return (std::bit_cast<std::uint64_t>(x) & 0x7ff0000000000000ULL) != 0x7ff0000000000000ULL;
}
// |x| <= limit, by the bits as well: false for NaN.
MATOPT_HD constexpr bool within(float x, float limit) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffU) <= std::bit_cast<std::uint32_t>(limit);
}
MATOPT_HD constexpr bool within(double x, double limit) {
  return (std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffULL) <= std::bit_cast<std::uint64_t>(limit);
}
// 1 if not, else 0, without a comparison: the sign of a difference.
MATOPT_HD constexpr float one_if_beyond(float x, float limit) {
  const std::int32_t size = std::bit_cast<std::int32_t>(x) & 0x7fffffff;
  const std::int32_t beyond = (std::bit_cast<std::int32_t>(limit) - size) >> 31;
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(1.0F) & beyond);
}
MATOPT_HD constexpr double one_if_beyond(double x, double limit) {
  const std::uint64_t size = std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffULL;
  const std::uint64_t beyond = 0ULL - ((std::bit_cast<std::uint64_t>(limit) - size) >> 63);
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(1.0) & beyond);
}
MATOPT_HD constexpr float abs(float x) { return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7fffffffU); }
MATOPT_HD constexpr double abs(double x) {
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffULL);
}
template <class T>
MATOPT_HD constexpr T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
MATOPT_HD constexpr T min(T a, T b) {
  return b < a ? b : a;
}
// 1, -1, or 0 for either zero and for NaN, by the bits: g++ 14 makes a branch of a comparison whose outcomes, two
// numbers that it knows, are the factor of a product.
MATOPT_HD constexpr float sign(float x) {
  const std::uint32_t b = std::bit_cast<std::uint32_t>(x), size = b & 0x7fffffffU;
  const std::uint32_t known = 0U - (((0U - size) & (size - 0x7f800001U)) >> 31);  // neither a zero nor NaN
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(1.0F) | (b & 0x80000000U)) & known);
}
MATOPT_HD constexpr double sign(double x) {
  const std::uint64_t b = std::bit_cast<std::uint64_t>(x), size = b & 0x7fffffffffffffffULL;
  const std::uint64_t known = 0ULL - (((0ULL - size) & (size - 0x7ff0000000000001ULL)) >> 63);
  return std::bit_cast<double>((std::bit_cast<std::uint64_t>(1.0) | (b & 0x8000000000000000ULL)) & known);
}
// 1 or 0. A choice between formulas is a factor in one formula where it can be: compilers vectorise a choice between
// numbers that are there already, but not one between two calculations, of which only one is wanted.
template <class T>
MATOPT_HD constexpr T one_if(bool condition) {
  return condition ? T(1) : T(0);
}
// 1 if x > 0, else 0, for an x that is not negative. It looks at the bits of x: where two choices depend on one number,
// compilers would turn their comparisons into branches.
MATOPT_HD constexpr float one_if_positive(float x) {
  const std::uint32_t some = 0U - ((0U - std::bit_cast<std::uint32_t>(x)) >> 31);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(1.0F) & some);
}
MATOPT_HD constexpr double one_if_positive(double x) {
  const std::uint64_t some = 0ULL - ((0ULL - std::bit_cast<std::uint64_t>(x)) >> 63);
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(1.0) & some);
}
// And for a < b, of finite numbers: the sign of their difference.
MATOPT_HD constexpr float one_if_less(float a, float b) {
  const std::uint32_t less = 0U - (std::bit_cast<std::uint32_t>(a - b) >> 31);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(1.0F) & less);
}
MATOPT_HD constexpr double one_if_less(double a, double b) {
  const std::uint64_t less = 0ULL - (std::bit_cast<std::uint64_t>(a - b) >> 63);
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(1.0) & less);
}
// The smaller of two numbers that are not negative, by their bits: where `most` is a number that g++ knows, and the
// outcome a factor, it makes a branch of min().
MATOPT_HD constexpr float at_most(float x, float most) {
  const std::uint32_t b = std::bit_cast<std::uint32_t>(x), m = std::bit_cast<std::uint32_t>(most);
  const std::uint32_t beyond = 0U - ((m - b) >> 31);
  return std::bit_cast<float>((b & ~beyond) | (m & beyond));
}
MATOPT_HD constexpr double at_most(double x, double most) {
  const std::uint64_t b = std::bit_cast<std::uint64_t>(x), m = std::bit_cast<std::uint64_t>(most);
  const std::uint64_t beyond = 0ULL - ((m - b) >> 63);
  return std::bit_cast<double>((b & ~beyond) | (m & beyond));
}
// x / s, and 0 where s is not positive or no number: infinity then takes its place, by the bits again.
MATOPT_HD constexpr float divide_or_zero(float x, float s) {
  const std::uint32_t b = std::bit_cast<std::uint32_t>(s), infinite = 0x7f800000U;
  const std::uint32_t bad = 0U - (((b - 1U) | b | (infinite - (b & 0x7fffffffU))) >> 31);
  return x / std::bit_cast<float>((b & ~bad) | (infinite & bad));
}
MATOPT_HD constexpr double divide_or_zero(double x, double s) {
  const std::uint64_t b = std::bit_cast<std::uint64_t>(s), infinite = 0x7ff0000000000000ULL;
  const std::uint64_t bad = 0ULL - (((b - 1ULL) | b | (infinite - (b & 0x7fffffffffffffffULL))) >> 63);
  return x / std::bit_cast<double>((b & ~bad) | (infinite & bad));
}
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
inline float sqrt(float x) { return static_cast<float>(__builtin_sqrtf32(static_cast<detail::builtin_float>(x))); }
inline double sqrt(double x) { return static_cast<double>(__builtin_sqrtf64(static_cast<detail::builtin_double>(x))); }
#elif defined(__clang__) && !defined(__CUDACC__)
inline float sqrt(float x) { return pure::sqrtf(x); }
inline double sqrt(double x) { return pure::sqrt(x); }
#else
MATOPT_HD inline float sqrt(float x) { return ::sqrtf(x); }
MATOPT_HD inline double sqrt(double x) { return ::sqrt(x); }
#endif
// 1 / sqrt(x)
MATOPT_HD inline double inverse_root(double x) {
#ifdef __CUDA_ARCH__
  return ::rsqrt(x);
#else
  return 1 / sqrt(x);
#endif
}
MATOPT_HD inline float pow(float x, float y) { return ::powf(x, y); }
MATOPT_HD inline double pow(double x, double y) { return ::pow(x, y); }
MATOPT_HD inline float log(float x) { return ::logf(x); }
MATOPT_HD inline double log(double x) { return ::log(x); }
MATOPT_HD inline float copysign(float x, float s) { return ::copysignf(x, s); }
MATOPT_HD inline double copysign(double x, double s) { return ::copysign(x, s); }
// x in [-limit, limit]. What is squared into a second moment goes through it first, with largest_squared (limits.hpp):
// one huge gradient must not leave an infinite moment behind, and its first and second moments must fit each other.
template <class T>
MATOPT_HD constexpr T limited(T x, T limit) {
  return min(max(x, -limit), limit);
}
// The root of a second moment, not less than that of the least normal number: squares vanish long before what they are
// squares of, and where eps is smaller still, the quotient would be huge.
template <class T>
MATOPT_HD T moment_root(T v) {
  return sqrt(max(v, std::numeric_limits<T>::min()));
}
// At most the largest finite number.
template <class T>
MATOPT_HD constexpr T saturated(T x) {
  return min(x, std::numeric_limits<T>::max());
}

}  // namespace MATOPT_NAMESPACE::math
