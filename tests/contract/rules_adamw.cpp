#include <matopt/adamw.hpp>

#include "contract.hpp"

void matopt::test::append_adamw(std::vector<contract_rule>& rules) {
  rules.push_back(describe_rule<adamw>("adamw"));
  rules.back().mixed = {{"float", make_mixed<adamw, types<float>>({})},
                        {"bfloat16", make_mixed<adamw, types<bfloat16>>({})},
                        {"bfloat16", make_mixed<adamw, types<float, bfloat16, double>>({})},
                        {"float16", make_mixed<adamw, types<float16, float16, float>>({})},
                        {"float16", make_mixed<adamw, types<float, float16, double>>({})}};
}
