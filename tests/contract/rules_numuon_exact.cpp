#include <matopt/numuon.hpp>

#include "contract.hpp"

void matopt::test::append_numuon_exact(std::vector<contract_rule>& rules) {
  using exact = numuon::with_orthogonalizer<svd_polar>;
  rules.push_back(
      describe_rule<exact>("numuon svd_polar", {.constraint = {.rank = {.start = 1, .end = 0.25, .total = 1}}}));
  rules.push_back(describe_rule<exact>(
      "numuon residual",
      {.constraint = {.rank = {.start = 0.9, .end = 0.22, .hold = 1, .total = 3}, .residual = true}}));
}
