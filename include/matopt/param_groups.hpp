// param_groups: several rules, each with its own rate, settings and schedules, that step as one optimizer.
//
//   param_groups groups(cpu, muon{}, 0.02, adamw{}, 3e-3);             hidden matrices; and everything else
//   groups.add("blocks.0.attention.qkv", w, g, role::hidden, {.row_blocks = {128, 128, 128}});
//   groups.add("token_embedding", e, ge, role::embedding);
//
//   param_groups<eigen_backend> groups(cpu);                           any number of groups, by label
//   groups.add_group("experts", muon{}, 0.02).add_group("router", adamw{}, 1e-3);
//   groups.add("experts.w1", w, g, "experts");
//
//   groups.finalize();
//   groups.step(schedule.factor(t));                                   one schedule: its factor multiplies every rate
//   groups.step(factor, gradient_scale);                               and every gradient times the same scale
//   groups.schedule("experts", "momentum", linear(0.85, 0.95, 300));   one setting of one group; "lr" is its rate
//
// The caller states the role or the group; shape never decides, for an embedding is a matrix too. Roles are a way to
// fill two groups that nobody gets wrong: role::hidden is the group "matrix", every other role the group "rest". Per
// parameter, `lr_scale` and `decay` replace the group's. table() prints who got what.
//
// All groups have one plan of memory, one check of gradients, one checkpoint, and on a GPU one recorded step. A step
// that one of them skips is skipped by all. A group with on_nonfinite::ignore is not looked at, and skips with the
// others. A parameter whose rule estimates from two gradients (needs_reference(role or label)) is added with a second
// one, as engine/any_optimizer.hpp says; for other groups it may be given, and is not looked at.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <initializer_list>
#include <locale>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/any_optimizer.hpp"

namespace MATOPT_NAMESPACE {

enum class role { hidden, embedding, head, vector };
constexpr auto enum_names(role) { return std::array<std::string_view, 4>{"hidden", "embedding", "head", "vector"}; }

template <class Backend, class Types = types<float>>
class param_groups : public any_optimizer<Backend, Types> {
  using base = any_optimizer<Backend, Types>;
  using W = typename Types::weight;
  using G = typename Types::gradient;
  using gradients = typename base::gradients;

 public:
  using rule_pointer = typename base::rule_pointer;

  struct assignment {
    std::string name, group;
    std::string kind;  // the role, if it was added by one
    std::string rule;
    index_t rows, cols;
    double lr_scale;
    std::string decay;  // "rule" if it is the rule's own
  };

  explicit param_groups(Backend& backend, optimizer_options options = {}) : base(backend), options_(options) {}
  // Two groups to be filled by roles.
  template <class Matrix, class Rest>
  requires rule_for<Matrix, Backend, Types> && rule_for<Rest, Backend, Types> param_groups(
      Backend& backend, Matrix matrix, double matrix_lr, Rest rest, double rest_lr, optimizer_options options = {})
      : param_groups(backend, options) {
    add_group("matrix", std::move(matrix), matrix_lr).add_group("rest", std::move(rest), rest_lr);
  }
  // The same from two optimizers without parameters, each of which may have options of its own.
  template <class OtherTypes>
  param_groups(base matrix, double matrix_lr, any_optimizer<Backend, OtherTypes> rest, double rest_lr)
      : param_groups(matrix.backend()) {
    if (&matrix.backend() != &rest.backend())
      throw bad_value("backend of the second optimizer", "another object",
                      "that of the first: they skip steps together");
    take_over(std::move(matrix), "matrix", matrix_lr), take_over(std::move(rest), "rest", rest_lr);
  }

  // Another group; returns this object. The label tells it from the others.
  template <class Rule>
  requires rule_for<Rule, Backend, Types> param_groups& add_group(const std::string& label, Rule rule, double lr) {
    return add_group(label, std::make_unique<typed_rule<Rule, Backend, Types>>(std::move(rule)), lr);
  }
  param_groups& add_group(const std::string& label, rule_pointer rule, double lr) {
    return add_group(label, std::move(rule), lr, options_);
  }
  param_groups& add_group(const std::string& label, rule_pointer rule, double lr, const optimizer_options& options) {
    detail::check_name("label of a group", label);
    for (const auto& g : this->groups_)
      if (g->label == label) throw bad_value("label of a group", '"' + label + '"', "one that no other group has");
    base::add_group(label, std::move(rule), lr, options);
    return *this;
  }

