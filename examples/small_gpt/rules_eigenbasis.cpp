#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "rules.hpp"

namespace small_gpt {

void add_eigenbasis_rules(rule_book& book) { matopt::add_eigenbasis_rules(book); }

}  // namespace small_gpt
