// torch_optimizer: matopt's rules on the tensors of libtorch. It behaves as an optimizer of PyTorch does.
//
//   matopt::rule_registry<matopt::eigen_backend> rules;
//   rules.add<matopt::muon>("muon").add<matopt::adamw>("adamw");
//   matopt::torch_optimizer opt(matopt::torch_rules().add(rules));
//   opt.add_param_group({.params = hidden, .rule = "muon", .lr = 0.02});
//   opt.add_param_group({.params = others, .rule = "adamw", .lr = 3e-3, .settings = {{"decay", "0.01"}}});
//   opt.zero_grad(), loss.backward(), opt.step();
//   opt.groups()[0].lr *= 0.5;                         a scheduler: the rate is read in each step
//
// Which tensor is which matrix: torch/matrix.hpp; convolutions are flattened to out x (in kh kw). Tensors without
// elements are ignored. A tensor takes part from the first step in which it has a gradient or asks for one
// (requires_grad); its state, and what a rule keeps of the weight, begin then. Tensors of any device and type with
// rules (torch/rules.hpp) may be in one group.
//
// Gradients may be undefined, which leaves the parameter out of that step with its state as it is; they may lie
// elsewhere in each step, also where another one lies, and so may the data of a parameter. What has the strides and the
// type that are expected, as gradients from backward() have, is read and written where it is. Else it is copied:
// gradients that are expanded or transposed, convolutions in channels_last, and tensors of 16 bits, whose steps are
// computed in float, with float state. `master_weights` keeps the float copy of these for good, so that small steps add
// up; without it the weight is rounded in each step. When PyTorch's version counter says that somebody else has written
// a parameter, masters and norms that are kept of it are renewed; after a write past the counter (`p.data().mul_()`)
// call resync().
//
// A matrix rule on an embedding or on an output head trains badly, and nothing fails. So a tensor of two dimensions that
// looks like one, by its name and shape (suggest_roles.hpp), is refused in a group with such a rule, unless the group
// says `confirmed`.
//
// A gradient that is not finite skips the step of all tensors of its device and compute type; poll_status() tells.
// State: state(), or matopt::save_state(opt, path) of state_io.hpp. Errors: bad_value, before anything has changed.
// Not thread-safe, except that different optimizers may step in different threads.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/core/grad_mode.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../suggest_roles.hpp"
#include "torch/cpu.hpp"
#include "torch/parameter_set.hpp"
#include "torch/rules.hpp"

namespace MATOPT_NAMESPACE {

struct torch_group {
  std::vector<at::Tensor> params;
  std::string rule;
  std::optional<double> lr{};        // without one: what the rule's authors publish
  std::vector<setting> settings{};   // of the rule; others have its defaults
  bool master_weights = false;       // for tensors of 16 bits
  bool stacked = false;              // the first dimension counts matrices (experts)
  bool confirmed = false;            // its tensors are meant for its rule, also those that look like embeddings
  std::vector<std::string> names{};  // for errors and checkpoints: one for each tensor, or none
};

class torch_optimizer {
 public:
  // What may be changed between steps of a group that was added.
  struct group_state {
    double lr;
    const torch_group& added() const { return added_; }

   private:
    friend torch_optimizer;
    group_state(double rate, torch_group g) : lr(rate), added_(std::move(g)) {}
    torch_group added_;
    std::string signature_;
    std::vector<setting> all_settings_, default_settings_;
    bool needs_reference_ = false;
  };
  using tensor_state = detail::torch_state;  // of one parameter: tensors by name
  struct assignment {
    std::string name, group, rule;
    index_t rows;
  };

  explicit torch_optimizer(torch_rules rules, on_nonfinite nonfinite = on_nonfinite::skip_step)
      : rules_(std::move(rules)), parameters_(rules_, {.nonfinite = nonfinite}) {}
  torch_optimizer(const torch_optimizer&) = delete;
  torch_optimizer& operator=(const torch_optimizer&) = delete;

