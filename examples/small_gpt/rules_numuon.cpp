#include <matopt/eigen.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>

#include "rules.hpp"

namespace small_gpt {

using namespace matopt;

// NuMuon on Muown: one line.
using numuown =
    muown::with_orthogonalizer<block_krylov_polar<>>::with_constraint<nuclear_budget<cosine_rank, row_norm<>>>;

void add_numuon_rules(rule_book& book) { book.add<numuon>("numuon").add<numuown>("numuown"); }

}  // namespace small_gpt
