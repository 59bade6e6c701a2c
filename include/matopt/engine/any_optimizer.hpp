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
// error. With options.max_norm the optimizer clips by itself: the norm of all gradients together, as scaled, is a number
// of the step, too.
//
// Rows are fan-out, columns fan-in. Weights and gradients stay where they are, in the backend's memory, and must
// outlive the optimizer; gradients are never written. If their owner may move them (a move assignment swaps storage),
// call rebind() then, and check_bound() in debug builds. A view without elements, the empty shard of a matrix, is taken
// and nothing happens to it; a gradient may repeat elements by strides of 0. A step allocates nothing, waits for
// nothing and reads nothing back; what the rule costs at run time is one virtual call per bucket. If a gradient holds
// NaN or infinity, that step leaves every weight and all state untouched; poll_status() tells. A finite entry beyond
// largest_input (limits.hpp; 2e31 in float) counts as infinity: sums and squares of such numbers are not finite. Not
// thread-safe. Errors derive from matopt::error; after one, the optimizer is as before the call.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gradient_check.hpp"
#include "state_access.hpp"
#include "step_plan.hpp"

namespace matopt {

template <class Backend, class Types = types<float>>
class any_optimizer {
 protected:
  using W = typename Types::weight;
  using G = typename Types::gradient;
  using C = typename Types::compute;
  using shared = shared_types<Types>;
  using group = rule_group<Backend, shared>;
  using plan = step_plan<Backend, shared>;
  using narrowest = std::conditional_t<detail::all_double<W, C>, double, float>;  // a rate moves weights
  using gradients = view<const std::type_identity_t<G>>;

 public:
  using backend_type = Backend;
  using element_types = Types;
  using rule_pointer = std::unique_ptr<any_rule<Backend, shared>>;

  template <class Rule>
  requires rule_for<Rule, Backend, Types> any_optimizer(Backend& backend, Rule rule, optimizer_options options = {})
      : any_optimizer(backend, std::make_unique<typed_rule<Rule, Backend, Types>>(std::move(rule)), options) {}
  any_optimizer(Backend& backend, rule_pointer rule, optimizer_options options = {}) : backend_(&backend) {
    add_group("", std::move(rule), 1, options);
  }

  // --- parameters ---
  // Adds a matrix, or each matrix of a batch of stacked ones ("name.0", "name.1", ...), or each of its row blocks. After
  // finalize(), too: then finalize() is to be called once more.
  void add(const std::string& name, view<W> w, gradients g, const parameter_options& o = {}) {
    add_to(0, name, w, g, nullptr, o);
  }
  void add(view<W> w, gradients g, const parameter_options& o = {}) {
    std::size_t number = parameters_.size();  // stacks of no matrix leave it as it was
    while (parameters_.knows("parameter." + std::to_string(number))) ++number;
    add("parameter." + std::to_string(number), w, g, o);
  }
  // The same with a reference gradient, for a rule that needs one; any other does not look at it.
  void add(const std::string& name, view<W> w, gradients g, gradients reference, const parameter_options& o = {}) {
    add_to(0, name, w, g, &reference, o);
  }
  // Forgets what was added as `name`, and its state. After finalize(), finalize() is to be called once more.
  void drop(const std::string& name) {
    parameters_.drop(name);
    stale_ = plan_ != nullptr;
  }
  bool needs_reference() const { return groups_.front()->rule->needs_reference(); }

  // What finalize() allocates, to the byte.
  memory_report memory() const { return plan(*backend_, parameters_, groups_).memory(); }

  // Once more after add() or drop(): memory is planned anew, and parameters that stay keep their state. It is copied
  // through the host, and both plans are in memory for that time.
  void finalize() {
    if (plan_ && !stale_) throw bad_order("finalize() called twice");
    if (parameters_.nothing_added()) throw bad_order("finalize() before any add()");
    make_plan();
  }
  // Undoes finalize(): the memory goes back to the backend, state is lost, and steps are counted from 0.
  void release() {
    if (plan_) steps_ = 0;  // a finalize() that fails leaves what set_steps() said
    plan_.reset();
    seen_ = {};
    stale_ = false;
  }

