#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "rules.hpp"

namespace small_gpt {

using namespace matopt;

// NuMuon on Muown: one line.
using numuown =
    muown::with_orthogonalizer<subspace_polar>::with_constraint<nuclear_budget<cosine_rank, weight_normalization<>>>;
using numuown_krylov = numuown::with_orthogonalizer<block_krylov_polar<>>;

void add_constrained_rules(rule_book& book) {
  matopt::add_constrained_rules(book);
  book.add<numuown>("numuown").add<numuown_krylov>("numuown_krylov");
}

}  // namespace small_gpt
