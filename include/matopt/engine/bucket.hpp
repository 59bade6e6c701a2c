// What of an optimizer depends on its rule, behind two small interfaces, so that the rest is compiled once for all
// rules: any_rule, a rule with its settings, and bucket_rule, that rule with the state of one bucket of same-shape
// matrices.
//
// Both are known by the types that all rules of an optimizer share: shared_types<Types>, in which the type of the state
// is left out. Rules whose state has different types can so step together.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/limits.hpp"
#include "../policy/orthogonalizer/line_direction.hpp"
#include "../policy/orthogonalizer/no_orthogonalizer.hpp"
#include "../policy/orthogonalizer/sign_direction.hpp"
#include "../rule.hpp"
#include "plan.hpp"

namespace MATOPT_NAMESPACE {

template <class Types>
using shared_types =
    types<typename Types::weight, typename Types::gradient, typename Types::compute, typename Types::compute>;

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
class any_rule;

template <class Backend, class Types>
class bucket_rule {
 public:
  using compute = typename Types::compute;
  using weights = view<typename Types::weight>;
  using gradients = view<const typename Types::gradient>;

  virtual ~bucket_rule() = default;
  // Places the state in `memory`, or only counts.
  virtual std::vector<placed_state> place(arena& memory, const bucket_shape& shape) = 0;
  virtual std::size_t scratch(Backend& backend, const bucket_shape& shape) const = 0;
  virtual void init(pass<Backend, compute>& e, weights w) = 0;
  // What the state copies of the weight is read from the weight again.
  virtual void resync(pass<Backend, compute>& e, weights w) = 0;
  virtual bool keeps_copy() const = 0;  // resync() has something to read
  virtual void step(pass<Backend, compute>& e, weights w, gradients g, gradients reference) = 0;
  virtual bool limits_rank() const = 0;
  virtual double rank_budget(index_t step, index_t q) const = 0;  // q without a limit
  virtual index_t phase(index_t step, index_t place) const = 0;   // place: among the buckets of its group
  // Takes the settings of the rule that it was made of. Allocates nothing.
  virtual void take_settings(const any_rule<Backend, Types>& rule) = 0;
};

template <class Backend, class Types>
class any_rule {
 public:
  virtual ~any_rule() = default;
  // With a decay in place of the rule's own; and with gradients that are multiplied by the step's gradient scale first.
  virtual std::unique_ptr<bucket_rule<Backend, Types>> bind(std::optional<double> decay,
                                                            bool scales_gradient) const = 0;
  virtual std::unique_ptr<any_rule> copy() const = 0;
  virtual std::string signature() const = 0;
  virtual std::vector<setting> settings() const = 0;
  virtual std::vector<setting> default_settings() const = 0;  // of a rule that nobody has set anything of
  // Sets one of them. An error leaves all as they were.
  virtual void set(std::string_view name, std::string_view value) = 0;
  // A setting that is a number with a fraction: its value, and a new one, without allocating. What is wrong with the
  // value by itself, or with the name, is an error that leaves all as they were. Where several are set, check() comes
  // after the last, and throws bad_value if they do not agree with each other.
  virtual double number(std::string_view name) const = 0;
  virtual void set_number(std::string_view name, double value) = 0;
  virtual void check() const = 0;
  virtual bool has_decay() const = 0;                       // one of its settings is called decay
  virtual std::optional<double> decay_by_rate() const = 0;  // c, if a step multiplies weights by 1 - lr c
  virtual bool needs_reference() const = 0;
  virtual bool steps_vectors() const = 0;       // means something for a bias or gain, as n x 1
  virtual double largest_gradient() const = 0;  // an entry beyond it counts as infinite
};

namespace detail {
// The setting of that name that is a number with a fraction; no value if there is none.
struct number_field {
  double* value = nullptr;
  range legal{};
};
inline number_field number_called(const setting_fields& fields, std::string_view wanted) {
  number_field found;
  fields.each([&](const setting_field& f) {
    if (f.kind == field_kind::number && f.name == wanted) found = {&f.number(), f.legal};
  });
  return found;
}
// A rule with two settings of one name is refused: nobody could say by text, in a schedule or in a checkpoint which of
// them is meant.
[[gnu::cold]] inline void check_names(const setting_fields& fields, const std::string& rule) {
  std::vector<std::string> names;
  fields.each([&](const setting_field& f) {
    if (std::find(names.begin(), names.end(), f.name) != names.end())
      throw error("two policies of " + rule + " have a setting \"" + std::string(f.name) +
                  "\"; prefixed<\"inner\", P> in the place of one of them, P, calls its setting \"inner_" +
                  std::string(f.name) + '"');
    names.emplace_back(f.name);
  });
}
// No policy of the rule asks for the directions of a matrix: of a vector, the only one is the vector itself. (A
// momentum with phases renews bases in some of them.)
template <class Rule>
constexpr bool steps_vectors() {
  using O = typename Rule::orthogonalizer_type;
  return (std::is_base_of_v<no_orthogonalizer, O> || std::is_base_of_v<sign_direction, O> ||
          std::is_base_of_v<column_direction, O>)&&!orthogonalizes<typename Rule::momentum_type> &&
         !orthogonalizes<typename Rule::constraint_type> && count_phases<typename Rule::momentum_type>() == 1;
}
template <class C, class S>
[[gnu::cold]] void check_changed(std::string_view name, double value, const range& legal) {
  const double held = static_cast<double>(static_cast<C>(value));
  if (!legal.contains(value) || !legal.contains(held)) check_number<C>(std::string(name), value, legal);
  if (legal.average != 0) check_average<S>(std::string(name), value, legal.average);
}
// A rule may have a policy twice, for example in nested projections; each keeps state of its own.
[[gnu::cold]] inline void append_state(std::vector<placed_state>& out, const std::vector<state_entry>& own,
                                       std::string_view slot) {
  const auto taken = [&](const std::string& name) {
    return std::any_of(out.begin(), out.end(), [&](const auto& o) { return o.name == name; });
  };
  for (const state_entry& e : own) {
    std::string name = e.name;
    for (int n = 2; taken(name); ++n) name = e.name + "_" + std::to_string(n);
    out.push_back({e, std::string(slot)});
    out.back().name = name;
  }
}
}  // namespace detail

// A rule with its policies in its type, whatever its preset.
template <class Policies, class Backend, class Types>
class rule_of_policies : public any_rule<Backend, shared_types<Types>> {
 public:
  // The policies as they are set. Allocates nothing where `to` has had as many numbers.
  virtual void copy_to(Policies& to) const = 0;
};

template <class Rule, class Backend, class Types>
class typed_bucket final : public bucket_rule<Backend, shared_types<Types>> {
  using base = bucket_rule<Backend, shared_types<Types>>;
  using C = typename Types::compute;

