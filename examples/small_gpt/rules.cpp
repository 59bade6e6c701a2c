#include "rules.hpp"

#include <algorithm>
#include <matopt/eigen.hpp>

namespace small_gpt {

const rule_book& rules() {
  static const rule_book book = [] {
    rule_book b;
    add_muon_rules(b), add_normalized_rules(b), add_adaptive_rules(b);
    add_estimator_rules(b), add_baseline_rules(b), add_constrained_rules(b);
    return b;
  }();
  return book;
}

double default_rate(const std::string& rule) {
  if (rule == "adamw") return 3e-3;
  if (rule == "muown" || rule == "numuown") return 5e-3;
  if (rule == "numuon") return 0.02;
  return rules().published_lr(rule);
}

std::vector<matopt::setting> parse_settings(const std::vector<std::string>& set) {
  std::vector<matopt::setting> out;
  for (const auto& s : set) {
    const auto at = s.find('=');
    if (at == std::string::npos || at == 0) throw matopt::bad_value("--set", '"' + s + '"', "key=value");
    out.push_back({s.substr(0, at), s.substr(at + 1)});
  }
  return out;
}

void fit_rank_schedule(const std::string& rule, std::vector<matopt::setting>& settings, matopt::index_t iterations) {
  const auto& known = rules().settings(rule);
  const auto fit = [&](const char* name, matopt::index_t steps) {
    const auto named = [&](const matopt::setting& s) { return s.name == name; };
    if (std::any_of(known.begin(), known.end(), named) && std::none_of(settings.begin(), settings.end(), named))
      settings.push_back({name, std::to_string(steps)});
  };
  fit("rank_hold_steps", iterations / 10);
  fit("rank_end_step", std::max<matopt::index_t>(1, iterations * 8 / 10));
}

}  // namespace small_gpt
