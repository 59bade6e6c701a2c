#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>

#include "contract.hpp"

void matopt::test::append_numuown(std::vector<contract_rule>& rules) {
  using numuown =
      muown::with_orthogonalizer<subspace_polar>::with_constraint<nuclear_budget<cosine_rank, weight_normalization<>>>;
  rules.push_back(describe_rule<numuown>(
      "numuown", {.constraint = {.rank = {.start = 1, .end = 0.1, .hold = 1, .total = 2}}}, false));
}
