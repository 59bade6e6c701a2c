// Elementwise formulas that several policies share. A functor of for_each takes its outputs by reference first and its
// inputs by value after them; a functor of a reduction returns one term and names how terms combine (sum, unless it
// says otherwise), and may have outputs besides. One that needs several sums returns terms<T, n> and makes results of
// them in finish(). Formulas of one method stand beside that method's equations, in its policy header.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "math.hpp"

namespace MATOPT_NAMESPACE::fn {

struct sum {
  template <class T>
  MATOPT_HD static constexpr T identity() {
    return T(0);
  }
  template <class T>
  MATOPT_HD static constexpr T combine(T a, T b) {
    return a + b;
  }
};
struct maximum {  // of terms that are not negative
  template <class T>
  MATOPT_HD static constexpr T identity() {
    return T(0);
  }
  template <class T>
  MATOPT_HD static constexpr T combine(T a, T b) {
    return math::max(a, b);
  }
};

// How a functor's terms combine.
template <class F>
struct reduction {
  using type = sum;
};
template <class F>
requires requires { typename F::reduction; }
struct reduction<F> {
  using type = typename F::reduction;
};
template <class F>
using reduction_of = typename reduction<F>::type;

// Several terms at once.
template <class T, int Count>
struct terms {
  T at[static_cast<std::size_t>(Count)];
};

// How many sums a reduction's functor forms, and how many results it makes of them.
template <class F>
inline constexpr int sums_of = 1;
template <class F>
requires requires { F::sums; }
inline constexpr int sums_of<F> = F::sums;
template <class F>
inline constexpr int results_of = 1;
template <class F>
requires requires { F::results; }
inline constexpr int results_of<F> = F::results;

// The terms of one element, whichever way the functor returns them.
template <class T>
MATOPT_HD constexpr terms<T, 1> as_terms(T x) {
  return {{x}};
}
template <class T, int Count>
MATOPT_HD constexpr terms<T, Count> as_terms(terms<T, Count> x) {
  return x;
}
// The results, given the sums; T is the arithmetic type of the elements.
template <class F, class T, class A>
MATOPT_HD constexpr auto finish(const A* sums) {
  if constexpr (requires { F::template finish<T>(sums); })
    return F::template finish<T>(sums);
  else
    return terms<A, 1>{{sums[0]}};
}

// y stays
struct nothing {
  template <class T>
  MATOPT_HD void operator()(T&) const {}
};
// y = x
struct assign {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = x;
  }
};
struct set_zero {
  template <class T>
  MATOPT_HD void operator()(T& x) const {
    x = T(0);
  }
};
struct set_one {
  template <class T>
  MATOPT_HD void operator()(T& x) const {
    x = T(1);
  }
};
// x = 1 on the diagonal and 0 elsewhere, given the numbers of row and column
struct set_identity {
  template <class T>
  MATOPT_HD void operator()(T& x, T row, T column) const {
    x = row == column ? T(1) : T(0);
  }
};
// sum x
struct identity {
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x;
  }
};
// sum x y
struct product {
  template <class T>
  MATOPT_HD T operator()(T x, T y) const {
    return x * y;
  }
};
// y = y + x
struct add {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y += x;
  }
};
// y = factor x
struct multiple {
  double factor;
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = T(factor) * x;
  }
};
// x = x t
struct multiply {
  template <class T>
  MATOPT_HD void operator()(T& x, T t) const {
    x *= t;
  }
};
// y = max(y, x), of flags
struct raise {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = math::max(y, x);
  }
};
// Before a step: the guard of each matrix, and what poll_status() will tell of it.
struct set_guard {
  template <class T>
  MATOPT_HD void operator()(T& guard, T& skipped, T& bad, T flag, T left_out, T stop) const {
    guard = math::max(left_out, stop);
    skipped += stop;
    bad = math::max(bad, flag);
  }
};
// max |x|
struct abs_max {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return math::abs(x);
  }
};
// max x, of flags
struct any {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x;
  }
};
// 1 if x is NaN, infinite, or larger than `limit`
struct not_finite {
  using reduction = maximum;
  double limit;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return math::one_if_beyond(x, T(limit));
  }
};
struct not_both_finite {
  using reduction = maximum;
  double limit;
  template <class T>
  MATOPT_HD T operator()(T x, T y) const {
    return math::max(math::one_if_beyond(x, T(limit)), math::one_if_beyond(y, T(limit)));
  }
};
// The same of s x, in the type C that it is about to have.
template <class C>
struct scaled_not_finite {
  using reduction = maximum;
  double limit;
  template <class T>
  MATOPT_HD T operator()(T x, T s) const {
    return T(math::one_if_beyond(static_cast<C>(s * x), C(limit)));
  }
};
template <class C>
struct scaled_not_both_finite {
  using reduction = maximum;
  double limit;
  template <class T>
  MATOPT_HD T operator()(T x, T y, T s) const {
    return T(math::max(math::one_if_beyond(static_cast<C>(s * x), C(limit)),
                       math::one_if_beyond(static_cast<C>(s * y), C(limit))));
  }
};
// y = x in [-most, most]
struct limited {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = math::limited(x, T(most));
  }
};
// y = s x
struct scaled {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s) const {
    y = s * x;
  }
};
// sum x^2
struct square {
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x * x;
  }
};
// ||x|| = s sqrt(q), as the two numbers (s, q), in one pass and without overflow or underflow: squares of large, of
// ordinary and of small entries are summed apart, each kind scaled by a power of two (Blue: A portable Fortran program
// to find the Euclidean norm of a vector; ACM TOMS 4, 1978). s = q = 0 for x = 0.
struct scaled_norm {
  static constexpr int sums = 3, results = 2;
  template <class T>
  struct limits {
    static constexpr bool single = std::is_same_v<T, float>;
    static constexpr T upper = single ? T(0x1p52) : T(0x1p486), lower = single ? T(0x1p-63) : T(0x1p-511);
    static constexpr T shrink = single ? T(0x1p-76) : T(0x1p-538), grow = single ? T(0x1p75) : T(0x1p537);
  };
  template <class T>
  MATOPT_HD terms<T, 3> operator()(T x) const {
    using l = limits<T>;
    using bits = std::conditional_t<l::single, std::uint32_t, std::uint64_t>;
    constexpr int sign = 8 * sizeof(bits) - 1;
    // All ones where a is of that size: numbers that are not negative are ordered as their bits are.
    const bits a = std::bit_cast<bits>(math::abs(x));
    const bits finite = bits(0) - ((a - std::bit_cast<bits>(std::numeric_limits<T>::infinity()) - bits(1)) >> sign);
    const bits is_high = (bits(0) - ((std::bit_cast<bits>(l::upper) - a) >> sign)) & finite;
    const bits is_low = bits(0) - ((a - std::bit_cast<bits>(l::lower)) >> sign);
    const T high = std::bit_cast<T>(bits(a & is_high)) * l::shrink, low = std::bit_cast<T>(bits(a & is_low)) * l::grow;
    const T middle = std::bit_cast<T>(bits(a & ~(is_high | is_low)));
    return {{high * high, middle * middle, low * low}};
  }
  // T: the type of the entries, in which the limits are
  template <class T, class A>
  MATOPT_HD static terms<A, 2> finish(const A* sum) {
    using l = limits<T>;
    const A shrink = A(l::shrink), grow = A(l::grow);
    if (sum[0] > A(0)) return {{A(1) / shrink, sum[0] + sum[1] * shrink * shrink}};
    if (sum[1] > A(0)) return {{A(1), sum[1] + sum[2] / grow / grow}};
    return {{sum[2] > A(0) ? A(1) / grow : A(0), sum[2]}};
  }
};
// ||x|| itself
struct norm : scaled_norm {
  static constexpr int results = 1;
  template <class T, class A>
  MATOPT_HD static terms<A, 1> finish(const A* sum) {
    const terms<A, 2> n = scaled_norm::finish<T>(sum);
    return {{n.at[0] * math::sqrt(n.at[1])}};
  }
};
// n = s sqrt(q)
struct scaled_root {
  template <class T>
  MATOPT_HD void operator()(T& n, T s, T q) const {
    n = s * math::sqrt(q);
  }
};
// y = x / s, with x / 0 taken as 0
struct divide {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s) const {
    y = math::divide_or_zero(x, s);
  }
};

}  // namespace MATOPT_NAMESPACE::fn
