// any_optimizer: applies rules, chosen at run time, to the caller's matrices on a backend. It is the engine under
// optimizer<Rule>, which has one rule in its type, and under param_groups, which has several.
//
//   any_optimizer<eigen_backend> opt(backend, muon{.momentum = {.beta = 0.9}});
//   opt.add("name", weight_view, gradient_view);       any number; same-shape matrices step together as one bucket
//   opt.memory();                                      what finalize() will allocate
//   opt.finalize();                                    allocates twice: state and scratch; release() undoes it
//   opt.step(lr);                                      = begin_step(lr), which hands the step's numbers over, and
//                                                        enqueue()
//   opt.step(lr, gradient_scale);                      the same for gradients times a factor: one over the number of
//                                                        accumulated batches, one over a loss scale, a clipping factor
//
// A rule that estimates from two gradients takes add("name", weight_view, gradient_view, reference_view): before each
// step the caller also fills in the second one, for example the gradient of the same batch at the weights before the
// last step. That of the first step is not used, but must be finite.
//
// With options.scales_gradient every step multiplies the gradients (and reference gradients) by its gradient_scale; the
// rule sees these, and whether a gradient is finite is decided by them. A rule that begins with an elementwise formula
// multiplies there; for others the product goes into scratch of the compute type. Without the option gradient_scale is
// 1. It is one of the numbers of the step: a recorded step is replayed with a new one. A scale of 0, NaN or infinity,
// which clipping makes of an infinite norm, skips the step, whatever options.nonfinite says; a negative one is an
// error. With options.max_norm the optimizer clips by itself: the norm of all gradients together, as scaled, is a
// number of the step, too.
//
// Rows are fan-out, columns fan-in. Weights and gradients stay where they are, in the backend's memory, and must
// outlive the optimizer; gradients are never written. If their owner may move them (a move assignment swaps storage),
// call rebind() then, and check_bound() in debug builds. A view without elements, the empty shard of a matrix, is taken
// and nothing happens to it; a gradient may repeat elements by strides of 0. A step allocates nothing, waits for
// nothing and reads nothing back; what the rule costs at run time is one virtual call per bucket. If a gradient holds
// NaN or infinity, that step leaves every weight and all state untouched; poll_status() tells. A finite entry beyond
// largest_input (limits.hpp; 2e31 in float) counts as infinity: sums and squares of such numbers are not finite. Not
// thread-safe. Errors derive from matopt::error; after one, the optimizer is as before the call.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/view_of.hpp"
#include "engine.hpp"

namespace MATOPT_NAMESPACE {

template <class Backend, class Types = types<float>>
class any_optimizer : protected engine<Backend, shared_types<Types>> {
 protected:
  using core = engine<Backend, shared_types<Types>>;
  using core::backend_, core::groups_, core::parameters_, core::plan_, core::stale_, core::steps_, core::seen_;
  using typename core::C, typename core::G, typename core::W;
  using gradients = viewed<const G>;  // a view, or what view_of makes one of

 public:
  using backend_type = Backend;
  using element_types = Types;
  using typename core::rule_pointer;

  template <class Rule>
  requires rule_for<Rule, Backend, Types> any_optimizer(Backend& backend, Rule rule, optimizer_options options = {})
      : any_optimizer(backend, std::make_unique<typed_rule<Rule, Backend, Types>>(std::move(rule)), options) {}
  any_optimizer(Backend& backend, rule_pointer rule, optimizer_options options = {}) : core(backend) {
    this->add_group("", std::move(rule), 1, options);
  }

