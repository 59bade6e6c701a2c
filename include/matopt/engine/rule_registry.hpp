// rule_registry: rules by name, with settings as text.
//
//   rule_registry<eigen_backend> rules;
//   rules.add<muon>("muon").add<adamw>("adamw");
//   any_optimizer<eigen_backend> opt = rules.make("muon", cpu, {{"momentum", "0.9"}});
//   rules.replace("muon", mine);                                                          the same name, other defaults
//   groups.add_group("hidden", rules.rule("muon", {{"momentum", "0.9"}}), 0.02);          for param_groups
//
// Errors: an unknown rule or setting names the nearest known one; a name that a rule has already is refused.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "any_optimizer.hpp"

namespace MATOPT_NAMESPACE {

template <class Backend, class Types = types<float>>
class rule_registry {
 public:
  using rule_pointer = typename any_optimizer<Backend, Types>::rule_pointer;

  // Knows `defaults` as `name` from now on, which no other rule may be called; returns itself.
  template <class Rule>
  requires rule_for<Rule, Backend, Types> rule_registry& add(const std::string& name, Rule defaults = {}) {
    if (!entries_.emplace(name, entry_of(std::move(defaults))).second)
      throw bad_value("the name of a rule", '"' + name + '"',
                      "one that no other rule has; replace() takes a known one");
    return *this;
  }

  // Knows `defaults` in the place of the rule that is called `name`, which may be of another type; returns itself.
  template <class Rule>
  requires rule_for<Rule, Backend, Types> rule_registry& replace(const std::string& name, Rule defaults = {}) {
    (void)find(name);
    entries_.insert_or_assign(name, entry_of(std::move(defaults)));
    return *this;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, unused] : entries_) out.push_back(name);
    return out;
  }
  // The settings of a rule, with its defaults.
  const std::vector<setting>& settings(const std::string& name) const { return find(name).settings; }

  // The learning rate of the method's authors; 0 if the rule names none.
  double published_lr(const std::string& name) const { return find(name).lr; }

  rule_pointer rule(const std::string& name, const std::vector<setting>& settings = {}) const {
    return find(name).make(settings);
  }
  any_optimizer<Backend, Types> make(const std::string& name, Backend& backend,
                                     const std::vector<setting>& settings = {}, optimizer_options options = {}) const {
    return any_optimizer<Backend, Types>(backend, rule(name, settings), options);
  }

 private:
  struct entry {
    std::vector<setting> settings;
    double lr;
    std::function<rule_pointer(const std::vector<setting>&)> make;
  };
  template <class Rule>
  static entry entry_of(Rule defaults) {
    detail::check_names(detail::setting_fields(defaults), Rule::name());
    return {settings_of(defaults), Rule::published_lr(), [defaults](const std::vector<setting>& settings) {
              Rule rule = defaults;
              for (const auto& s : settings) set_setting(rule, s.name, s.value);
              return rule_pointer(std::make_unique<typed_rule<Rule, Backend, Types>>(std::move(rule)));
            }};
  }
  const entry& find(const std::string& name) const {
    const auto at = entries_.find(name);
    if (at != entries_.end()) return at->second;
    std::string known;
    for (const auto& n : names()) known += (known.empty() ? "" : ", ") + n;
    throw error("unknown rule \"" + name + "\"; nearest: \"" + nearest_name(name, names()) + "\"; known: " + known);
  }

  std::map<std::string, entry> entries_;
};

}  // namespace MATOPT_NAMESPACE
