// The one table of tolerances, relative to the largest entry of the expected matrix, and what else backends promise.
//
//   double     1e-11    the golden vectors are themselves accurate to about 1e-13; the exact polar loses a condition
//                       number of up to 22, and rounding orders differ
//   float      2e-4     24 bits through five quintic steps whose slope at 0 is 485: about 1e-7 * 485, and a few steps
//   of
//                       that
//   bfloat16   2e-2     weights are rounded to 8 bits: half a unit in the last place is 2e-3, four steps of it, some
//                       amplified
//   float16    2.5e-3   the same with 11 bits
//   gram form  10-fold  the Gram matrix is formed once, so an error in it lasts through all steps
//
// One product alone, of entries in [-1, 1): the result's own rounding (half a unit in the last place; twice for a very
// deep product in bfloat16), relative to the largest entry, and the sums' 16 units by the root of the depth.
#pragma once
#include <cmath>
#include <limits>
#include <type_traits>

#include <matopt/core/bfloat16.hpp>
#include <matopt/core/float16.hpp>
#include <matopt/core/index.hpp>

namespace matopt::test {

template <class T>
inline constexpr double tolerance = 1e-11;
template <>
inline constexpr double tolerance<float> = 2e-4;
template <>
inline constexpr double tolerance<bfloat16> = 2e-2;
template <>
inline constexpr double tolerance<float16> = 2.5e-3;
template <class T>
inline constexpr double gram_tolerance = 10 * tolerance<T>;

// What a backend promises of its results.
struct accuracy {
  double in_double = tolerance<double>, in_float = tolerance<float>;
  double newton_schulz_in_float = tolerance<float>;  // of rules that iterate products
  double rest = 16;            // units of rounding that a zero update may move a weight whose rule rounds at rest
  bool bits_of_bucket = true;  // a matrix's result is the same to the bit whatever other matrices step with it

  template <class T>
  constexpr double limit(bool newton_schulz) const {
    if constexpr (std::is_same_v<T, double>) return in_double;
    return newton_schulz ? newton_schulz_in_float : in_float;
  }
};

inline constexpr accuracy cpu_accuracy{};
// Multiply-adds are fused and sums run in other orders; a library chooses its product kernels by the size of a batch.
// Newton-Schulz may iterate in 16 bits: the tolerance of those.
inline constexpr accuracy cuda_accuracy{
    .in_double = 1e-10, .in_float = 2e-4, .newton_schulz_in_float = 2e-2, .rest = 16, .bits_of_bucket = false};

// By the type of a backend; specialised beside the backends that promise less than the CPU's.
template <class B>
inline constexpr accuracy accuracy_of = cpu_accuracy;

template <class T>
double product_tolerance(double largest, index_t depth) {
  using sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const double own = std::is_same_v<T, bfloat16> ? 0x1p-8 * (depth > 40960 ? 2 : 1) : 0;
  return own * largest +
         16 * static_cast<double>(std::numeric_limits<sum>::epsilon()) * std::sqrt(static_cast<double>(depth) + 1);
}

}  // namespace matopt::test