  // --- steps ---
  void step(double lr, double gradient_scale = 1) {
    begin_step(lr, gradient_scale);
    enqueue();
  }

  // Hands this step's numbers over to the backend: rates, gradient scale, step number, rank. One copy.
  void begin_step(double lr, double gradient_scale = 1) {
    require_finalized("begin_step()");
    check_step(lr, gradient_scale);
    if (follow_schedules(groups_, steps_)) take_settings();
    check_rates(lr);
    upload_what_changed();
    const bool usable = usable_scale(gradient_scale);
    for (std::size_t i = 0; i < plan_->buckets.size(); ++i) {
      auto& k = plan_->buckets[i];
      k.phase = k.rule->phase(steps_);
      if (k.empty()) continue;
      const index_t q = std::min(k.w.rows, k.w.cols);
      const double budget = k.rule->rank_budget(steps_, q);
      k.rank = std::clamp<index_t>(static_cast<index_t>(std::ceil(budget - 1e-9)), 1, q);
      plan_->ranks[i] = k.rank;
      const step_numbers<C> n{.lr = static_cast<C>(lr * groups_[k.group]->lr * k.lr_scale),
                              .step = static_cast<C>(steps_ + 1),
                              .tail = static_cast<C>(std::min(1.0, budget - static_cast<double>(k.rank - 1))),
                              .counter = static_cast<std::uint32_t>(steps_ + 1),
                              .gradient_scale = static_cast<C>(usable ? gradient_scale : 1)};
      std::memcpy(plan_->numbers.data() + i * sizeof n, &n, sizeof n);
    }
    const status_word stop = usable ? 0 : 1;
    std::memcpy(plan_->numbers.data() + plan_->buckets.size() * sizeof(step_numbers<C>), &stop, sizeof stop);
    backend_->upload(plan_->control.numbers, plan_->numbers.data(), plan_->numbers.size());
    if (!usable) ++seen_.unusable_scales;
    ++steps_;
  }

  // The step itself: verbs of the backend only, the same ones each time as long as ranks(), phase() and plan_number()
  // are.
  void enqueue() {
    require_finalized("enqueue()");
    gradient_check<Backend, shared>::enqueue(*backend_, *plan_, groups_);
    for (auto& k : plan_->buckets) {
      if (k.empty()) continue;
      auto e = plan_->make_pass(*backend_, k, plan_->control.guards);
      k.rule->step(e, k.w, k.g, k.r);
    }
  }

  // The rank of each bucket in the step begun last, and the phase; a change asks for another recording of enqueue().
  const std::vector<index_t>& ranks() const {
    static const std::vector<index_t> none;
    return plan_ ? plan_->ranks : none;
  }
  index_t phase() const { return phase_of_plan(); }
  // What was recorded of enqueue() under another number of the plan points to memory that is gone; under another number
  // of the settings it has values that were replaced. No two plans of a program have the same number. 0 before
  // finalize().
  std::uint64_t plan_number() const { return plan_ ? plan_->number : 0; }
  std::uint64_t settings_number() const { return settings_number_; }

  // Waits, and tells which steps were skipped since the last poll, and why.
  step_status poll_status() {
    require_plan("poll_status()");
    look_at_status();
    return std::exchange(seen_, {});
  }
  // Waits, and gives the norm of all gradients of the last step together, as they were scaled; options.max_norm is set.
  double gradient_norm() const {
    if (groups_.empty() || !groups_.front()->options.measures())
      throw bad_order("gradient_norm() without optimizer_options::max_norm (infinity measures, and clips nothing)");
    require_plan("gradient_norm()");
    C norm = 0;
    backend_->download(&norm, plan_->control.norms + plan_->words(), sizeof norm);
    return static_cast<double>(norm);
  }

