// For targets that read settings of small_gpt: two rules in the place of rules.cpp, which knows all and takes long to compile.
#pragma once
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <small_gpt/run_settings.cpp>

namespace small_gpt {
rule_book& rules() {
  static rule_book known = [] {
    rule_book r;
    r.add<matopt::adamw>("adamw").add<matopt::muon>("muon");
    return r;
  }();
  return known;
}
double default_rate(const std::string& rule) { return rules().published_lr(rule); }
std::vector<matopt::setting> parse_settings(const std::vector<std::string>& given) {
  std::vector<matopt::setting> out;
  for (const auto& s : given) out.push_back({s.substr(0, s.find('=')), s.substr(std::min(s.size(), s.find('=') + 1))});
  return out;
}
void fit_rank_schedule(const std::string&, std::vector<matopt::setting>&, matopt::index_t) {}
}  // namespace small_gpt