  void add(const std::string& name, viewed<W> w, gradients g, std::string_view group, const parameter_options& o = {}) {
    assign(name, w, g, nullptr, group, "", o);
  }
  void add(const std::string& name, viewed<W> w, gradients g, gradients reference, std::string_view group,
           const parameter_options& o = {}) {
    const view<const G> r = reference;
    assign(name, w, g, &r, group, "", o);
  }
  void add(const std::string& name, viewed<W> w, gradients g, role kind, const parameter_options& o = {}) {
    assign(name, w, g, nullptr, group_of(kind), detail::text(kind), o);
  }
  void add(const std::string& name, viewed<W> w, gradients g, gradients reference, role kind,
           const parameter_options& o = {}) {
    const view<const G> r = reference;
    assign(name, w, g, &r, group_of(kind), detail::text(kind), o);
  }
  void drop(const std::string& name) { drop(std::span(&name, 1)); }
  void drop(std::initializer_list<std::string> names) { drop(std::span(names.begin(), names.size())); }
  void drop(std::span<const std::string> names) {
    const std::unordered_set<std::string> gone(names.begin(), names.end());
    base::drop(names);
    std::erase_if(assignments_, [&](const auto& a) { return gone.contains(a.name); });
  }
  void set_parameter(const std::string& name, double lr_scale, std::optional<double> decay = {}) {
    base::set_parameter(name, lr_scale, decay);
    for (auto& a : assignments_)
      if (a.name == name) a.lr_scale = lr_scale, a.decay = decay_text(decay);
  }
  bool needs_reference(role kind) const { return needs_reference(group_of(kind)); }
  bool needs_reference(std::string_view group) const {
    return this->groups_[this->group_number(group)]->rule->needs_reference();
  }

  const std::vector<assignment>& assignments() const { return assignments_; }
  std::string table() const {
    std::ostringstream out;
    out.imbue(std::locale::classic());  // 0.02, also where the program writes 0,02
    for (const auto& a : assignments_)
      out << a.name << "  " << (a.kind.empty() ? a.group : a.kind) << "  " << a.rows << "x" << a.cols << "  lr "
          << lr(a.group) * a.lr_scale << "  decay " << a.decay << "  " << a.rule << '\n';
    return out.str();
  }

  // --- settings of a group; "lr" is its rate ---
  double lr(std::string_view group) const { return this->groups_[this->group_number(group)]->lr; }
  void set(std::string_view group, const std::string& name, const std::string& value) {
    this->set_in(this->group_number(group), name, value);
  }
  void set(std::string_view group, const std::string& name, double value) { set(group, name, detail::text(value)); }
  void schedule(std::string_view group, const std::string& name, schedule_function value) {
    this->group_called(group).schedule(name, std::move(value));
  }

  void step(double factor = 1, double gradient_scale = 1) {
    begin_step(factor, gradient_scale);
    this->enqueue();
  }
  void begin_step(double factor = 1, double gradient_scale = 1) {
    if (const range legal{.low = 0}; !legal.contains(factor))
      throw bad_value("factor", detail::text(factor), detail::text(legal));
    base::begin_step(factor, gradient_scale);
  }

 private:
  static std::string decay_text(std::optional<double> decay) { return decay ? detail::text(*decay) : "rule"; }
  static std::string_view group_of(role kind) { return kind == role::hidden ? "matrix" : "rest"; }

  template <class OtherTypes>
  void take_over(any_optimizer<Backend, OtherTypes> from, const std::string& label, double lr) {
    auto group = from.take_group();
    add_group(label, std::move(group->rule), lr * group->lr, group->options);
    for (auto& s : group->schedules) {
      // What was a factor of the rates given to step() is one of this rate.
      if (s.name == "lr") s.value = [lr, factor = std::move(s.value)](index_t step) { return lr * factor(step); };
      this->group_called(label).schedule(s.name, std::move(s.value));
    }
  }
  void assign(const std::string& name, view<W> w, view<const G> g, const view<const G>* reference,
              std::string_view group, const std::string& kind, const parameter_options& o) {
    const std::size_t number = this->group_number(group);
    this->add_to(number, name, w, g, reference, o);
    assignments_.push_back({name, std::string(group), kind, this->groups_[number]->rule->signature(), w.rows, w.cols,
                            o.lr_scale, decay_text(o.decay)});
  }

  optimizer_options options_{};
  std::vector<assignment> assignments_;
};

template <class Backend, class Matrix, class Rest, class... Options>
param_groups(Backend&, Matrix, double, Rest, double, Options...) -> param_groups<Backend>;
template <class Matrix, class Rest>
requires requires { typename Matrix::backend_type; }
param_groups(Matrix, double, Rest, double)->param_groups<typename Matrix::backend_type, typename Matrix::element_types>;

}  // namespace MATOPT_NAMESPACE
