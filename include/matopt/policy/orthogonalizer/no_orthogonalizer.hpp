// Leaves the direction as it is; what AdamW has in the orthogonalizer slot.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

struct no_orthogonalizer {
  static std::string name() { return "none"; }
  template <class E, class St, class U>
  void orthogonalize(E&, St&, U) const {}
};

}  // namespace MATOPT_NAMESPACE