  // --- parameters ---
  // Adds a matrix, or each matrix of a batch of stacked ones ("name.0", "name.1", ...), or each of its row blocks.
  // After finalize(), too: then finalize() is to be called once more.
  void add(const std::string& name, viewed<W> w, gradients g, const parameter_options& o = {}) {
    this->add_to(0, name, w, g, nullptr, o);
  }
  void add(viewed<W> w, gradients g, const parameter_options& o = {}) {
    std::size_t number = parameters_.size();  // stacks of no matrix leave it as it was
    while (parameters_.knows("parameter." + std::to_string(number))) ++number;
    add("parameter." + std::to_string(number), w, g, o);
  }
  // The same with a reference gradient, for a rule that needs one; any other does not look at it.
  void add(const std::string& name, viewed<W> w, gradients g, gradients reference, const parameter_options& o = {}) {
    const view<const G> r = reference;
    this->add_to(0, name, w, g, &r, o);
  }
  // Forgets what was added as `name`, and its state. After finalize(), finalize() is to be called once more. Many go in
  // one call, which takes as long as one of them.
  void drop(const std::string& name) { drop(std::span(&name, 1)); }
  void drop(std::span<const std::string> names) { this->drop_views(names); }
  void drop(std::initializer_list<std::string> names) { drop(std::span(names.begin(), names.size())); }
  bool needs_reference() const { return groups_.front()->rule->needs_reference(); }

  // What finalize() allocates, to the byte.
  memory_report memory() const { return typename core::plan(*backend_, parameters_, groups_).memory(); }

  // Once more after add() or drop(): memory is planned anew, and parameters that stay keep their state. It is copied
  // through the host, and both plans are in memory for that time.
  void finalize() {
    if (plan_ && !stale_) throw bad_order("finalize() called twice");
    if (parameters_.nothing_added()) throw bad_order("finalize() before any add()");
    this->make_plan();
  }
  // Undoes finalize(): the memory goes back to the backend, state is lost, and steps are counted from 0.
  void release() {
    if (plan_) steps_ = 0;  // a finalize() that fails leaves what set_steps() said
    plan_.reset();
    seen_ = {};
    stale_ = false;
    this->writes_.forget();
  }

  // --- steps ---
  void step(double lr, double gradient_scale = 1) {
    begin_step(lr, gradient_scale);
    enqueue();
  }

  // Hands this step's numbers over to the backend: rates, gradient scale, step number, rank. One copy.
  void begin_step(double lr, double gradient_scale = 1) { this->begin(lr, gradient_scale); }

  // The step itself: verbs of the backend only, the same ones each time as long as ranks(), phase() and plan_number()
  // are.
  void enqueue() { this->run(); }

  // The rank of each bucket in the step begun last, and the phase; a change asks for another recording of enqueue().
  const std::vector<index_t>& ranks() const {
    static const std::vector<index_t> none;
    return plan_ ? plan_->ranks : none;
  }
  index_t phase() const { return this->phase_of_plan(); }
  // What was recorded of enqueue() under another number of the plan points to memory that is gone; under another number
  // of the settings it has values that were replaced. No two plans of a program have the same number. 0 before
  // finalize().
  std::uint64_t plan_number() const { return plan_ ? plan_->number : 0; }
  std::uint64_t settings_number() const { return this->settings_number_; }

  // Waits, and tells which steps were skipped since the last poll, and why.
  step_status poll_status() {
    this->require_plan("poll_status()");
    this->look_at_status();
    return std::exchange(seen_, {});
  }
  // Waits, and gives the norm of all gradients of the last step together, as they were scaled; options.max_norm is set.
  double gradient_norm() const {
    if (groups_.empty() || !groups_.front()->options.measures())
      throw bad_order("gradient_norm() without optimizer_options::max_norm (infinity measures, and clips nothing)");
    this->require_plan("gradient_norm()");
    C norm = 0;
    backend_->download(&norm, plan_->control.norms + plan_->words(), sizeof norm);
    return static_cast<double>(norm);
  }

  // --- looking on ---
  // The matrices as they step, those of one shape and rule together, for work of one's own beside a step
  // (step_observer.hpp). The views have tables in the backend's memory, and are good until plan_number() changes; a
  // guard is not zero for a matrix of which the last step wrote nothing. Matrices without elements are not there.
  struct bucket_view {
    std::string group;               // its label
    std::vector<std::string> names;  // of the matrices, in the order of the batch
    view<const W> w;
    view<const G> g;
    const status_word* guards;
  };
  std::vector<bucket_view> buckets() {
    this->require_finalized("buckets()");
    this->upload_what_changed();
    std::vector<bucket_view> all;
    for (const auto& k : plan_->buckets) {
      if (k.empty()) continue;
      bucket_view& b = all.emplace_back(
          bucket_view{groups_[k.group]->label, {}, as_const(k.w), k.g, plan_->control.guards + k.first});
      for (const auto& member : k.members) b.names.push_back(member.name);
    }
    return all;
  }
  // Is called in each step by the thread that steps, after the verbs of a bucket were handed to the backend, with its
  // place in buckets(): to record an event, or to begin sending what is ready. A recorded step calls it while it is
  // recorded. It must not change the optimizer. An empty function ends it.
  void after_bucket(std::function<void(std::size_t)> hook) { this->after_bucket_ = std::move(hook); }

