// The step direction of the largest-entry norm: u <- sign(u), sign(0) = 0. Lion (Algorithm 2), Signum, and Scion's Sign
// norm (arXiv 2502.07529, Table 2: 1 -> infinity). State: none. Near zero the sign is a matter of rounding.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../momentum/sign_of.hpp"

namespace MATOPT_NAMESPACE {

struct sign_direction {
  static std::string name() { return "sign_direction"; }
  template <class E, class St, class U>
  auto orthogonalize(E&, St&, U u) const {
    return elementwise(fn::take_sign{}, u);
  }
};

}  // namespace MATOPT_NAMESPACE