 public:
  [[gnu::cold]] typed_bucket(Rule rule, std::optional<double> decay, bool scales_gradient)
      : rule_(std::move(rule)), decay_(decay), scales_gradient_(scales_gradient) {
    override_decay();
  }

  [[gnu::cold]] std::vector<placed_state> place(arena& memory, const bucket_shape& shape) override {
    std::vector<placed_state> out;
    rule_.each_state(state_, [&](std::string_view slot, const auto& policy, auto& own) {
      state_layout<typename Types::state, C> layout(memory, shape.rows, shape.cols, shape.batch, shape.column_major);
      lay_out(policy, layout, own);
      detail::append_state(out, layout.entries(), slot);
    });
    return out;
  }
  std::size_t scratch(Backend& backend, const bucket_shape& s) const override {
    return plan_scratch<Types>(rule_, backend, s.rows, s.cols, s.batch, s.column_major, scales_gradient_);
  }
  void init(pass<Backend, C>& e, typename base::weights w) override { rule_.init(e, state_, w); }
  void resync(pass<Backend, C>& e, typename base::weights w) override { rule_.resync(e, state_, w); }
  void step(pass<Backend, C>& e, typename base::weights w, typename base::gradients g,
            typename base::gradients reference) override {
    detail::run_step(rule_, scales_gradient_, e, state_, w, g, reference);
  }
  bool keeps_copy() const override {
    bool any = false;
    rule_.each_state(state_, [&]<class P, class St>(std::string_view, const P&, const St&) {
      any = any || detail::keeps_copy<P, pass<Backend, C>, St, typename Types::weight>();
    });
    return any;
  }
  bool limits_rank() const override { return matopt::limits_rank<typename Rule::constraint_type>; }
  double rank_budget(index_t step, index_t q) const override {
    if constexpr (matopt::limits_rank<typename Rule::constraint_type>)
      return rule_.constraint.rank_budget(step, q);
    else
      return static_cast<double>(q);
  }
  index_t phase(index_t step, index_t place) const override { return rule_.phase(step, place); }
  void take_settings(const any_rule<Backend, shared_types<Types>>& rule) override {
    static_cast<const rule_of_policies<Rule, Backend, Types>&>(rule).copy_to(rule_);
    override_decay();
  }

