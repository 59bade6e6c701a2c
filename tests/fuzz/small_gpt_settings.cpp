// The settings in a checkpoint of small_gpt: JSON that is checked by name.
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <small_gpt/run_settings.cpp>

#include "target.hpp"

namespace small_gpt {
// In the place of rules.cpp, which knows all rules and takes long to compile.
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

FUZZ(small_gpt_settings) {
  fuzz::refuse_or([&] {
    const auto s = small_gpt::from_checked_json(nlohmann::json::parse(data, nullptr, false));
    const auto again = small_gpt::to_checked_json(small_gpt::from_checked_json(small_gpt::to_checked_json(s)));
    fuzz::require(again == small_gpt::to_checked_json(s), "other settings came back");
    small_gpt::validate(s);
    small_gpt::differences(small_gpt::effective_settings(s), again);
  });
}
