#include <matopt/muon.hpp>

#include "contract.hpp"

void matopt::test::append_muon(std::vector<contract_rule>& rules) {
  rules.push_back(describe_rule<muon>("muon"));
  auto& r = rules.back();
  r.mixed = {{"float", make_mixed<muon, types<float>>({})},
             {"float", make_mixed<muon, types<float, float, double, double>>({})},
             {"bfloat16", make_mixed<muon, types<float, float, bfloat16>>({})},
             {"bfloat16", make_mixed<muon, types<bfloat16>>({})},
             {"bfloat16", make_mixed<muon, types<bfloat16, float>>({})},
             {"float16", make_mixed<muon, types<float16, float16, float>>({})},
             {"float16", make_mixed<muon, types<float16, float16, float16>>({})}};
  const auto with = [&](const char* name, coefficient_set set) {
    rules.push_back(describe_rule<muon>(name, {.orthogonalizer = {.coefficients = set}}));
  };
  with("muon polar_express", coefficient_set::polar_express);
  with("muon cubic", coefficient_set::cubic);
  with("muon you", coefficient_set::you);
}