  // At any time. A tensor that is twice in the group counts once; one that is in another group is an error.
  void add_param_group(torch_group g) {
    if (!g.names.empty() && g.names.size() != g.params.size())
      throw bad_value("number of names", std::to_string(g.names.size()), "one for each tensor, or none");
    std::vector<detail::torch_parameter> fresh;
    std::vector<at::Tensor> once;
    std::vector<std::string> names;
    std::optional<torch_rules::facts> facts;
    double published = 0;
    for (std::size_t i = 0; i < g.params.size(); ++i) {
      const at::Tensor& t = g.params[i];
      const std::size_t number = parameters_.size() + fresh.size();
      detail::torch_parameter p(t, g.names.empty() ? "param." + std::to_string(number) : g.names[i], groups_.size(),
                                g.stacked, g.master_weights);
      if (!t.defined()) throw bad_value('"' + p.name + '"', "undefined", "a tensor");
      if (std::any_of(once.begin(), once.end(), [&](const at::Tensor& o) { return o.is_same(t); })) continue;
      if (parameters_.contains(t)) throw bad_value('"' + p.name + '"', "a parameter of another group", "in one group");
      if (!t.is_leaf()) throw bad_value('"' + p.name + '"', "the result of an operation", "a leaf tensor");
      const auto& catalog = rules_.of(t.device().type(), p.compute_type());
      facts = catalog.of(g.rule, g.settings), published = catalog.published_lr(g.rule);
      check_shape(p, g.rule, facts->steps_vectors);
      if (!facts->steps_vectors && !g.confirmed) check_role(p, g.rule);
      once.push_back(t), names.push_back(p.name), fresh.push_back(std::move(p));
    }
    if (!facts) throw bad_value("number of parameters of a group", "0", "at least 1");
    if (!g.lr && published == 0) throw bad_value("lr of rule \"" + g.rule + '"', "missing", "given: it names none");
    parameters_.check_names(fresh);
    group_state added(g.lr.value_or(published), std::move(g));
    check_rate(added.lr, groups_.size());
    added.added_.params = std::move(once), added.added_.names = std::move(names);
    added.signature_ = facts->signature;
    added.all_settings_ = facts->settings, added.default_settings_ = facts->default_settings;
    added.needs_reference_ = facts->needs_reference;
    groups_.push_back(std::move(added));
    parameters_.append(std::move(fresh));
  }
  std::vector<group_state>& groups() { return groups_; }
  const std::vector<group_state>& groups() const { return groups_; }

  void zero_grad(bool set_to_none = true) {
    for (auto& p : parameters_) {
      at::Tensor& g = p.tensor.mutable_grad();
      if (!g.defined()) continue;
      if (set_to_none)
        g = at::Tensor();
      else
        g = g.detach(), g.zero_();
    }
  }
  // A setting of the rule of group number `group`, from the next step on.
  void set(std::size_t group, const std::string& name, const std::string& value) {
    group_state& of = groups_.at(group);
    auto settings = of.added_.settings;
    std::erase_if(settings, [&](const setting& s) { return setting_name(s.name) == setting_name(name); });
    settings.push_back({name, value});
    const at::Tensor& any = of.added_.params.front();
    const auto facts =
        rules_.of(any.device().type(), detail::compute_type_of("a parameter", any)).of(of.added_.rule, settings);
    parameters_.set(label(group), name, value);
    of.added_.settings = std::move(settings), of.all_settings_ = facts.settings;
  }
  // The second gradient of the next step, for rules that estimate from two: for example that of the same batch at the
  // weights before the last step. It is copied. A parameter's first step needs none.
  void set_reference(const at::Tensor& parameter, const at::Tensor& gradient) {
    const at::NoGradGuard no_grad;
    parameters_.set_reference(parameter, gradient, group_specs());
  }

