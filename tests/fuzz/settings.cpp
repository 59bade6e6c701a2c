// Settings as text: "rule key=value key=value ...", with the rules by name and their settings.
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/engine/rule_registry.hpp>
#include <matopt/muon.hpp>
#include <matopt/numuon.hpp>
#include <sstream>

#include "target.hpp"

FUZZ(settings) {
  static const matopt::rule_registry<matopt::eigen_backend> rules = [] {
    matopt::rule_registry<matopt::eigen_backend> r;
    r.add<matopt::adamw>("adamw").add<matopt::muon>("muon").add<matopt::numuon>("numuon");
    return r;
  }();
  std::istringstream words{std::string(data)};
  std::string rule, word;
  std::vector<matopt::setting> settings;
  words >> rule;
  while (words >> word) {
    const std::size_t equals = std::min(word.find('='), word.size());
    settings.push_back({word.substr(0, equals), word.substr(std::min(equals + 1, word.size()))});
  }
  fuzz::refuse_or([&] {
    // What is taken is written as text that gives the same settings.
    const auto first = rules.rule(rule, settings)->settings();
    const auto again = rules.rule(rule, first)->settings();
    for (std::size_t i = 0; i < first.size(); ++i)
      fuzz::require(first[i].value == again[i].value, "another setting came back");
  });
}