 private:
  void override_decay() {
    if (decay_) *detail::number_called(detail::setting_fields(rule_), "decay").value = *decay_;
  }

  Rule rule_;
  std::optional<double> decay_;
  bool scales_gradient_;
  typename Rule::template state<Types> state_{};
};

template <class Rule, class Backend, class Types>
class typed_rule final : public rule_of_policies<typename Rule::policies, Backend, Types> {
  using policies = typename Rule::policies;
  using base = any_rule<Backend, shared_types<Types>>;
  using C = typename Types::compute;

 public:
  [[gnu::cold]] explicit typed_rule(Rule r) : rule(std::move(r)) {
    detail::check_names(detail::setting_fields(rule), Rule::name());
    validate(rule);
  }

  [[gnu::cold]] std::unique_ptr<bucket_rule<Backend, shared_types<Types>>> bind(std::optional<double> decay,
                                                                                bool scales_gradient) const override {
    using bucket = bucket_rule<Backend, shared_types<Types>>;
    policies own;
    copy_to(own);
    return std::unique_ptr<bucket>(new typed_bucket<policies, Backend, Types>(std::move(own), decay, scales_gradient));
  }
  void copy_to(policies& to) const override { rule.copy_to(to); }
  [[gnu::cold]] std::unique_ptr<base> copy() const override { return std::unique_ptr<base>(new typed_rule(rule)); }
  [[gnu::cold]] std::string signature() const override { return Rule::name(); }
  [[gnu::cold]] std::vector<setting> settings() const override { return settings_of(rule); }
  [[gnu::cold]] std::vector<setting> default_settings() const override { return settings_of(Rule{}); }
  [[gnu::cold]] void set(std::string_view name, std::string_view value) override {
    Rule changed = rule;
    set_setting(changed, name, value);
    validate(changed);
    rule = std::move(changed);
  }
  double number(std::string_view name) const override { return *number_field(name).value; }
  void set_number(std::string_view name, double value) override {
    const detail::number_field found = number_field(name);
    detail::check_changed<C, typename Types::state>(name, value, found.legal);
    *found.value = value;
  }
  void check() const override { rule.validate(); }
  [[gnu::cold]] bool has_decay() const override {
    return detail::number_called(detail::setting_fields(rule), "decay").value;
  }
  std::optional<double> decay_by_rate() const override { return detail::decay_by_rate(rule.constraint); }
  bool needs_reference() const override { return matopt::needs_reference<typename Rule::momentum_type>; }
  bool steps_vectors() const override { return detail::steps_vectors<Rule>(); }
  double largest_gradient() const override { return largest_input<typename Types::weight, typename Types::state, C>; }

  Rule rule;

 private:
  detail::number_field number_field(std::string_view name) const {
    const auto found = detail::number_called(detail::setting_fields(rule), name);
    if (found.value) return found;
    const auto all = settings();
    if (std::none_of(all.begin(), all.end(), [&](const setting& s) { return s.name == name; })) {
      Rule unchanged = rule;
      set_setting(unchanged, name, "");  // says what is wrong with the name
    }
    throw error("setting \"" + std::string(name) + "\" is not a number with a fraction");
  }
  static void validate(const Rule& r) {
    r.validate();
    validate_settings_in<C, typename Types::state>(r);
  }
};

}  // namespace MATOPT_NAMESPACE
