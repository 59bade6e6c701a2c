// Bounds of the spectral norm that products give which an iteration forms anyway, A = X X^T:
//
//   sigma_1  <=  S8 = ||A^2||_F^(1/4)  <=  S4 = ||A||_F^(1/2)  <=  ||X||_F                  (Schatten norms 8, 4, 2)
//
// Of a 512 x 512 matrix of normal numbers sigma_1 is 0.09 ||X||_F, 0.35 S4 and 0.65 S8; of rank one all are equal.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "norms.hpp"

namespace MATOPT_NAMESPACE {

// By which one a matrix is divided before an iteration; aol divides each row by a number of its own
// (almost_orthogonal.hpp).
enum class spectral_bound { frobenius, schatten4, schatten8, aol };
constexpr auto enum_names(spectral_bound) {
  return std::array<std::string_view, 4>{"frobenius", "schatten4", "schatten8", "aol"};
}

namespace fn {
// s = ratio / sqrt(product n), or ratio / sqrt(sqrt(product n)), and 0 for n = 0
struct schatten_factor {
  double product;
  bool fourth_root;
  template <class T>
  MATOPT_HD void operator()(T& s, T n, T ratio) const {
    const T root = math::sqrt(T(product) * n), fourth = math::one_if<T>(fourth_root);
    s = math::divide_or_zero(ratio, fourth * math::sqrt(root) + (T(1) - fourth) * root);
  }
};
// A, and A^2, of s X, given `up` times those of X
struct scaled_powers {
  double up;
  template <class T>
  MATOPT_HD void operator()(T& a, T s) const {
    a *= s * s / T(up);
  }
  template <class T>
  MATOPT_HD void operator()(T& a, T& square, T s) const {
    (*this)(a, s);
    square *= s * s * s * s / T(up);
  }
};
// n = n sqrt(of_power), or n sqrt(sqrt(of_power))
struct times_root {
  bool fourth_root;
  template <class T>
  MATOPT_HD void operator()(T& n, T of_power) const {
    const T root = math::sqrt(of_power), fourth = math::one_if<T>(fourth_root);
    n *= fourth * math::sqrt(root) + (T(1) - fourth) * root;
  }
};
}  // namespace fn

namespace detail {

// The norm of each matrix by which `bound` divides, 1 x 1.
template <class E, class C>
view<C> spectral_bound_of(E& e, spectral_bound bound, view<C> x) {
  const view<C> out = e.take(1, 1);
  const auto frame = e.frame();
  const auto norm = frobenius(e, x);
  e.for_each(fn::scaled_root{}, out, as_const(norm.scale), as_const(norm.squares));
  if (bound == spectral_bound::frobenius) return out;
  // Powers of x / ||x||_F are in range.
  const view<C> unit = e.take_like(x), wide = x.rows > x.cols ? unit.t() : unit, of_power = e.take(1, 1);
  const view<C> a = e.take(wide.rows, wide.rows), square = e.take(wide.rows, wide.rows);
  const bool eight = bound == spectral_bound::schatten8;
  normalize_by(e, unit, x, normalizing_factors(e, norm, 1, 0, true));
  e.gemm_symmetric(C(1), wide, wide.t(), C(0), a, a);
  if (eight) e.gemm_symmetric(C(1), a, a, C(0), square, square);
  e.reduce(fn::norm{}, of_power, as_const(eight ? square : a));
  e.for_each(fn::times_root{eight}, out, as_const(of_power));
  return out;
}

// x, of ||x||_F = 1 or 0, times ratio / S; then a = x x^T and, for schatten8, square = a^2.
template <class E, class T, class C>
void divide_by_schatten_norm(E& e, spectral_bound bound, view<T> x, view<T> a, view<T> square, view<const C> ratio,
                             factor_entries of = factor_entries::any) {
  using A = arithmetic_t<T>;
  const auto frame = e.frame();
  const view<C> s = e.take_batch(x.batch, 1, 1);
  // The elements of a flat spectrum's A are about 1/m, those of A^2 1/m^2, too small for float16; none is above 1.
  double up = 1;
  while (sizeof(T) == 2 && up < 16384 && 2 * up <= static_cast<double>(x.rows)) up *= 2;
  e.gemm_symmetric(A(up), x, x.t(), A(0), a, a, of);
  const bool eight = bound == spectral_bound::schatten8;
  if (eight) e.gemm_symmetric(A(1 / up), a, a.t(), A(0), square, square, of);
  e.reduce(fn::norm{}, s, as_const(eight ? square : a));
  e.for_each(fn::schatten_factor{1 / up, eight}, s, as_const(s), ratio);
  e.for_each(fn::scaled{}, x, as_const(x), per_matrix(s));
  if (eight)
    e.for_each(fn::scaled_powers{up}, a, square, per_matrix(s));
  else
    e.for_each(fn::scaled_powers{up}, a, per_matrix(s));
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
