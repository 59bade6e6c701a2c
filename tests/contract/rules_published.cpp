#include <algorithm>

#include "published.hpp"

namespace matopt::test {

template <>
const rule_registry<counting_backend, types<float>>& published_rules();
template <>
const rule_registry<counting_backend, types<double>>& published_rules();
template <>
const rule_registry<deferred_backend<counting_backend>, types<double>>& published_rules();

void append_published(std::vector<contract_rule>& rules) {
  for (const std::string& name : published_rules<counting_backend, double>().names()) {
    if (std::any_of(rules.begin(), rules.end(), [&](const auto& r) { return r.name == name; })) continue;
    contract_rule r{name};
    r.unique_trajectory = name != "soap";
    r.in_float = [=](const subject_options& o) { return published_subject<counting_backend, float>(name, o); };
    r.in_double = [=](const subject_options& o) { return published_subject<counting_backend, double>(name, o); };
    r.late = [=](const subject_options& o) {
      return published_subject<deferred_backend<counting_backend>, double>(name, o);
    };
    rules.push_back(std::move(r));
  }
}

}  // namespace matopt::test
