// double_double: a number as the sum of two doubles, which has twice the digits of one. (Dekker, Numer. Math. 18, 1971.)
#pragma once
#include "../core/math.hpp"

namespace matopt::cuda {

struct double_double {
  double high = 0, low = 0;

  __device__ double_double() = default;
  __device__ explicit double_double(double x) : high(x) {}
  // x + y, where |x| >= |y|
  __device__ static double_double of_sum(double x, double y) {
    double_double s;
    s.high = __dadd_rn(x, y);
    s.low = __dadd_rn(y, -__dadd_rn(s.high, -x));
    return s;
  }
  __device__ static double_double of_product(double x, double y) {
    double_double p;
    p.high = __dmul_rn(x, y);
    p.low = __fma_rn(x, y, -p.high);
    return p;
  }
  __device__ explicit operator double() const { return high + low; }
};

__device__ inline double_double operator+(double_double x, double_double y) {
  const double s = __dadd_rn(x.high, y.high), part = __dadd_rn(s, -x.high);
  const double error = __dadd_rn(__dadd_rn(x.high, -__dadd_rn(s, -part)), __dadd_rn(y.high, -part));
  return double_double::of_sum(s, __dadd_rn(error, __dadd_rn(x.low, y.low)));
}
__device__ inline double_double operator-(double_double x) {
  x.high = -x.high, x.low = -x.low;
  return x;
}
__device__ inline double_double operator-(double_double x, double_double y) { return x + -y; }
__device__ inline double_double operator*(double_double x, double_double y) {
  const double_double p = double_double::of_product(x.high, y.high);
  return double_double::of_sum(p.high, __fma_rn(x.high, y.low, __fma_rn(x.low, y.high, p.low)));
}
__device__ inline double_double reciprocal(double_double x) {
  const double y = 1 / x.high;
  if (y == 0) return double_double();
  return double_double::of_sum(y, y * __fma_rn(-x.low, y, __fma_rn(-x.high, y, 1.0)));
}
__device__ inline double_double root(double_double x) {
  if (!(x.high > 0)) return double_double();
  const double y = math::sqrt(x.high);
  return double_double::of_sum(y, (__fma_rn(-y, y, x.high) + x.low) / (2 * y));
}
__device__ inline double reciprocal(double x) { return 1 / x; }
__device__ inline double root(double x) { return x > 0 ? math::sqrt(x) : 0.0; }
__device__ inline float reciprocal(float x) { return 1 / x; }

// sum + x y
__device__ inline double add_product(double sum, double x, double y) { return __fma_rn(x, y, sum); }
__device__ inline double_double add_product(double_double sum, double x, double y) {
  return sum + double_double::of_product(x, y);
}

}  // namespace matopt::cuda
