#include <matopt/published_rules.hpp>

#include "contract.hpp"
#include "published.hpp"

namespace matopt::test {

template <>
const rule_registry<deferred_backend<counting_backend>, types<double>>& published_rules() {
  static const rule_registry<deferred_backend<counting_backend>, types<double>> rules = [] {
    rule_registry<deferred_backend<counting_backend>, types<double>> r;
    add_published_rules(r);
    return r;
  }();
  return rules;
}

}  // namespace matopt::test
