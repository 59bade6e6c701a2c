// Leaves the update as it is.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

struct no_normalizer {
  static std::string name() { return "none"; }
  template <class E, class St, class U>
  void normalize(E&, St&, U) const {}
};

}  // namespace MATOPT_NAMESPACE
