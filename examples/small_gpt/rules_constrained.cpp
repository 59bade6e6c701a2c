#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "rules.hpp"

namespace small_gpt {

using namespace matopt;

// NuMuon on Muown: one line.
using numuown =
    muown::with_orthogonalizer<block_krylov_polar<>>::with_constraint<nuclear_budget<cosine_rank, row_norm<>>>;

void add_constrained_rules(rule_book& book) {
  matopt::add_constrained_rules(book);
  book.add<numuown>("numuown");
}

}  // namespace small_gpt
