#include <matopt/eigen.hpp>

#include "rules.hpp"
#include "torch_muon.hpp"

void add_torch_muon_rules(rule_books& to) { add_torch_muon_forms(to.in_float), add_torch_muon_forms(to.in_double); }
