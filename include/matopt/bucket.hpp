// What of an optimizer depends on its rule, behind two small interfaces, so that the rest is compiled once for all
// rules: any_rule, a rule with its settings, and bucket_rule, that rule with the state of one bucket of same-shape
// matrices.
#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/limits.hpp"
#include "plan.hpp"
#include "rule.hpp"

namespace matopt {

// Some state of a bucket, and the slot that keeps it.
struct placed_state : state_entry {
  std::string slot;
};

// The shape and order that the matrices of a bucket have in common.
struct bucket_shape {
  index_t rows, cols, batch;
  bool column_major;
};

template <class Backend, class Types>
class bucket_rule {
 public:
  using compute = typename Types::compute;
  using weights = view<typename Types::weight>;
  using gradients = view<const typename Types::gradient>;

  virtual ~bucket_rule() = default;
  // Places the state in `memory`, or only counts.
  virtual std::vector<placed_state> place(arena& memory, const bucket_shape& shape) = 0;
  virtual std::size_t scratch(const Backend& backend, const bucket_shape& shape) const = 0;
  virtual void init(pass<Backend, compute>& e, weights w) = 0;
  virtual void step(pass<Backend, compute>& e, weights w, gradients g, gradients reference) = 0;
  virtual double rank_budget(index_t step, index_t q) const = 0;  // q without a budget
  virtual index_t phase(index_t step) const = 0;
};

template <class Backend, class Types>
class any_rule {
 public:
  virtual ~any_rule() = default;
  // With a decay in place of the rule's own; and with gradients that are multiplied by the step's gradient scale first.
  virtual std::unique_ptr<bucket_rule<Backend, Types>> bind(std::optional<double> decay,
                                                            bool scales_gradient) const = 0;
  virtual std::string signature() const = 0;
  virtual std::vector<setting> settings() const = 0;
  virtual index_t decays() const = 0;  // how many of its settings are called decay
  virtual bool needs_reference() const = 0;
};

template <class Rule, class Backend, class Types>
class typed_bucket final : public bucket_rule<Backend, Types> {
  using base = bucket_rule<Backend, Types>;
  using C = typename Types::compute;

 public:
  typed_bucket(Rule rule, bool scales_gradient) : rule_(std::move(rule)), scales_gradient_(scales_gradient) {}

  std::vector<placed_state> place(arena& memory, const bucket_shape& shape) override {
    std::vector<placed_state> out;
    rule_.each_state(state_, [&](std::string_view slot, const auto& policy, auto& own) {
      state_layout<typename Types::state, C> layout(memory, shape.rows, shape.cols, shape.batch, shape.column_major);
      lay_out(policy, layout, own);
      for (const state_entry& e : layout.entries()) {
        out.push_back({e, std::string(slot)});
        // A rule may have a policy twice, for example in nested projections; each keeps state of its own.
        for (int n = 2;
             std::count_if(out.begin(), out.end(), [&](const auto& o) { return o.name == out.back().name; }) > 1; ++n)
          out.back().name = e.name + "_" + std::to_string(n);
      }
    });
    return out;
  }
  std::size_t scratch(const Backend& backend, const bucket_shape& s) const override {
    return plan_scratch<Types>(rule_, backend, s.rows, s.cols, s.batch, s.column_major, scales_gradient_);
  }
  void init(pass<Backend, C>& e, typename base::weights w) override { rule_.init(e, state_, w); }
  void step(pass<Backend, C>& e, typename base::weights w, typename base::gradients g,
            typename base::gradients reference) override {
    detail::run_step(rule_, scales_gradient_, e, state_, w, g, reference);
  }
  double rank_budget(index_t step, index_t q) const override {
    if constexpr (limits_rank<typename Rule::constraint_type>)
      return rule_.constraint.rank_budget(step, q);
    else
      return static_cast<double>(q);
  }
  index_t phase(index_t step) const override { return rule_.phase(step); }

 private:
  Rule rule_;
  bool scales_gradient_;
  typename Rule::template state<Types> state_{};
};

template <class Rule, class Backend, class Types>
class typed_rule final : public any_rule<Backend, Types> {
 public:
  explicit typed_rule(Rule r) : rule(std::move(r)) {
    rule.validate();
    validate_settings_in<typename Types::compute, typename Types::state>(rule);
  }

  std::unique_ptr<bucket_rule<Backend, Types>> bind(std::optional<double> decay, bool scales_gradient) const override {
    Rule own = rule;
    if (decay) visit_decay(own, [&](double& d) { d = *decay; });
    return std::make_unique<typed_bucket<Rule, Backend, Types>>(std::move(own), scales_gradient);
  }
  std::string signature() const override { return Rule::name(); }
  std::vector<setting> settings() const override { return settings_of(rule); }
  index_t decays() const override {
    index_t found = 0;
    Rule own = rule;
    visit_decay(own, [&](double&) { ++found; });
    return found;
  }
  bool needs_reference() const override { return matopt::needs_reference<typename Rule::momentum_type>; }

  Rule rule;

 private:
  template <class F>
  static void visit_decay(Rule& r, F f) {
    Rule::settings(r, [&](std::string_view name, auto& field, range = {}) {
      if constexpr (std::is_same_v<std::decay_t<decltype(field)>, double>)
        if (name == "decay") f(field);
    });
  }
};

}  // namespace matopt