  // --- where gradients are, and who takes part ---
  // The gradient of the parameter that was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, gradients g) {
    this->require_gradient(name, "gradient", g);
    parameters_.rebind(name, g, &parameter<W, G>::g);
    this->tables_changed_ = true;
    this->look_for_gradients();
  }
  void rebind_reference(const std::string& name, gradients r) {
    if (!groups_[parameters_.group_of(name)]->rule->needs_reference())
      throw bad_value("reference gradient of \"" + name + '"', "given", "not given: this rule estimates from one");
    this->require_gradient(name, "reference gradient", r);
    parameters_.rebind(name, r, &parameter<W, G>::r);
    this->tables_changed_ = true;
    this->look_for_gradients();
  }
  // The gradients of all views that were added, in that order, for the steps that follow. A null pointer says that
  // there is no gradient: the parameter is left out of the steps until it has one again. Also weights may have moved.
  void rebind(std::span<const G* const> all) { rebind(std::span<W* const>(), all); }
  void rebind(std::span<W* const> weights, std::span<const G* const> all) { this->rebind_all(weights, all, {}); }
  // The same with the reference gradients of rules that need one. Entries of other parameters are not looked at, and an
  // empty span leaves everything of its kind where it is.
  void rebind(std::span<W* const> weights, std::span<const G* const> all, std::span<const G* const> references) {
    this->rebind_all(weights, all, references);
  }
  void rebind_references(std::span<const G* const> references) { this->rebind_all({}, {}, references); }
  // These take no part in the steps that follow, until the next call, whatever is added or dropped: their weights, state
  // and counts stay as they are, bit for bit, and their gradients are not read. By name of a parameter, a stack ("experts") or one matrix of it
  // ("experts.3"). A gradient of zeros is another thing: momentum goes on moving the weight for hundreds of steps.
  void leave_out(std::span<const std::string> names) {
    std::vector<bool> chosen(parameters_.size());
    for (const std::string& name : names) parameters_.mark(name, chosen);
    this->leave_out_marked(std::move(chosen));
  }
  void leave_out(std::initializer_list<std::string> names) { leave_out(std::span(names.begin(), names.size())); }
  // Throws bad_value if weight or gradient of `name` are not where the optimizer reads them: their owner has resized
  // them or swapped their storage, and rebind() was not called. Looks at addresses only; meant for debug builds.
  void check_bound(const std::string& name, viewed<const W> w, gradients g) const {
    parameters_.check_bound(name, w, g, nullptr);
  }
  void check_bound(const std::string& name, viewed<const W> w, gradients g, gradients reference) const {
    const view<const G> r = reference;
    const bool two = groups_[parameters_.group_of(name)]->rule->needs_reference();
    parameters_.check_bound(name, w, g, two ? &r : nullptr);
  }
  // After the caller has written into weights: what rules keep of a weight (row norms, master copies) is read from it
  // again before the next step. Of all, or of what was added as `name`; without it such a rule undoes the write.
  void resync() { this->resync_marked(std::vector<bool>(parameters_.size(), true)); }
  void resync(const std::string& name) {
    std::vector<bool> chosen(parameters_.size());
    parameters_.mark(name, chosen);
    this->resync_marked(chosen);
  }

