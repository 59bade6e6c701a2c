#include <matopt/published_rules.hpp>

#include "contract.hpp"
#include "published.hpp"

namespace matopt::test {

template <>
const rule_registry<counting_backend, types<float>>& published_rules() {
  static const rule_registry<counting_backend, types<float>> rules = [] {
    rule_registry<counting_backend, types<float>> r;
    add_published_rules(r);
    return r;
  }();
  return rules;
}

}  // namespace matopt::test
