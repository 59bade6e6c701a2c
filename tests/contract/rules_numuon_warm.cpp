#include <matopt/numuon.hpp>

#include "contract.hpp"

void matopt::test::append_numuon_warm(std::vector<contract_rule>& rules) {
  using warm = numuon::with_orthogonalizer<block_krylov_polar<true>>;
  rules.push_back(
      describe_rule<warm>("numuon warm-started", {.constraint = {.rank = {.start = 0.1, .end = 0.05, .total = 1}}}));
}
