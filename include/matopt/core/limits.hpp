// How large the numbers are that a step takes from its caller, and those that it squares.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "error.hpp"
#include "settings.hpp"
#include "types.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
template <class... T>
inline constexpr bool all_double = (std::is_same_v<std::remove_const_t<T>, double> && ...);
template <class... T>
inline constexpr bool some_float16 = (std::is_same_v<std::remove_const_t<T>, float16> || ...);

constexpr double power_of_half(int n) { return n == 0 ? 1 : power_of_half(n - 1) / 2; }

template <class C>
inline constexpr std::string_view compute_name = std::is_same_v<C, double> ? "double" : "float";
}  // namespace detail

// The largest entry of a gradient, rate or setting, where steps keep and compute in the types T: 2^24 below the largest
// number of the narrowest of them, about 2e31 and 1e301. The room is for what a step makes of it: momentum that adds
// up, products with weights, sums over rows, norms.
template <class... T>
inline constexpr double largest_input = detail::all_double<T...> ? 0x1p1000 : 0x1p104;
// The same by the types of a weight, of its state and of the computation. float16 state has to hold momentum that adds
// up to a thousandfold, which leaves 64 for an entry of a gradient: larger gradients, such as those of a scaled loss,
// need a gradient scale.
template <class Weight, class State, class Compute>
inline constexpr double largest_input<Weight, State, Compute> = detail::some_float16<State>                  ? 0x1p6
                                                                : detail::all_double<Weight, State, Compute> ? 0x1p1000
                                                                                                             : 0x1p104;

// The largest number whose square may be kept: an entry beyond it counts as this in a second moment, and in the first
// moment that is divided by it. About 5e18, 3e153 where all of T are double, and 128 where one is float16.
template <class... T>
inline constexpr double largest_squared = detail::some_float16<T...> ? 0x1p7
                                          : detail::all_double<T...> ? 0x1p510
                                                                     : 0x1p62;

// Significant digits of a type that state may be kept in.
template <class S>
inline constexpr int digits_of = std::numeric_limits<S>::digits;
template <>
inline constexpr int digits_of<bfloat16> = 8;
template <>
inline constexpr int digits_of<float16> = 11;

// The largest coefficient b of a running average v <- b v + (1 - b) x that is kept in the type S; in bfloat16 127/128,
// in float16 1023/1024.
//
// Of p significant digits, neighbours of v in [2^e, 2^(e+1)) are 2^(e-p+1) apart. Rounding to nearest undoes a change
// of less than half of that, 2^(e-p) <= 2^-p v, and then v stands still however many steps follow. When x has fallen to
// v / 2 or less, the average changes by (1 - b) (v - x) >= (1 - b) v / 2. So every average comes down to twice of what
// it averages, at least, if (1 - b) / 2 >= 2^-p. (It comes up to two thirds of it.) A second moment that is off by a
// factor of two makes steps off by one of 1.4. Closer to 1 there is no bound that one could use: at b = 1 - 2^-p an
// average may stand still at 2^(p-1) times of what it averages, and from 1 - 2^-(p+1) on it does not fall at all. This
// holds while v is a normal number of S.
//
// Stochastic rounding has no such limit: a change of any size is made in one of so many steps.
template <class S>
inline constexpr double slowest_average = is_stochastic<S> ? 1 : 1 - 2 * detail::power_of_half(digits_of<S>);

namespace detail {

// Throws bad_value if x to the given power averages too slowly for state kept in S.
template <class S>
[[gnu::cold]] void check_average(const std::string& name, double x, int power) {
  const auto too_slow = [&](double b) { return std::pow(b, power) > slowest_average<S>; };
  if (!too_slow(x)) return;
  double largest = std::pow(slowest_average<S>, 1.0 / power);
  while (too_slow(largest)) largest = std::nextafter(largest, 0.0);
  throw bad_value(
      name, text(x),
      "at most " + text(largest) + " with state in " + std::string(name_of(element_type_of<S>())) +
          ", where rounding would undo the steps of a slower average; keep state in a wider type otherwise");
}

// Throws bad_value unless x is legal, and still so as a C.
template <class C>
[[gnu::cold]] void check_number(const std::string& name, double x, const range& legal) {
  if (!legal.contains(x)) throw bad_value(name, text(x), text(legal));
  const auto in = [] { return " in " + std::string(compute_name<C>) + ", which steps are computed in"; };
  if (x > largest_input<C> || x < -largest_input<C>)
    throw bad_value(name, text(x), text(legal) + ", and at most " + text(largest_input<C>) + in());
  if (const double held = static_cast<double>(static_cast<C>(x)); !legal.contains(held))
    throw bad_value(name, text(x) + " (" + text(held) + in() + ")",
                    text(legal) + "; the least number above 0 is " +
                        text(static_cast<double>(std::numeric_limits<C>::denorm_min())) +
                        ", the largest below 1 is 1 - " +
                        text(static_cast<double>(std::numeric_limits<C>::epsilon()) / 2));
}

template <class C, class S>
[[gnu::cold]] void check_field(const setting_field& f) {
  if (f.kind == field_kind::whole) return;
  f.each_number([&](double x) { check_number<C>(std::string(f.name), x, f.legal); });
  if (f.kind == field_kind::number && f.legal.average != 0)
    check_average<S>(std::string(f.name), f.number(), f.legal.average);
}

}  // namespace detail

// Throws bad_value for the first hyperparameter that is legal as a double, but not as a C: a divisor that becomes 0, a
// decay factor that becomes 1, anything that becomes infinite. And for an average too slow for the type S of the state.
template <class C, class S = C, class Policy>
void validate_settings_in(const Policy& policy) {
  detail::setting_fields(policy).each(detail::check_field<C, S>);
}

}  // namespace MATOPT_NAMESPACE
