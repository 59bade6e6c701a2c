// The rules that Python knows by name. Each translation unit rules_*.cpp adds its own.
#pragma once
#include <matopt/engine/rule_registry.hpp>

namespace MATOPT_NAMESPACE {
class eigen_backend;
class torch_rules;
}  // namespace MATOPT_NAMESPACE

struct rule_books {
  matopt::rule_registry<matopt::eigen_backend> in_float;
  matopt::rule_registry<matopt::eigen_backend, matopt::types<double>> in_double;
};

void add_muon_rules(rule_books&);  // and what torch.optim.Muon can be set to besides
void add_normalized_rules(rule_books&);
void add_adaptive_rules(rule_books&);
void add_estimator_rules(rule_books&);
void add_baseline_rules(rule_books&);
void add_constrained_rules(rule_books&);
void add_eigenbasis_rules(rule_books&);

// cuda.cu: the rules on a GPU, if the extension was built with them.
void add_gpu_rules(matopt::torch_rules&);
