// rule_group: a rule with its rate, its options and its schedules, and the label by which parameters name it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/optimizer_options.hpp"
#include "bucket.hpp"

namespace MATOPT_NAMESPACE {

// A setting as a function of the number of the step, which begins at 0.
using schedule_function = std::function<double(index_t step)>;

template <class Backend, class Types>
struct rule_group {
  // Settings are called as in the rule; "lr" is the rate of the group.
  struct scheduled {
    std::string name;
    schedule_function value;
    double now = 0, before = 0;
  };

  std::string label;
  std::unique_ptr<any_rule<Backend, Types>> rule;
  double lr = 1;
  optimizer_options options{};
  std::vector<scheduled> schedules{};

  double number(std::string_view name) const { return name == "lr" ? lr : rule->number(name); }
  // Looks at the number alone: rule->check() says whether settings agree with each other. An error leaves all as it
  // was; nothing is allocated without one.
  void set_number(std::string_view name, double value) {
    if (name != "lr") return rule->set_number(name, value);
    if (!(value >= 0 && value <= largest_input<typename Types::compute>))
      detail::check_number<typename Types::compute>(rate_name(), value, range{.low = 0});
    lr = value;
  }
  std::string rate_name() const { return label.empty() ? "lr" : "lr of \"" + label + '"'; }
  // What the rule calls a setting, which other programs and versions may call otherwise.
  std::string own_name(const std::string& name) const {
    if (name == "lr") return name;
    for (const setting& s : rule->settings())
      if (s.name == name) return name;
    return std::string(setting_name(name));
  }
  void schedule(const std::string& name, schedule_function value) {
    const std::string own = own_name(name);
    const double now = number(own);  // throws if it is not a number
    end_schedule(own);
    if (value) schedules.push_back({own, std::move(value), now, now});
  }
  void end_schedule(const std::string& name) {
    std::erase_if(schedules, [own = own_name(name)](const scheduled& s) { return s.name == own; });
  }
  bool schedules_setting(std::string_view name) const {
    for (const scheduled& s : schedules)
      if (s.name == name) return true;
    return false;
  }
};

// Gives every scheduled setting of these groups its value of this step, and then calls check(): all of them, or none
// and throws. Returns whether a setting of a rule has changed.
template <class Groups, class Check>
bool follow_schedules(Groups& groups, index_t step, Check check) {
  for (auto& g : groups)
    for (auto& s : g->schedules) s.before = g->number(s.name), s.now = s.value(step);
  bool changed = false;
  try {
    for (auto& g : groups)
      for (auto& s : g->schedules) {
        g->set_number(s.name, s.now);
        changed = changed || (s.now != s.before && s.name != "lr");
      }
    for (auto& g : groups)
      if (!g->schedules.empty()) g->rule->check();
    check();
  } catch (...) {
    for (auto& g : groups)
      for (auto& s : g->schedules) g->set_number(s.name, s.before);
    throw;
  }
  return changed;
}

}  // namespace MATOPT_NAMESPACE
