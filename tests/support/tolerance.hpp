// The one table of tolerances, relative to the largest entry of the expected matrix.
//
//   double     1e-11    the golden vectors are themselves accurate to about 1e-13; the exact polar loses a condition
//                       number of up to 22, and rounding orders differ
//   float      2e-4     24 bits through five quintic steps whose slope at 0 is 485: about 1e-7 * 485, and a few steps of
//                       that
//   bfloat16   2e-2     weights are rounded to 8 bits: half a unit in the last place is 2e-3, four steps of it, some
//                       amplified
//   gram form  10-fold  the Gram matrix is formed once, so an error in it lasts through all steps
#pragma once
#include <matopt/core/bfloat16.hpp>

namespace matopt::test {

template <class T>
inline constexpr double tolerance = 1e-11;
template <>
inline constexpr double tolerance<float> = 2e-4;
template <>
inline constexpr double tolerance<bfloat16> = 2e-2;
template <class T>
inline constexpr double gram_tolerance = 10 * tolerance<T>;

}  // namespace matopt::test
