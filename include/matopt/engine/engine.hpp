// engine: what an optimizer is made of and how it steps; any_optimizer.hpp says what its members promise.
//
//   groups_       rules with their rates and schedules              parameters_   the caller's matrices
//   plan_         buckets, and where everything lies; made by finalize(), and anew when parameters come or go
//
// It is compiled once for all rules, and knows the types that they share: Types is shared_types<...>.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "gradient_check.hpp"
#include "state_access.hpp"
#include "step_plan.hpp"
#include "unsynced_writes.hpp"

namespace MATOPT_NAMESPACE {

template <class Backend, class Types>
class engine {
 public:
  using W = typename Types::weight;
  using G = typename Types::gradient;
  using C = typename Types::compute;
  using group = rule_group<Backend, Types>;
  using plan = step_plan<Backend, Types>;
  using any_rule_type = any_rule<Backend, Types>;
  using rule_pointer = std::unique_ptr<any_rule_type>;
  using gradients = view<const std::type_identity_t<G>>;
  using narrowest = std::conditional_t<detail::all_double<W, C>, double, float>;  // a rate moves weights

  explicit engine(Backend& backend) : backend_(&backend) {}

  // --- groups and parameters ---
  [[gnu::cold]] void add_group(const std::string& label, rule_pointer rule, double lr,
                               const optimizer_options& options) {
    if (!rule) throw bad_value("rule of group \"" + label + '"', "null", "a rule");
    if (options.batch_limit < 0)
      throw bad_value("batch_limit", std::to_string(options.batch_limit), ">= 0 (0: no limit)");
    if (!(options.max_norm >= 0))
      throw bad_value("max_norm", detail::text(options.max_norm), ">= 0 (0: gradients are not clipped)");
    if (!groups_.empty() && groups_.front()->options.max_norm != options.max_norm)
      throw bad_value("max_norm of group \"" + label + '"', detail::text(options.max_norm),
                      detail::text(groups_.front()->options.max_norm) +
                          ", as the other groups have: gradients are clipped by the norm of all of them");
    if (options.measures() && static_cast<C>(options.max_norm) == C(0))
      throw bad_value("max_norm", detail::text(options.max_norm),
                      "0, or above the half of " +
                          detail::text(static_cast<double>(std::numeric_limits<C>::denorm_min())) + ", the least " +
                          std::string(detail::compute_name<C>) + ": it would make all gradients zero");
    auto fresh = std::make_unique<group>();
    fresh->label = label, fresh->rule = std::move(rule), fresh->options = options;
    fresh->set_number("lr", lr);
    checks_copies_ = checks_copies_ || options.check_copies;
    groups_.push_back(std::move(fresh));
  }
  // The rule of the only group, for another optimizer.
  [[gnu::cold]] std::unique_ptr<group> take_group() {
    if (!parameters_.nothing_added())
      throw bad_value("parameters of an optimizer that becomes a group", "given", "none: add them to the groups");
    return std::move(groups_.front());
  }
  [[gnu::cold]] void add_to(std::size_t number, const std::string& name, view<W> w, gradients g,
                            const gradients* reference, const parameter_options& o) {
    const auto& rule = *groups_[number]->rule;
    const bool two = rule.needs_reference();
    if (two && !reference)
      throw bad_value("reference gradient of \"" + name + '"', "missing", "given: this rule estimates from two");
    if (!detail::no_elements(w)) require_memory({"weight", name}, w.data);
    require_gradient(name, "gradient", g);
    if (two) require_gradient(name, "reference gradient", *reference);
    check_options(name, o.lr_scale, o.decay);
    parameters_.add(
        name, w, g, two ? *reference : g, o, two, number,
        rule.has_decay(), [&](index_t rows, index_t cols) -> const auto& { return state_names(number, rows, cols); });
    stale_ = plan_ != nullptr;
  }
  [[gnu::cold]] void drop_views(std::span<const std::string> names) {
    std::vector<bool> gone(parameters_.size()), kept;
    for (const std::string& name : names) parameters_.mark(name, gone);
    parameters_.drop(names);
    for (std::size_t i = 0; i < left_out_.size(); ++i)
      if (!gone[i]) kept.push_back(left_out_[i]);
    left_out_ = std::move(kept);
    stale_ = plan_ != nullptr;
  }
  [[gnu::cold]] void set_in(std::size_t number, const std::string& name, const std::string& value) {
    group& of = *groups_[number];
    if (name == "lr") {
      of.set_number(name, detail::number(name, value));
      return of.end_schedule(name);
    }
    auto changed = of.rule->copy();
    changed->set(name, value);
    if (plan_ && !stale_) plan_->make_room_for(*backend_, number, *changed, of.options.scales(), name, value);
    of.rule = std::move(changed);
    of.end_schedule(name);
    take_settings();
  }
  group& group_called(std::string_view label) { return *groups_[group_number(label)]; }
  [[gnu::cold]] std::size_t group_number(std::string_view label) const {
    std::vector<std::string> known;
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (groups_[i]->label == label) return i;
      known.push_back(groups_[i]->label);
    }
    throw error("no group \"" + std::string(label) + "\"; nearest: \"" + nearest_name(label, known) + '"');
  }

