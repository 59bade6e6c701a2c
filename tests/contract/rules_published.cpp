#include "contract.hpp"
#include "published.hpp"

namespace matopt::test {

template <>
const rule_registry<counting_backend, types<float>>& published_rules();
template <>
const rule_registry<counting_backend, types<double>>& published_rules();
template <>
const rule_registry<deferred_backend<counting_backend>, types<double>>& published_rules();

void append_published(std::vector<contract_rule>& rules) {
  const std::size_t before = rules.size();
  append_published_on<counting_backend>(rules);
  for (std::size_t i = before; i < rules.size(); ++i)
    rules[i].late = [name = rules[i].name](const subject_options& o) {
      return published_subject<deferred_backend<counting_backend>, double>(name, o);
    };
}

std::unique_ptr<subject<float>> published_on_cpu(const std::string& name, const subject_options& o, float) {
  return published_subject<counting_backend, float>(name, o);
}
std::unique_ptr<subject<double>> published_on_cpu(const std::string& name, const subject_options& o, double) {
  return published_subject<counting_backend, double>(name, o);
}

}  // namespace matopt::test