  // --- where gradients are, and who takes part ---
  // The gradient of the parameter that was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, gradients g) {
    require_gradient(name, "gradient", g);
    parameters_.rebind(name, g, &parameter<W, G>::g);
    tables_changed_ = true;
  }
  void rebind_reference(const std::string& name, gradients r) {
    if (!groups_[parameters_.group_of(name)]->rule->needs_reference())
      throw bad_value("reference gradient of \"" + name + '"', "given", "not given: this rule estimates from one");
    require_gradient(name, "reference gradient", r);
    parameters_.rebind(name, r, &parameter<W, G>::r);
    tables_changed_ = true;
  }
  // The gradients of all views that were added, in that order, for the steps that follow. A null pointer says that there
  // is no gradient: the parameter is left out of the steps until it has one again. Also weights may have moved.
  void rebind(std::span<const G* const> all) { rebind(std::span<W* const>(), all); }
  void rebind(std::span<W* const> weights, std::span<const G* const> all) {
    for (std::size_t i = 0; i < std::min(all.size(), parameters_.views()); ++i)
      if (all[i] && all[i] != parameters_.gradient_at(i)) require_memory({"gradient", parameters_.view_name(i)}, all[i]);
    for (std::size_t i = 0; i < std::min(weights.size(), parameters_.views()); ++i)
      if (weights[i] != parameters_.weight_at(i)) require_memory({"weight", parameters_.view_name(i)}, weights[i]);
    tables_changed_ = parameters_.rebind(weights, all) || tables_changed_;
    if (all.empty()) return;
    without_gradient_.resize(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool none = all[i] == nullptr && parameters_.has_elements(i);
      left_out_changed_ = left_out_changed_ || without_gradient_[i] != none;
      without_gradient_[i] = none;
    }
  }
  // These take no part in the steps that follow, until the next call: their weights, state and counts stay as they are,
  // bit for bit, and their gradients are not read. By name of a parameter, a stack ("experts") or one matrix of it
  // ("experts.3"). A gradient of zeros is another thing: momentum goes on moving the weight for hundreds of steps.
  void leave_out(std::span<const std::string> names) {
    std::vector<bool> chosen(parameters_.size());
    for (const std::string& name : names) parameters_.mark(name, chosen);
    left_out_changed_ = left_out_changed_ || chosen != left_out_;
    left_out_ = std::move(chosen);
  }
  void leave_out(std::initializer_list<std::string> names) { leave_out(std::span(names.begin(), names.size())); }
  // Throws bad_value if weight or gradient of `name` are not where the optimizer reads them: their owner has resized
  // them or swapped their storage, and rebind() was not called. Looks at addresses only; meant for debug builds.
  void check_bound(const std::string& name, view<const std::type_identity_t<W>> w, gradients g) const {
    parameters_.check_bound(name, w, g, nullptr);
  }
  void check_bound(const std::string& name, view<const std::type_identity_t<W>> w, gradients g,
                   gradients reference) const {
    const bool two = groups_[parameters_.group_of(name)]->rule->needs_reference();
    parameters_.check_bound(name, w, g, two ? &reference : nullptr);
  }
  // After the caller has written into weights: what rules keep of a weight (row norms, master copies) is read from it
  // again before the next step. Of all, or of what was added as `name`; without it such a rule undoes the write.
  void resync() { resync_marked(std::vector<bool>(parameters_.size(), true)); }
  void resync(const std::string& name) {
    std::vector<bool> chosen(parameters_.size());
    parameters_.mark(name, chosen);
    resync_marked(chosen);
  }

