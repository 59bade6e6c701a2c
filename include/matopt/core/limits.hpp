// How large the numbers are that a step takes from its caller, and those that it squares.
#pragma once
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "error.hpp"
#include "settings.hpp"
#include "types.hpp"

namespace matopt {

namespace detail {
template <class... T>
inline constexpr bool all_double = (std::is_same_v<std::remove_const_t<T>, double> && ...);
template <class... T>
inline constexpr bool some_float16 = (std::is_same_v<std::remove_const_t<T>, float16> || ...);

template <class C>
inline constexpr std::string_view compute_name = std::is_same_v<C, double> ? "double" : "float";
}  // namespace detail

// The largest entry of a gradient, rate or setting, where steps keep and compute in the types T: 2^24 below the largest
// number of the narrowest of them, about 2e31 and 1e301. The room is for what a step makes of it: momentum that adds
// up, products with weights, sums over rows, norms.
template <class... T>
inline constexpr double largest_input = detail::all_double<T...> ? 0x1p1000 : 0x1p104;
// Of a weight, a state and a compute type. float16 state has room for momentum that adds up a thousandfold, 64 of it:
// larger gradients, such as those of a scaled loss, want a gradient scale.
template <class Weight, class State, class Compute>
inline constexpr double largest_input<Weight, State, Compute> =
    detail::some_float16<State> ? 0x1p6 : largest_input<Weight, Compute>;

// The largest number whose square may be kept: an entry beyond it counts as this in a second moment, and in the first
// moment that is divided by it. About 5e18, 3e153 where all of T are double, and 128 where one is float16.
template <class... T>
inline constexpr double largest_squared = detail::some_float16<T...> ? 0x1p7
                                          : detail::all_double<T...> ? 0x1p510
                                                                     : 0x1p62;

namespace detail {

// Throws bad_value unless x is legal, and still so as a C.
template <class C>
void check_number(const std::string& name, double x, const range& legal) {
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

}  // namespace detail

// Throws bad_value for the first hyperparameter that is legal as a double, but not as a C: a divisor that becomes 0, a
// decay factor that becomes 1, anything that becomes infinite.
template <class C, class Policy>
void validate_settings_in(const Policy& policy) {
  if constexpr (detail::has_settings<const Policy>) {
    Policy::settings(policy, [](std::string_view name, const auto& value, range legal = {}) {
      using V = std::decay_t<decltype(value)>;
      if constexpr (std::is_same_v<V, double>) detail::check_number<C>(std::string(name), value, legal);
      if constexpr (std::is_same_v<V, std::vector<double>>)
        for (const double x : value) detail::check_number<C>(std::string(name), x, legal);
    });
  }
}

}  // namespace matopt
