// spread: std::apply for tuples of arguments. The standard's also asks whether the call may throw, for which a compiler
// goes through the whole call once more; and formulas are spread in every step of every rule.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <tuple>
#include <utility>

#include "../version.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class F, class... A>
decltype(auto) spread(F&& f, const std::tuple<A...>& arguments) {
  return [&]<std::size_t... I>(std::index_sequence<I...>)->decltype(auto) { return f(std::get<I>(arguments)...); }
  (std::index_sequence_for<A...>{});
}

}  // namespace MATOPT_NAMESPACE::detail