  // The closure computes gradients, and returns what step() returns.
  at::Tensor step(const std::function<at::Tensor()>& closure = {}) {
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode grad(true);
      loss = closure();
    }
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < groups_.size(); ++i) check_rate(groups_[i].lr, i);
    parameters_.step(group_specs());
    return loss;
  }
  // Gives every parameter that requires a gradient its state, as the first step would. For checkpoints that are loaded
  // before it.
  void prepare() {
    const at::NoGradGuard no_grad;
    parameters_.enter(group_specs());
  }
  // After weights were written past PyTorch's version counter.
  void resync() { parameters_.resync(); }
  step_status poll_status() { return parameters_.poll_status(); }

  // --- state ---
  std::size_t size() const { return parameters_.size(); }
  // Of all parameters, in the order in which they were added: copies on the CPU. Empty for those without state so far.
  std::vector<tensor_state> state() const { return parameters_.state(); }
  // What state() has given. All of it is compared with what is here before anything changes; parameters with an empty
  // state begin anew.
  void load_state(const std::vector<tensor_state>& all, index_t steps) {
    const at::NoGradGuard no_grad;
    parameters_.load_state(all, steps, group_specs());
  }
  index_t steps() const { return parameters_.steps(); }
  void set_steps(index_t steps) { parameters_.set_steps(steps); }
  // For save_state() and load_state() of state_io.hpp, and for state_conversion.hpp; call prepare() before state is
  // written.
  std::vector<state_tensor> state_tensors() const { return parameters_.state_tensors(); }
  void read_state(const state_tensor& t, void* host) const { parameters_.read_state(t, host); }
  void write_state(const state_tensor& t, const void* host) { parameters_.write_state(t, host); }
  std::string signature() const {
    std::string all;
    for (const auto& g : groups_) all += (all.empty() ? "" : " + ") + g.signature_;
    return all;
  }
  // The place of each matrix' rule in signature(), by the name of the matrix: "<parameter>.2" is the third one of a stack.
  // Where there is one group, of none.
  std::vector<std::pair<std::string, std::size_t>> rules_of_matrices() const {
    std::vector<std::pair<std::string, std::size_t>> all;
    if (groups_.size() < 2) return all;
    for (const auto& p : parameters_)
      if (p.stacked && p.tensor.size(0) > 1)
        for (int64_t i = 0; i < p.tensor.size(0); ++i) all.emplace_back(p.name + '.' + std::to_string(i), p.group);
      else
        all.emplace_back(p.name, p.group);
    return all;
  }
  // For state_conversion.hpp.
  std::vector<assignment> assignments() const {
    std::vector<assignment> all;
    for (const auto& p : parameters_) {
      const int64_t of_rows = p.stacked ? 1 : 0;
      all.push_back(
          {p.name, label(p.group), groups_[p.group].signature_, p.tensor.dim() > of_rows ? p.tensor.size(of_rows) : 1});
    }
    return all;
  }
  std::vector<setting> settings() const { return of_groups(&group_state::all_settings_); }
  std::vector<setting> default_settings() const { return of_groups(&group_state::default_settings_); }
  std::vector<setting> scheduled_settings() const { return {}; }  // a scheduler is the caller's, and calls set()

 private:
  static std::string label(std::size_t group) { return std::to_string(group); }
  std::vector<setting> of_groups(std::vector<setting> group_state::*list) const {
    std::vector<setting> all;
    for (std::size_t i = 0; i < groups_.size(); ++i)
      for (const setting& s : groups_[i].*list) all.push_back({label(i) + "." + s.name, s.value});
    return all;
  }
  std::vector<detail::torch_group_spec> group_specs() const {
    std::vector<detail::torch_group_spec> all;
    for (std::size_t i = 0; i < groups_.size(); ++i)
      all.push_back(
          {label(i), groups_[i].added_.rule, groups_[i].added_.settings, groups_[i].lr, groups_[i].needs_reference_});
    return all;
  }
  static void check_rate(double lr, std::size_t group) {
    if (const range legal{.low = 0}; !legal.contains(lr) || lr > static_cast<double>(largest_input<float>))
      throw bad_value("lr of group " + label(group), detail::text(lr), detail::text(legal) + ", and finite in float");
  }
  static void check_shape(const detail::torch_parameter& p, const std::string& rule, bool steps_vectors) {
    const auto dimensions = p.tensor.dim() - (p.stacked ? 1 : 0);
    if (p.stacked && dimensions < 1)
      throw bad_value("shape of \"" + p.name + '"', detail::text(p.tensor.sizes()),
                      "a stack, of two dimensions or more");
    if (dimensions < 2 && !steps_vectors)
      throw bad_value("shape of \"" + p.name + '"', detail::text(p.tensor.sizes()),
                      "of two dimensions or more: rule \"" + rule +
                          "\" steps matrices; put vectors into a group with a rule such as \"adamw\"");
  }
  static void check_role(const detail::torch_parameter& p, const std::string& rule) {
    if (p.tensor.dim() != 2) return;
    const index_t shape[] = {p.tensor.size(0), p.tensor.size(1)};
    const role seems = suggest_role(p.name, shape);
    if (seems == role::embedding || seems == role::head)
      throw bad_value("rule of \"" + p.name + "\" " + detail::text(p.tensor.sizes()), '"' + rule + '"',
                      "one for vectors, such as \"adamw\": it looks like an " +
                          std::string(seems == role::head ? "output head" : "embedding") +
                          "; or say that its group is confirmed");
  }

  torch_rules rules_;
  std::vector<group_state> groups_;
  detail::torch_parameter_set parameters_;
};

}  // namespace MATOPT_NAMESPACE
