#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "compositions.hpp"
#include "rules.hpp"

namespace small_gpt {

void add_constrained_rules(rule_book& book) {
  matopt::add_constrained_rules(book);
  add_compositions_to(book);
}

}  // namespace small_gpt
