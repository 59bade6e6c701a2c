#include "rules.hpp"

namespace small_gpt {

rule_book known_rules() {
  rule_book b;
  add_muon_rules(b), add_normalized_rules(b), add_adaptive_rules(b);
  add_estimator_rules(b), add_baseline_rules(b), add_constrained_rules(b);
  add_eigenbasis_rules(b);
  return b;
}

}  // namespace small_gpt
