// unfinished: the update on its way through a step: where it lies in memory, if it does, and the formula that remains
// to be done with it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <type_traits>

#include "operations.hpp"

namespace MATOPT_NAMESPACE::detail {

struct nowhere {};
template <class At, class Rest>
struct unfinished {
  At at;
  Rest rest;

  static constexpr bool is_done = is_view<At> && std::is_same_v<Rest, nothing>;
  template <class C>
  static constexpr bool lies_in = std::is_same_v<At, view<C>>;

  // The whole update as one formula, where it is not stored.
  auto formula() const {
    if constexpr (is_view<At>)
      return elementwise(fn::assign{}, update_slot{}, as_const(at)) >> rest;
    else
      return rest;
  }
  auto formula_if_any() const {
    if constexpr (std::is_same_v<Rest, nothing>)
      return nothing{};
    else
      return formula();
  }
  template <class More>
  auto then(const More& more) const {
    return unfinished<At, decltype(rest >> more)>{at, rest >> more};
  }
};
template <class At, class Rest>
unfinished(At, Rest) -> unfinished<At, Rest>;

}  // namespace MATOPT_NAMESPACE::detail
