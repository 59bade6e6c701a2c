// Small host and device functions that every elementwise formula may use. finite() looks at the bits, so that it also
// holds in programs compiled with -ffast-math.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "index.hpp"

namespace matopt::math {

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
template <class T>
MATOPT_HD constexpr T abs(T x) {
  return x < T(0) ? -x : x;
}
template <class T>
MATOPT_HD constexpr T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
MATOPT_HD constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
MATOPT_HD constexpr T sign(T x) {
  return T((x > T(0)) - (x < T(0)));
}
MATOPT_HD inline float sqrt(float x) { return ::sqrtf(x); }
MATOPT_HD inline double sqrt(double x) { return ::sqrt(x); }
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

}  // namespace matopt::math
