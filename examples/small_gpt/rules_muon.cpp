#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/numuon.hpp>

#include "rules.hpp"

namespace small_gpt {

using namespace matopt;

void add_muon_rules(rule_book& book) {
  book.add<muon>("muon").add<numuon>("numuon").add<numuon::with_constraint<nuclear_budget<fixed_rank>>>("numuon_fixed");
}

}  // namespace small_gpt
