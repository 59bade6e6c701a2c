// Element types: which type arithmetic on stored elements happens in, and the four types of one optimizer.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "bfloat16.hpp"
#include "float16.hpp"
#include "stochastic.hpp"
#include "tfloat32.hpp"

namespace MATOPT_NAMESPACE {

// Types that only hold: float is what they are computed with.
template <class T>
concept storage_only =
    std::is_same_v<std::remove_const_t<T>, bfloat16> || std::is_same_v<std::remove_const_t<T>, float16> ||
    std::is_same_v<std::remove_const_t<T>, tfloat32> || is_stochastic<std::remove_const_t<T>>;

// The type in which stored elements are computed with.
template <class T>
struct arithmetic {
  using type = std::remove_const_t<T>;
};
template <storage_only T>
struct arithmetic<T> {
  using type = float;
};
template <class... T>
using arithmetic_t = std::common_type_t<typename arithmetic<T>::type...>;

// The element types of one optimizer. `State` is what matrix-sized state is kept in, `Compute` what a step calculates
// in: types<bfloat16, bfloat16, float> steps bfloat16 weights with float state, types<double> does everything in
// double. A float16 state has room for momentum, but not for second moments: squares of what is below 2e-4 vanish.
template <class Weight, class Gradient = Weight, class State = arithmetic_t<Weight>,
          class Compute = arithmetic_t<State>>
struct types {
  using weight = Weight;
  using gradient = Gradient;
  using state = State;
  using compute = Compute;
  static_assert(std::is_floating_point_v<Compute>, "matopt: the compute type is float or double");
};

// An element type at run time; the names are those of the safetensors format. The types of 8 bits hold codes
// (core/block_codes.hpp), which mean something only with their scales.
enum class element_type { f32, f64, bf16, f16, i8, u8, f8 };

template <class T>
constexpr element_type element_type_of() {
  using U = std::remove_const_t<T>;
  if constexpr (is_stochastic<U>) {
    return element_type_of<typename U::stored>();  // a file does not tell them apart
  } else {
    static_assert(std::is_same_v<U, float> || std::is_same_v<U, double> || std::is_same_v<U, bfloat16> ||
                      std::is_same_v<U, float16>,
                  "matopt: elements are float, double, matopt::bfloat16 or matopt::float16");
    if constexpr (std::is_same_v<U, double>) return element_type::f64;
    if constexpr (std::is_same_v<U, bfloat16>) return element_type::bf16;
    if constexpr (std::is_same_v<U, float16>) return element_type::f16;
    return element_type::f32;
  }
}

inline constexpr element_type element_types[] = {element_type::f32, element_type::f64, element_type::bf16,
                                                 element_type::f16, element_type::i8,  element_type::u8,
                                                 element_type::f8};
constexpr std::string_view name_of(element_type t) {
  constexpr std::string_view names[] = {"F32", "F64", "BF16", "F16", "I8", "U8", "F8_E4M3"};
  return names[static_cast<int>(t)];
}
constexpr bool holds_codes(element_type t) {
  return t == element_type::i8 || t == element_type::u8 || t == element_type::f8;
}
constexpr std::size_t size_of(element_type t) {
  return t == element_type::f64 ? 8 : t == element_type::f32 ? 4 : holds_codes(t) ? 1 : 2;
}

}  // namespace MATOPT_NAMESPACE
