// The published rules on one backend and element type; each instance is a translation unit of its own.
#pragma once
#include <matopt/rule_registry.hpp>

#include "contract.hpp"

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
  }
  return make_subject<B, T>([&](B& b, const optimizer_options& p) { return rules.make(name, b, calm, p); }, o);
}

}  // namespace matopt::test
