// Leaves the direction as it is; what AdamW has in the orthogonalizer slot.
#pragma once
#include "../../core/policy.hpp"

namespace matopt {

struct no_orthogonalizer {
  using both_forms_agree = no_orthogonalizer;

  static std::string name() { return "none"; }
  template <class E, class St, class U>
  void orthogonalize(E&, St&, view<U>) const {}
  auto formula() const { return elementwise(fn::nothing{}, update_slot{}); }
};

}  // namespace matopt
