// The published rules on one backend and element type; each instance is a translation unit of its own.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include <matopt/engine/rule_registry.hpp>

#include "subject.hpp"

namespace matopt::test {

template <class B, class T>
const rule_registry<B, types<T>>& published_rules();

// A subject of the rule called `name`, at rest when its gradients are: without decay of the weight.
template <class B, class T>
std::unique_ptr<subject<T>> published_subject(const std::string& name, const subject_options& o) {
  const auto& rules = published_rules<B, T>();
  std::vector<setting> calm;
  for (const setting& s : rules.settings(name)) {
    if (s.name == "decay") calm.push_back({"decay", "0"});
    if (s.name == "constrained") calm.push_back({"constrained", "false"});
    if (s.name == "rank_total") calm.push_back({"rank_total", "1"});  // has no default
  }
  return make_subject<B, T>([&](B& b, const optimizer_options& p) { return rules.make(name, b, calm, p); }, o);
}

// The same on the CPU, for other backends to be held against.
std::unique_ptr<subject<float>> published_on_cpu(const std::string& name, const subject_options& o, float);
std::unique_ptr<subject<double>> published_on_cpu(const std::string& name, const subject_options& o, double);

// Adds the rules of backend B that are not in the table yet.
template <class B>
void append_published_on(std::vector<contract_rule>& rules) {
  const auto& published = published_rules<B, double>();
  for (const std::string& name : published.names()) {
    if (std::any_of(rules.begin(), rules.end(), [&](const auto& r) { return r.name == name; })) continue;
    const auto& settings = published.settings(name);
    contract_rule r{name};
    const auto has = [&](const char* what) {
      return std::any_of(settings.begin(), settings.end(), [&](const setting& s) { return s.name == what; });
    };
    // Those that renew bases.
    r.unique_trajectory = !has("precondition_frequency") && !has("skip_first");
    r.exact_at_rest = name != "muown" && name != "angular_muown" && name != "muon_h" && name != "normuon_h" &&
                      name != "soap_muon" && name != "kl_soap_h";
    r.newton_schulz = std::any_of(settings.begin(), settings.end(), [](const setting& s) {
      return s.name == "ns_steps" || s.name == "subspace_polar_steps";
    });
    r.in_float = [=](const subject_options& o) { return published_subject<B, float>(name, o); };
    r.in_double = [=](const subject_options& o) { return published_subject<B, double>(name, o); };
    r.settings = settings;
    r.with_settings = [=](std::vector<setting> changed) {
      for (const setting& s : settings)
        if (s.name == "rank_total") changed.insert(changed.begin(), {"rank_total", "1"});
      return make_subject<B, float>(
          [&](B& b, const optimizer_options& p) { return published_rules<B, float>().make(name, b, changed, p); }, {});
    };
    rules.push_back(std::move(r));
  }
}
// ... with the CPU's form of each.
inline void compare_with_cpu(std::vector<contract_rule>& rules) {
  for (auto& r : rules) {
    r.float_on_cpu = [name = r.name](const subject_options& o) { return published_on_cpu(name, o, float{}); };
    r.double_on_cpu = [name = r.name](const subject_options& o) { return published_on_cpu(name, o, double{}); };
  }
}

}  // namespace matopt::test
