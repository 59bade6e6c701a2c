// The rules of the contract on the CPU.
#include "contract.hpp"

const std::vector<matopt::test::contract_rule>& matopt::test::contract_rules() {
  static const std::vector<contract_rule> all = [] {
    std::vector<contract_rule> rules;
    append_muon(rules), append_adamw(rules), append_numuon(rules), append_numuon_exact(rules);
    append_numuon_warm(rules), append_muown(rules), append_angular(rules), append_numuown(rules);
    append_published(rules);
    return rules;
  }();
  return all;
}
