#include <matopt/angular_muown.hpp>

#include "contract.hpp"

void matopt::test::append_angular(std::vector<contract_rule>& rules) {
  rules.push_back(describe_rule<angular_muown>("angular_muown", {}, false));
}
