// The Newton-Schulz iterations that cases name.
#pragma once
#include <cmath>
#include <map>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <string>
#include <vector>

namespace replay {

inline const std::map<std::string, matopt::newton_schulz<>>& iterations() {
  using matopt::coefficient_set, matopt::newton_schulz;
  static const std::map<std::string, newton_schulz<>> known = [] {
    std::map<std::string, newton_schulz<>> m;
    m["newton_schulz5"] = {.eps = 1e-7};
    m["newton_schulz12"] = {.coefficients = coefficient_set::speedrun12, .steps = 12, .eps = 1e-7};
    m["polar_express_dion"] = {.coefficients = coefficient_set::polar_express_1_02, .eps = 1e-8};
    m["polar_express5"] = {.coefficients = coefficient_set::polar_express_angular, .eps = 1e-7};
    // 1e-7 under the root
    m["aol_quintic4"] = newton_schulz<>::preset(coefficient_set::turbo);
    m["aol_flash4"] = newton_schulz<>::preset(coefficient_set::flash);
    for (const char* aol : {"aol_quintic4", "aol_flash4"}) m[aol].eps = std::sqrt(1e-7);
    // The table that turns a matrix of rank one around.
    m["emerging_aol4"] = newton_schulz<>::with_rows(
        {{4.0098, -7.0585, 2.4635}, {3.4585, -5.5479, 2.5959}, {2.7573, -3.2939, 1.4254}, {2.7215, -3.0494, 1.3169}});
    m["emerging_aol4"].eps = 1e-7, m["emerging_aol4"].eps_rule = matopt::eps_rule::max;
    m["emerging_aol4"].unchecked = true;
    return m;
  }();
  return known;
}
inline std::vector<std::string> iteration_names() {
  std::vector<std::string> names;
  for (const auto& [name, unused] : iterations()) names.push_back(name);
  return names;
}

}  // namespace replay
