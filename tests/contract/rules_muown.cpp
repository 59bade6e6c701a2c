#include <matopt/muown.hpp>

#include "contract.hpp"

void matopt::test::append_muown(std::vector<contract_rule>& rules) {
  rules.push_back(describe_rule<muown>("muown", {}, false));
  rules.back().mixed = {{"float", make_mixed<muown, types<float, float, float, double>>({})},
                        {"bfloat16", make_mixed<muown, types<bfloat16, bfloat16, float>>({})}};
}
