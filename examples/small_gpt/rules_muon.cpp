#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

#include "rules.hpp"

namespace small_gpt {

using namespace matopt;

void add_muon_rules(rule_book& book) { book.add<muon>("muon").add<adamw>("adamw"); }

}  // namespace small_gpt
