// Stored elements of one type as elements of another, for loading.
//
//   const converted_elements c = convert_elements(data, element_type::f64, element_type::bf16);
//
// Each element is rounded once, to nearest with ties to even, also from double to a type of 16 bits. Infinities and NaN
// stay what they are. A finite element that is not finite in the other type is not converted but reported. Codes of 8
// bits are no elements by themselves: recode_state.hpp has them with their scales.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "../core/types.hpp"

namespace MATOPT_NAMESPACE {

struct converted_elements {
  std::vector<std::byte> data;
  std::optional<double> out_of_range{};  // the first element that has no finite counterpart; data is then of no use
};

namespace detail {

// A float that rounds to any type of at most 22 digits as x does. Rounding x to nearest first could make a tie of what
// is none; so a float that is not x itself is the neighbour of x with an odd last bit, which no tie of fewer digits
// has.
inline float rounded_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (std::isnan(x) || static_cast<double>(nearest) == x) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(x)) --bits;  // towards zero
  return std::bit_cast<float>(bits | 1U);
}

template <class To, class From>
To element_as(From x) {
  if constexpr (!storage_only<To>)
    return static_cast<To>(static_cast<typename arithmetic<From>::type>(x));
  else if constexpr (std::is_same_v<From, double>)
    return To(rounded_to_odd(x));
  else
    return To(static_cast<float>(x));
}

// use(T{}), T being the element type t.
template <class Use>
auto with_element(element_type t, Use use) {
  switch (t) {
    case element_type::f64:
      return use(double{});
    case element_type::bf16:
      return use(bfloat16{});
    case element_type::f16:
      return use(float16{});
    default:
      break;
  }
  return use(float{});
}

}  // namespace detail

// meaning(x), computed in double, is what an element x of the data stands for; by default x itself.
inline converted_elements convert_elements(const std::vector<std::byte>& data, element_type from, element_type to,
                                           double (*meaning)(double) = nullptr) {
  const std::size_t count = data.size() / size_of(from);
  converted_elements out{std::vector<std::byte>(count * size_of(to))};
  detail::with_element(from, [&](auto source) {
    detail::with_element(to, [&](auto target) {
      using A = typename arithmetic<decltype(source)>::type;
      for (std::size_t i = 0; i < count && !out.out_of_range; ++i) {
        std::memcpy(&source, data.data() + i * sizeof source, sizeof source);
        const double x = static_cast<double>(static_cast<A>(source));
        target =
            meaning ? detail::element_as<decltype(target)>(meaning(x)) : detail::element_as<decltype(target)>(source);
        if (std::isfinite(x) && !std::isfinite(static_cast<typename arithmetic<decltype(target)>::type>(target)))
          out.out_of_range = x;
        std::memcpy(out.data.data() + i * sizeof target, &target, sizeof target);
      }
    });
  });
  return out;
}

}  // namespace MATOPT_NAMESPACE
