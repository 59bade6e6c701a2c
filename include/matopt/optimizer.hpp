// optimizer<Rule, Backend, Types>: one rule for all parameters, with the rule in the type, so that a rule that a
// backend cannot run, or a reference gradient that is missing, is an error of the compiler.
//
//   optimizer<muon, eigen_backend> opt(backend);
//   opt.add("name", weight_view, gradient_view);
//   opt.finalize();
//   opt.step(lr);
//
// What these and the other members do, and what they cost, stands in engine/any_optimizer.hpp.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <type_traits>
#include <utility>

#include "compiled/rules.hpp"
#include "engine/any_optimizer.hpp"

namespace MATOPT_NAMESPACE {

template <class Rule, class Backend, class Types = types<float>>
requires rule_for<Rule, Backend, Types>
class optimizer : public any_optimizer<Backend, Types> {
  using base = any_optimizer<Backend, Types>;
  using W = typename Types::weight;
  using gradients = viewed<const typename Types::gradient>;
  static constexpr bool two_gradients = matopt::needs_reference<typename Rule::momentum_type>;

 public:
  using rule_type = Rule;

  explicit optimizer(Backend& backend, Rule rule = {}, optimizer_options options = {})
      : base(backend, std::move(rule), options) {}

  void add(const std::string& name, viewed<W> w, gradients g,
           const parameter_options& o = {}) requires(!two_gradients) {
    base::add(name, w, g, o);
  }
  void add(viewed<W> w, gradients g, const parameter_options& o = {}) requires(!two_gradients) { base::add(w, g, o); }
  // For a rule that estimates from two gradients.
  void add(const std::string& name, viewed<W> w, gradients g, gradients reference,
           const parameter_options& o = {}) requires two_gradients {
    base::add(name, w, g, reference, o);
  }

  const Rule& rule() const {
    return static_cast<const typed_rule<Rule, Backend, Types>&>(*this->groups_.front()->rule).rule;
  }
};

}  // namespace MATOPT_NAMESPACE
