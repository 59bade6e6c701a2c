// The element types of products, by name.
#pragma once
#include <matopt/core/types.hpp>

namespace bench {

template <class T>
inline constexpr const char* element_name = "";
template <>
inline constexpr const char* element_name<float> = "float";
template <>
inline constexpr const char* element_name<double> = "double";
template <>
inline constexpr const char* element_name<matopt::float16> = "float16";
template <>
inline constexpr const char* element_name<matopt::bfloat16> = "bfloat16";
template <>
inline constexpr const char* element_name<matopt::tfloat32> = "tfloat32";

template <class... T>
struct element_list {
  // use(T{}) for each
  template <class Use>
  static void each(Use use) {
    (use(T{}), ...);
  }
};

}  // namespace bench
