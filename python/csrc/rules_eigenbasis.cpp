#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "rules.hpp"

void add_eigenbasis_rules(rule_books& to) {
  matopt::add_eigenbasis_rules(to.in_float), matopt::add_eigenbasis_rules(to.in_double);
}
