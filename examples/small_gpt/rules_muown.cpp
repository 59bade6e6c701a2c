#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muown.hpp>

#include "rules.hpp"

namespace small_gpt {

using namespace matopt;

void add_muown_rules(rule_book& book) { book.add<muown>("muown").add<angular_muown>("angular_muown"); }

}  // namespace small_gpt
