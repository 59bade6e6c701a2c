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
  // Errors leave all as it was; nothing is allocated without one.
  void set_number(std::string_view name, double value) {
    if (name != "lr") return rule->set_number(name, value);
    if (!(value >= 0 && value <= largest_input<typename Types::compute>))
      detail::check_number<typename Types::compute>(rate_name(), value, range{.low = 0});
    lr = value;
  }
  std::string rate_name() const { return label.empty() ? "lr" : "lr of \"" + label + '"'; }
  void schedule(const std::string& name, schedule_function value) {
    const double now = number(name);  // throws if it is not a number
    std::erase_if(schedules, [&](const scheduled& s) { return s.name == name; });
    if (value) schedules.push_back({name, std::move(value), now, now});
  }
  bool schedules_setting(std::string_view name) const {
    for (const scheduled& s : schedules)
      if (s.name == name) return true;
    return false;
  }
};

// Gives every scheduled setting of these groups its value of this step: all of them, or none and throws. Returns
// whether a setting of a rule has changed.
template <class Groups>
bool follow_schedules(Groups& groups, index_t step) {
  for (auto& g : groups)
    for (auto& s : g->schedules) s.before = g->number(s.name), s.now = s.value(step);
  bool changed = false;
  try {
    for (auto& g : groups)
      for (auto& s : g->schedules) {
        g->set_number(s.name, s.now);
        changed = changed || (s.now != s.before && s.name != "lr");
      }
  } catch (...) {
    // In the opposite order, so that settings that must agree with each other do so at each time.
    for (auto g = groups.rbegin(); g != groups.rend(); ++g)
      for (auto s = (*g)->schedules.rbegin(); s != (*g)->schedules.rend(); ++s) (*g)->set_number(s->name, s->before);
    throw;
  }
  return changed;
}

}  // namespace MATOPT_NAMESPACE
