// The rules that the command line knows, with their base rates.
#pragma once
#include <matopt/eigen.hpp>
#include <matopt/engine/rule_registry.hpp>
#include <string>
#include <utility>
#include <vector>

namespace small_gpt {

using optimizer = matopt::any_optimizer<matopt::eigen_backend>;

// Rules by name. Names go into command lines and names of folders, and each means one rule.
class rule_book : public matopt::rule_registry<matopt::eigen_backend> {
 public:
  using registry = matopt::rule_registry<matopt::eigen_backend>;

  // Throws if the name is known already, or holds anything but letters, digits, and _ - . +
  template <class Rule>
  rule_book& add(const std::string& name, Rule defaults = {}) {
    require_legal(name);
    registry::add<Rule>(name, std::move(defaults));
    return *this;
  }

 private:
  void require_legal(const std::string& name) const {
    constexpr const char* legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.+";
    if (name.empty() || name.find_first_not_of(legal) != std::string::npos || name.front() == '-' ||
        name.front() == '.')
      throw matopt::bad_value("the name of a rule", '"' + name + '"',
                              "letters, digits, _ - . and +, and first neither - nor .");
  }
};

// All rules that the program knows: at first known_rules(); a program of one's own adds more before it calls run():
// rules().add<my_rule>("mine").
rule_book& rules();
// Those of the library, of known_rules.cpp. Each translation unit rules_*.cpp adds its own, so that they compile side by
// side. The demo's program has a function of that name with four rules instead (demo.cpp).
rule_book known_rules();
void add_muon_rules(rule_book&);
void add_normalized_rules(rule_book&);
void add_adaptive_rules(rule_book&);
void add_estimator_rules(rule_book&);
void add_baseline_rules(rule_book&);
void add_constrained_rules(rule_book&);
void add_eigenbasis_rules(rule_book&);

// The rate of the hidden matrices when the user gives none: the authors', but for a few that this example sets itself.
// None is tuned; docs/demo-rates.csv has rates that were.
double default_rate(const std::string& rule);

// What the rule keeps beside a weight: "1 per parameter, 1 per row".
std::string state_cost(const std::string& rule);

// "key=value" strings as settings; errors name the string.
std::vector<matopt::setting> parse_settings(const std::vector<std::string>& set);

// Rank schedules count steps: unless set, the rank is held for the first tenth and final after eight tenths of the
// training.
void fit_rank_schedule(const std::string& rule, std::vector<matopt::setting>& settings, matopt::index_t iterations);

}  // namespace small_gpt
