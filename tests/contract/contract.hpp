// The contract table on the CPU: each rule's own code is in a file of its own. A new rule is one line in a rules_*.cpp.
#pragma once
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <matopt/eigen.hpp>
#include <matopt/optimizer.hpp>

#include "../support/deferred_backend.hpp"
#include "subject.hpp"

namespace matopt::test {

// The eager backend.
using counting_backend = counting<eigen_backend>;

template <class Rule, class Types>
mixed_run make_mixed(const Rule& rule) {
  return [rule](const mat& w0, const std::vector<mat>& gradients, double lr) {
    stored<typename Types::weight> w(w0.rows, w0.cols);
    stored<typename Types::gradient> g(w0.rows, w0.cols), r(w0.rows, w0.cols);
    w.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
    counting_backend cpu(1);
    optimizer<Rule, counting_backend, Types> opt(cpu, rule);
    if constexpr (matopt::needs_reference<typename Rule::momentum_type>)
      opt.add("w", w.v(), g.cv(), r.cv());
    else
      opt.add("w", w.v(), g.cv());
    opt.finalize();
    for (const mat& next : gradients) {
      g.fill([&](index_t i, index_t j, index_t) { return next(i, j); });
      opt.step(lr);
    }
    return to_mat(w.cv());
  };
}

template <class Rule>
contract_rule describe_rule(std::string name, const Rule& rule = {}, bool exact_at_rest = true) {
  contract_rule r{std::move(name), exact_at_rest};
  const auto with = [rule]<class B, class T>(std::type_identity<B>, std::type_identity<T>) {
    return [rule](const subject_options& o) -> std::unique_ptr<subject<T>> {
      return make_subject<B, T>(
          [&](B& b, const optimizer_options& p) { return any_optimizer<B, types<T>>(b, rule, p); }, o);
    };
  };
  r.in_float = with(std::type_identity<counting_backend>{}, std::type_identity<float>{});
  r.in_double = with(std::type_identity<counting_backend>{}, std::type_identity<double>{});
  r.late = with(std::type_identity<deferred_backend<counting_backend>>{}, std::type_identity<double>{});
  r.in_double_types = make_mixed<Rule, types<double>>(rule);
  return r;
}

// One function per rules_*.cpp.
void append_muon(std::vector<contract_rule>& rules);
void append_adamw(std::vector<contract_rule>& rules);
void append_numuon(std::vector<contract_rule>& rules);
void append_numuon_exact(std::vector<contract_rule>& rules);
void append_numuon_warm(std::vector<contract_rule>& rules);
void append_muown(std::vector<contract_rule>& rules);
void append_angular(std::vector<contract_rule>& rules);
void append_numuown(std::vector<contract_rule>& rules);
void append_published(std::vector<contract_rule>& rules);  // all that are not above, each with its published defaults

}  // namespace matopt::test
