// The rules of the contract on the GPU: all published ones, each held against its form on the CPU.
#include "contract.cuh"

// Defined by the objects of published.cu.
namespace MATOPT_NAMESPACE {
template <class B, class T>
void add_muon_rules(rule_registry<B, T>&);
template <class B, class T>
void add_normalized_rules(rule_registry<B, T>&);
template <class B, class T>
void add_adaptive_rules(rule_registry<B, T>&);
template <class B, class T>
void add_estimator_rules(rule_registry<B, T>&);
template <class B, class T>
void add_baseline_rules(rule_registry<B, T>&);
template <class B, class T>
void add_constrained_rules(rule_registry<B, T>&);
template <class B, class T>
void add_eigenbasis_rules(rule_registry<B, T>&);
}  // namespace MATOPT_NAMESPACE

namespace matopt::test {

template <class B, class T>
const rule_registry<B, types<T>>& published_rules() {
  static const rule_registry<B, types<T>> rules = [] {
    rule_registry<B, types<T>> r;
    add_muon_rules(r), add_normalized_rules(r), add_adaptive_rules(r);
    add_estimator_rules(r), add_baseline_rules(r), add_constrained_rules(r);
    add_eigenbasis_rules(r);
    return r;
  }();
  return rules;
}

const std::vector<contract_rule>& contract_rules() {
  static const std::vector<contract_rule> all = [] {
    std::vector<contract_rule> rules;
    append_published_on<cuda_subject>(rules);
    compare_with_cpu(rules);
    return rules;
  }();
  return all;
}

}  // namespace matopt::test
