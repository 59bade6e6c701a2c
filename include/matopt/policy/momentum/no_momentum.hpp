// Remembers nothing: u = G. For orthogonalizers that keep a buffer of their own (dion), and for plain descent.
// State: none.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

struct no_momentum {
  static constexpr bool remembers_nothing = true;

  static std::string name() { return "no_momentum"; }
  template <class E, class St, class G, class U>
  auto accumulate(E&, St&, G g, U u) const {
    return elementwise(fn::assign{}, u, g);
  }
};

}  // namespace MATOPT_NAMESPACE
