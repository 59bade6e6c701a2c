#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "rules.hpp"

void add_constrained_rules(rule_books& to) {
  matopt::add_constrained_rules(to.in_float), matopt::add_constrained_rules(to.in_double);
}