  // --- steps ---
  // Hands the numbers of a step over to the backend.
  void begin(double lr, double gradient_scale) {
    require_finalized("begin_step()");
    if (steps_ >= max_steps)
      throw bad_order("begin_step() after " + std::to_string(max_steps) + " steps, the most that are counted");
    check_step(lr, gradient_scale);
    if (checks_copies_) writes_.check(*backend_, *plan_, parameters_, groups_);
    if (follow_schedules(groups_, steps_, [&] { check_rates(lr); })) take_settings();
    upload_what_changed();
    const bool usable = usable_scale(gradient_scale);
    index_t place = 0;  // among the buckets of a group
    for (std::size_t i = 0; i < plan_->buckets.size(); ++i) {
      auto& k = plan_->buckets[i];
      place = i > 0 && plan_->buckets[i - 1].group == k.group ? place + 1 : 0;
      k.phase = k.rule->phase(steps_, place);
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
  // ... and then its verbs.
  void run() {
    require_finalized("enqueue()");
    gradient_check<Backend, Types>::enqueue(*backend_, *plan_, groups_);
    std::size_t place = 0;
    for (auto& k : plan_->buckets) {
      if (k.empty()) continue;
      auto e = plan_->make_pass(*backend_, k, plan_->control.guards);
      k.rule->step(e, k.w, k.g, k.r);
      if (after_bucket_) after_bucket_(place);
      ++place;
    }
    if (checks_copies_) writes_.remember(*backend_, *plan_, parameters_, groups_);
  }
  void rebind_all(std::span<W* const> weights, std::span<const G* const> all, std::span<const G* const> references) {
    for (std::size_t i = 0; i < std::min(all.size(), parameters_.views()); ++i)
      if (all[i] && all[i] != parameters_.gradient_at(i))
        require_memory({"gradient", parameters_.view_name(i)}, all[i]);
    for (std::size_t i = 0; i < std::min(weights.size(), parameters_.views()); ++i)
      if (weights[i] != parameters_.weight_at(i)) require_memory({"weight", parameters_.view_name(i)}, weights[i]);
    for (std::size_t i = 0; i < std::min(references.size(), parameters_.views()); ++i)
      if (parameters_.has_reference(i) && references[i] && references[i] != parameters_.reference_at(i))
        require_memory({"reference gradient", parameters_.view_name(i)}, references[i]);
    tables_changed_ = parameters_.rebind(weights, all, references) || tables_changed_;
    if (!all.empty() || !references.empty()) look_for_gradients();
  }
  // A parameter takes part only if it has all gradients that its rule needs.
  void look_for_gradients() {
    without_gradient_.resize(parameters_.views());
    for (std::size_t i = 0; i < parameters_.views(); ++i) {
      const bool one_is_missing = parameters_.gradient_at(i) == nullptr || parameters_.reference_at(i) == nullptr;
      const bool none = one_is_missing && parameters_.has_elements(i);
      left_out_changed_ = left_out_changed_ || without_gradient_[i] != none;
      without_gradient_[i] = none;
    }
  }

  // --- the plan ---
  [[gnu::cold]] void make_plan() {
    auto fresh = std::make_unique<plan>(*backend_, parameters_, groups_);
    fresh->allocate(*backend_, parameters_);
    if (plan_) {
      look_at_status();
      carry_state(*backend_, *plan_, *fresh);
    }
    plan_ = std::move(fresh);
    writes_.forget();
    if (checks_copies_) writes_.remember(*backend_, *plan_, parameters_, groups_);
    stale_ = false;
    left_out_.resize(parameters_.size());
    look_for_gradients();
    const auto any = [](const std::vector<bool>& v) { return std::find(v.begin(), v.end(), true) != v.end(); };
    tables_changed_ = false, left_out_changed_ = any(left_out_) || any(without_gradient_);
  }
  index_t phase_of_plan() const {
    // Of all buckets as one number: where all are in one phase, it is that. The sum may wrap around.
    std::uint64_t phase = 0, factor = 1;
    if (plan_)
      for (std::size_t i = 0; i < plan_->buckets.size(); ++i) {
        const auto &k = plan_->buckets[i], &before = plan_->buckets[i > 0 ? i - 1 : 0];
        if (i == 0 || k.phase != before.phase || k.group != before.group)
          phase += factor * static_cast<std::uint64_t>(k.phase);
        factor *= 0x9E3779B97F4A7C15U;
      }
    return static_cast<index_t>(phase);
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
  void leave_out_marked(std::vector<bool> chosen) {
    left_out_changed_ = left_out_changed_ || chosen != left_out_;
    left_out_ = std::move(chosen);
  }
  void resync_marked(const std::vector<bool>& chosen) {
    require_finalized("resync()");
    plan_->guard_all_but(*backend_, chosen);
    for (auto& k : plan_->buckets) {
      if (k.empty()) continue;
      auto e = plan_->make_pass(*backend_, k, plan_->control.guards);
      k.rule->resync(e, k.w);
    }
    if (checks_copies_) writes_.remember(*backend_, *plan_, parameters_, groups_, &chosen);
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
      if (const auto decay = g.rule->decay_by_rate()) {
        const double lost = rate * k.lr_scale * k.decay.value_or(*decay);
        if (lost > 2)
          throw bad_value("lr times decay of \"" + k.members.front().name + '"', detail::text(lost),
                          "at most 2; beyond it weights grow by their decay, by a factor in every step");
      }
    }
  }
  [[gnu::cold]] static void check_options(const std::string& name, double lr_scale, std::optional<double> decay) {
    if (lr_scale != 1) detail::check_number<C>("lr_scale of \"" + name + '"', lr_scale, range{.low = 0});
    if (decay) detail::check_number<C>("decay of \"" + name + '"', *decay, range{.low = 0});
  }
  static bool usable_scale(double s) { return std::isfinite(s) && s > 0; }

  // The names of the state that the rule of a group keeps of a matrix.
  [[gnu::cold]] const std::vector<std::string>& state_names(std::size_t number, index_t rows, index_t cols) {
    const std::array key{static_cast<index_t>(number), rows, cols};
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
  std::vector<bool> left_out_;                                              // of each matrix
  std::vector<bool> without_gradient_;                                      // of each view that was added
  std::map<std::array<index_t, 3>, std::vector<std::string>> state_names_;  // by group, rows and columns
  std::function<void(std::size_t)> after_bucket_;
  unsynced_writes<Backend, Types> writes_;
  bool checks_copies_ = false;
  step_status seen_{};  // since the last poll, and before this plan
  index_t steps_ = 0;
  std::uint64_t settings_number_ = 0;
};

}  // namespace MATOPT_NAMESPACE