  // --- settings that change between steps ---
  // A setting of the rule, as from the next step: "momentum", "decay", ... Errors leave all as it was. What decides how
  // much state there is cannot change after finalize().
  void set(const std::string& name, const std::string& value) { this->set_in(0, name, value); }
  void set(const std::string& name, double value) { set(name, detail::text(value)); }
  // The same in every step, from a function of the number of the step, which begins at 0; an empty one ends it. A
  // setting that is a number with a fraction. Steps that are skipped count.
  void schedule(const std::string& name, schedule_function value) { groups_.front()->schedule(name, std::move(value)); }
  // The factor of the rate, and the decay in place of the rule's, of what was added as `name`. Memory is planned anew.
  void set_parameter(const std::string& name, double lr_scale, std::optional<double> decay = {}) {
    const auto& g = *groups_[parameters_.group_of(name)];
    this->check_options(name, lr_scale, decay);
    auto changed = parameters_;
    changed.set_options(name, lr_scale, decay, g.rule->has_decay());
    std::swap(parameters_, changed);
    try {
      if (plan_ && !stale_) this->make_plan();
    } catch (...) {
      std::swap(parameters_, changed);
      throw;
    }
  }

  // --- state, for checkpoints ---
  std::vector<state_tensor> state_tensors() const {
    this->require_finalized("state_tensors()");
    return tensors_of(*plan_);
  }
  // One tensor of state to or from host memory, dense and row-major, bit for bit. They wait.
  void read_state(const state_tensor& t, void* host) const { matopt::read_state(*backend_, t, host); }
  void write_state(const state_tensor& t, const void* host) {
    matopt::write_state(*backend_, t, host);
    this->writes_.forget();  // copies of weights come with the state
  }
  std::string signature() const {
    std::string all;
    for (const auto& g : groups_) all += (all.empty() ? "" : " + ") + g->rule->signature();
    return all;
  }
  // The place of each matrix' rule in signature(), by the name of the matrix. Where there is one rule, of none.
  std::vector<std::pair<std::string, std::size_t>> rules_of_matrices() const {
    std::vector<std::pair<std::string, std::size_t>> all;
    if (groups_.size() > 1)
      for (const auto& p : parameters_) all.emplace_back(p.name, p.group);
    return all;
  }
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) {
    if (steps < 0 || steps > max_steps)
      throw bad_value("steps", std::to_string(steps), "0 to " + std::to_string(max_steps));
    steps_ = steps;
  }
  // Of all rules, behind the labels of their groups if these have some; those that a schedule gives are not among them.
  std::vector<setting> settings() const { return list_settings(&core::any_rule_type::settings, false); }
  // The same with the defaults of the rules, and the settings that a schedule gives, with their values of now.
  std::vector<setting> default_settings() const { return list_settings(&core::any_rule_type::default_settings, false); }
  std::vector<setting> scheduled_settings() const { return list_settings(&core::any_rule_type::settings, true); }

  // The rule with its options, for a param_groups. This optimizer has no parameters, and is of no use afterwards.
  auto take_group() { return core::take_group(); }

  // Whether a step looks at weights on the host, which no recorded step can (optimizer_options::check_copies).
  bool checks_copies() const { return this->checks_copies_; }

  Backend& backend() const { return *backend_; }
  index_t size() const { return static_cast<index_t>(parameters_.size()); }
  // What was added, by name and in that order.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < parameters_.views(); ++i) all.push_back(parameters_.view_name(i));
    return all;
  }
  bool empty() const { return parameters_.nothing_added(); }
  index_t bucket_count() const {
    const auto count = [](const typename core::plan& p) { return static_cast<index_t>(p.buckets.size()); };
    return plan_ && !stale_ ? count(*plan_) : count(typename core::plan(*backend_, parameters_, groups_));
  }

 protected:
  explicit any_optimizer(Backend& backend) : core(backend) {}

 private:
  std::vector<setting> list_settings(std::vector<setting> (core::any_rule_type::*list)() const, bool scheduled) const {
    std::vector<setting> all;
    for (const auto& g : groups_)
      for (const setting& s : (*g->rule.*list)())
        if (g->schedules_setting(s.name) == scheduled)
          all.push_back({(g->label.empty() ? "" : g->label + ".") + s.name, s.value});
    return all;
  }
};

}  // namespace MATOPT_NAMESPACE
