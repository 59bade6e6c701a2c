#include <matopt/numuon.hpp>

#include "contract.hpp"

void matopt::test::append_numuon(std::vector<contract_rule>& rules) {
  // Full rank first, then rank 3 for the short side of 24 that the checks use, for which Krylov takes its own path.
  const numuon r{.constraint = {.rank = {.start = 1, .end = 0.1, .hold = 1, .total = 2}}};
  rules.push_back(describe_rule<numuon>("numuon", r));
  rules.back().mixed = {{"float", make_mixed<numuon, types<float>>(r)},
                        {"bfloat16", make_mixed<numuon, types<bfloat16, float>>(r)}};
  rules.push_back(describe_rule<numuon>(
      "numuon residual, one iteration",
      {.orthogonalizer = {.iterations = 1},
       .constraint = {.rank = {.start = 0.9, .end = 0.22, .hold = 1, .total = 3}, .residual = true}}));
  rules.push_back(describe_rule<numuon_krylov>(
      "numuon_krylov", {.constraint = {.rank = {.start = 1, .end = 0.1, .hold = 1, .total = 2}}}));
}
