// The constraints' own table of rules for the checks of constraint_contract_test.cpp. Several constraints are nested in
// one rule, so that fewer optimizers are compiled.
#pragma once
#include "../contract/contract.hpp"
#include "../contract/harness.hpp"

namespace matopt::test {

enum class at_rest { exact, rounded, moves };  // what a zero gradient does to the weights

struct constraint_rule {
  contract_rule rule;
  at_rest rest;
  mixed_run in_bfloat16{};
};

template <class Rule>
constraint_rule describe_constraint(std::string name, const Rule& rule, at_rest rest) {
  return {describe_rule(std::move(name), rule), rest, make_mixed<Rule, types<bfloat16>>(rule)};
}

void append_norm_constraints(std::vector<constraint_rule>& rules);
void append_spectral_constraints(std::vector<constraint_rule>& rules);
void append_sphere_constraints(std::vector<constraint_rule>& rules);

}  // namespace matopt::test