  // --- settings that change between steps ---
  // A setting of the rule, as from the next step: "momentum", "decay", ... Errors leave all as it was. What decides how
  // much state there is cannot change after finalize().
  void set(const std::string& name, const std::string& value) { set_in(0, name, value); }
  void set(const std::string& name, double value) { set(name, detail::text(value)); }
  // The same in every step, from a function of the number of the step, which begins at 0; an empty one ends it. A
  // setting that is a number with a fraction. Steps that are skipped count.
  void schedule(const std::string& name, schedule_function value) { groups_.front()->schedule(name, std::move(value)); }
  // The factor of the rate, and the decay in place of the rule's, of what was added as `name`. Memory is planned anew.
  void set_parameter(const std::string& name, double lr_scale, std::optional<double> decay = {}) {
    const auto& g = *groups_[parameters_.group_of(name)];
    check_options(name, lr_scale, decay);
    parameters_.set_options(name, lr_scale, decay, g.rule->decays());
    if (plan_ && !stale_) make_plan();
  }

  // --- state, for checkpoints ---
  std::vector<state_tensor> state_tensors() const {
    require_finalized("state_tensors()");
    return tensors_of(*plan_);
  }
  // One tensor of state to or from host memory, dense and row-major, bit for bit. They wait.
  void read_state(const state_tensor& t, void* host) const { matopt::read_state(*backend_, t, host); }
  void write_state(const state_tensor& t, const void* host) { matopt::write_state(*backend_, t, host); }
  std::string signature() const {
    std::string all;
    for (const auto& g : groups_) all += (all.empty() ? "" : " + ") + g->rule->signature();
    return all;
  }
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) {
    if (steps < 0 || steps > max_steps)
      throw bad_value("steps", std::to_string(steps), "0 to " + std::to_string(max_steps));
    steps_ = steps;
  }
  // Of all rules, behind the labels of their groups if these have some; those that a schedule gives are not among them.
  std::vector<setting> settings() const {
    std::vector<setting> all;
    for (const auto& g : groups_)
      for (const setting& s : g->rule->settings())
        if (!g->schedules_setting(s.name)) all.push_back({(g->label.empty() ? "" : g->label + ".") + s.name, s.value});
    return all;
  }

  Backend& backend() const { return *backend_; }
  index_t size() const { return static_cast<index_t>(parameters_.size()); }
  bool empty() const { return parameters_.nothing_added(); }
  index_t bucket_count() const {
    const auto count = [](const plan& p) { return static_cast<index_t>(p.buckets.size()); };
    return plan_ && !stale_ ? count(*plan_) : count(plan(*backend_, parameters_, groups_));
  }

 protected:
  explicit any_optimizer(Backend& backend) : backend_(&backend) {}

  void add_group(const std::string& label, rule_pointer rule, double lr, const optimizer_options& options) {
    if (options.batch_limit < 0)
      throw bad_value("batch_limit", std::to_string(options.batch_limit), ">= 0 (0: no limit)");
    if (!(options.max_norm >= 0))
      throw bad_value("max_norm", detail::text(options.max_norm), ">= 0 (0: gradients are not clipped)");
    if (!groups_.empty() && groups_.front()->options.max_norm != options.max_norm)
      throw bad_value("max_norm of group \"" + label + '"', detail::text(options.max_norm),
                      detail::text(groups_.front()->options.max_norm) +
                          ", as the other groups have: gradients are clipped by the norm of all of them");
    auto fresh = std::make_unique<group>();
    fresh->label = label, fresh->rule = std::move(rule), fresh->options = options;
    fresh->set_number("lr", lr);
    groups_.push_back(std::move(fresh));
  }
  // The rule of the only group, for another optimizer.
  static std::unique_ptr<group> take_group(any_optimizer&& from) {
    if (!from.empty()) throw bad_value("parameters of an optimizer that becomes a group", "given", "none: add them to the groups");
    return std::move(from.groups_.front());
  }
  void add_to(std::size_t number, const std::string& name, view<W> w, gradients g, const gradients* reference,
              const parameter_options& o) {
    const auto& rule = *groups_[number]->rule;
    const bool two = rule.needs_reference();
    if (two && !reference)
      throw bad_value("reference gradient of \"" + name + '"', "missing", "given: this rule estimates from two");
    if (!detail::no_elements(w)) require_memory({"weight", name}, w.data);
    require_gradient(name, "gradient", g);
    if (two) require_gradient(name, "reference gradient", *reference);
    check_options(name, o.lr_scale, o.decay);
    parameters_.add(name, w, g, two ? *reference : g, o, two, number, rule.decays(),
                    [&](index_t rows, index_t cols) -> const auto& { return state_names(number, rows, cols); });
    stale_ = plan_ != nullptr;
  }
  void set_in(std::size_t number, const std::string& name, const std::string& value) {
    group& of = *groups_[number];
    if (name == "lr") return of.set_number(name, detail::number(name, value));
    auto changed = of.rule->copy();
    changed->set(name, value);
    if (plan_ && !stale_) plan_->make_room_for(*backend_, number, *changed, of.options.scales(), name, value);
    of.rule = std::move(changed);
    std::erase_if(of.schedules, [&](const auto& s) { return s.name == name; });
    take_settings();
  }
  group& group_called(std::string_view label) { return *groups_[group_number(label)]; }
  std::size_t group_number(std::string_view label) const {
    std::vector<std::string> known;
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (groups_[i]->label == label) return i;
      known.push_back(groups_[i]->label);
    }
    throw error("no group \"" + std::string(label) + "\"; nearest: \"" + nearest_name(label, known) + '"');
  }
  const std::vector<std::unique_ptr<group>>& groups() const { return groups_; }

 private:
  template <class, class>
  friend class any_optimizer;

  void make_plan() {
    auto fresh = std::make_unique<plan>(*backend_, parameters_, groups_);
    fresh->allocate(*backend_, parameters_);
    if (plan_) {
      look_at_status();
      carry_state(*backend_, *plan_, *fresh);
    }
    plan_ = std::move(fresh);
    stale_ = tables_changed_ = left_out_changed_ = false;
    left_out_.assign(parameters_.size(), false);
    without_gradient_.assign(parameters_.views(), false);
  }
  index_t phase_of_plan() const {
    index_t phase = 0, count = 1;  // all groups' phases as one number
    std::size_t group = groups_.size();
    if (plan_)
      for (const auto& k : plan_->buckets)
        if (k.group != group) phase += count * k.phase, count *= 8, group = k.group;
    return phase;
  }
  void take_settings() {
    ++settings_number_;
    if (plan_)
      for (auto& k : plan_->buckets) k.rule->take_settings(*groups_[k.group]->rule);
  }
  void look_at_status() {
    const std::size_t n = plan_->words();
    std::vector<status_word> words(2 * n);
    backend_->download(words.data(), plan_->control.bad, words.size() * sizeof(status_word));
    seen_.skipped += static_cast<index_t>(words[n]);
    for (const auto& k : plan_->buckets)
      for (std::size_t i = 0; i < k.members.size(); ++i)
        if (words[k.first + i]) seen_.parameters.push_back(k.members[i].name);
    words.assign(words.size(), 0);
    backend_->upload(plan_->control.bad, words.data(), words.size() * sizeof(status_word));
  }
  void upload_what_changed() {
    if (std::exchange(tables_changed_, false)) plan_->upload_tables(*backend_, parameters_);
    if (std::exchange(left_out_changed_, false)) {
      std::vector<bool> absent = left_out_;
      std::size_t i = 0, view = 0;
      for (auto p = parameters_.begin(); p != parameters_.end(); ++p, ++i) {
        while (parameters_.view_number(view) != p->view_number) ++view;
        absent[i] = absent[i] || without_gradient_[view];
      }
      plan_->leave_out(*backend_, absent);
    }
  }
  void resync_marked(const std::vector<bool>& chosen) {
    require_finalized("resync()");
    plan_->guard_all_but(*backend_, chosen);
    for (auto& k : plan_->buckets) {
      if (k.empty()) continue;
      auto e = plan_->make_pass(*backend_, k, plan_->control.guards);
      k.rule->resync(e, k.w);
    }
  }

  // --- what is refused ---
  void check_step(double lr, double gradient_scale) const {
    detail::check_number<narrowest>("lr", lr, range{.low = 0});
    if (gradient_scale != 1)
      for (const auto& k : plan_->buckets)
        if (!groups_[k.group]->options.scales_gradient)
          throw bad_value("gradient_scale", detail::text(gradient_scale),
                          "1, unless optimizer_options::scales_gradient is set, and then finite and > 0");
    if (gradient_scale < 0) throw bad_value("gradient_scale", detail::text(gradient_scale), "finite and > 0");
    if (usable_scale(gradient_scale) && !usable_scale(static_cast<double>(static_cast<C>(gradient_scale))))
      throw bad_value("gradient_scale", detail::text(gradient_scale),
                      "finite and > 0 in the compute type, which is " + std::string(detail::compute_name<C>));
  }
  void check_rates(double lr) const {
    for (const auto& k : plan_->buckets) {
      const group& g = *groups_[k.group];
      const double rate = lr * g.lr;
      if (!(rate <= largest_input<narrowest>)) detail::check_number<narrowest>(g.rate_name(), rate, range{.low = 0});
      if (!(rate * k.lr_scale <= largest_input<narrowest>))
        detail::check_number<narrowest>("lr times lr_scale of \"" + k.members.front().name + '"', rate * k.lr_scale,
                                        range{.low = 0});
    }
  }
  static void check_options(const std::string& name, double lr_scale, std::optional<double> decay) {
    if (lr_scale != 1) detail::check_number<C>("lr_scale of \"" + name + '"', lr_scale, range{.low = 0});
    if (decay) detail::check_number<C>("decay of \"" + name + '"', *decay, range{.low = 0});
  }
  static bool usable_scale(double s) { return std::isfinite(s) && s > 0; }

  // The names of the state that the rule of a group keeps of a matrix.
  const std::vector<std::string>& state_names(std::size_t number, index_t rows, index_t cols) {
    const std::tuple key{number, rows, cols};
    if (const auto known = state_names_.find(key); known != state_names_.end()) return known->second;
    arena counting;
    std::vector<std::string> names;
    for (const auto& e : groups_[number]->rule->bind({}, false)->place(counting, {rows, cols, 1, false}))
      names.push_back(e.name);
    return state_names_[key] = std::move(names);
  }

  // Throws if the backend cannot use the memory; that a pointer is null is for others to say.
  void require_memory([[maybe_unused]] const detail::label& what, [[maybe_unused]] const void* p) const {
    if constexpr (requires { backend_->require_memory(what, p); })
      if (p) backend_->require_memory(what, p);
  }
  void require_gradient(const std::string& name, const char* kind, const view<const G>& g) const {
    if (detail::no_elements(g)) return;
    require_memory({kind, name}, g.data);
    detail::check_aligned(detail::label{kind, name}, g.data);
  }
  void require_plan(const char* call) const {
    if (!plan_) throw bad_order(std::string(call) + " before finalize()");
  }
  void require_finalized(const char* call) const {
    require_plan(call);
    if (stale_) throw bad_order(std::string(call) + " after add() or drop(), and before finalize()");
  }

  Backend* backend_;
  std::vector<std::unique_ptr<group>> groups_;
  parameter_list<W, G> parameters_;
  std::unique_ptr<plan> plan_;
  bool stale_ = false;  // parameters have come or gone since the plan was made
  bool tables_changed_ = false, left_out_changed_ = false;
  std::vector<bool> left_out_;          // of each matrix
  std::vector<bool> without_gradient_;  // of each view that was added
  std::map<std::tuple<std::size_t, index_t, index_t>, std::vector<std::string>> state_names_;
  step_status seen_{};  // since the last poll, and before this plan
  index_t steps_ = 0;
  std::uint64_t settings_number_ = 0;
};

}  // namespace matopt
