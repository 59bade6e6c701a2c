// Leaves the update as it is.
#pragma once
#include "../../core/policy.hpp"

namespace matopt {

struct no_normalizer {
  static constexpr bool leaves_update = true;
  using both_forms_agree = no_normalizer;

  static std::string name() { return "none"; }
  template <class E, class St, class U>
  void normalize(E&, St&, view<U>) const {}
  auto formula() const { return elementwise(fn::nothing{}, update_slot{}); }
};

}  // namespace matopt
