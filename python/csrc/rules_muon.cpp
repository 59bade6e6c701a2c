#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>

#include "rules.hpp"
#include "torch_muon.hpp"

void add_muon_rules(rule_books& to) {
  matopt::add_muon_rules(to.in_float), matopt::add_muon_rules(to.in_double);
  add_torch_muon_forms(to.in_float), add_torch_muon_forms(to.in_double);
}
