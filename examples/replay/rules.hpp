// The rules of golden files: from a case's rule and settings to an optimizer, or, for a case that is not a trajectory,
// to what computes its results. Each translation unit rules_*.cpp adds its family to the table of a backend, for one
// element type after the other; directions.cpp adds bare orthogonalizers, functions.cpp the rest.
#pragma once
#include <functional>
#include <map>
#include <matopt/engine/rule_registry.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "case.hpp"
#include "matrices.hpp"
#include "settings_reader.hpp"

namespace replay {

template <class B, class T>
using any_optimizer = matopt::any_optimizer<B, matopt::types<T>>;

// An optimizer that has taken in the settings of a case, its learning rate, and state that the case prescribes.
template <class B, class T>
struct prepared {
  any_optimizer<B, T> optimizer;
  double lr;
  std::map<std::string, json> state{};  // by the name of the state
  bool transposed = false;              // the case's matrices are [in, out]
  std::string weight{};                 // the state that holds the weight of the case, if that is not w itself
};

// `two_gradients`: the case brings reference gradients.
template <class B, class T>
using maker = std::function<prepared<B, T>(B&, settings_reader&, bool two_gradients)>;

// Computes a case that is not a trajectory: reads its settings (finish() of the reader included) and its matrices, and
// fills in the error and what was computed. The arguments are the backend, the settings, the case and the outcome.
template <class B, class T>
using computation = std::function<void(B&, settings_reader&, const json& c, outcome&)>;

template <class B, class T>
class rule_table {
 public:
  void add(const std::string& name, maker<B, T> m) { makers_[name] = std::move(m); }
  void compute(const std::string& name, computation<B, T> f) { computations_[name] = std::move(f); }
  // Null if the rule is not one of these.
  const computation<B, T>* computation_of(const std::string& name) const {
    const auto at = computations_.find(name);
    return at == computations_.end() ? nullptr : &at->second;
  }
  const maker<B, T>& find(const std::string& name) const {
    const auto at = makers_.find(name);
    if (at != makers_.end()) return at->second;
    std::vector<std::string> known;
    for (const auto& [n, unused] : makers_) known.push_back(n);
    for (const auto& [n, unused] : computations_) known.push_back(n);
    throw matopt::error("unknown rule \"" + name + "\"; nearest: \"" + matopt::nearest_name(name, known) + '"');
  }

 private:
  std::map<std::string, maker<B, T>> makers_;
  std::map<std::string, computation<B, T>> computations_;
};

// All rules, built once.
template <class B, class T>
const rule_table<B, T>& rules();

template <class B, class T>
void add_muon_rules(rule_table<B, T>&);
template <class B, class T>
void add_normalized_rules(rule_table<B, T>&);
template <class B, class T>
void add_adaptive_rules(rule_table<B, T>&);
template <class B, class T>
void add_estimator_rules(rule_table<B, T>&);
template <class B, class T>
void add_baseline_rules(rule_table<B, T>&);
template <class B, class T>
void add_direction_rules(rule_table<B, T>&);
template <class B, class T>
void add_constraint_rules(rule_table<B, T>&);
template <class B, class T>
void add_product_rules(rule_table<B, T>&);
template <class B, class T>
void add_directions(rule_table<B, T>&);
template <class B, class T>
void add_basis_rules(rule_table<B, T>&);
template <class B, class T>
void add_functions(rule_table<B, T>&);

// A tensor of the state of the only parameter, "w".
template <class B, class T>
matrix<T> state_of(any_optimizer<B, T>& opt, const std::string& name, index_t rows, index_t cols) {
  matrix<T> out{rows, cols, std::vector<T>(static_cast<std::size_t>(rows * cols))};
  for (const auto& t : opt.state_tensors())
    if (t.name == "w." + name) opt.read_state(t, out.data.data());
  return out;
}

// The end of every maker: the optimizer of `rule`, with the settings that all have. Golden files add 1e-7 to the norm
// that Newton-Schulz divides by, as the codes do that they stand for, if neither the rule nor the case has its own.
template <class B, class T, class Rule>
prepared<B, T> finish(B& backend, settings_reader& s, Rule rule, double default_lr = Rule::published_lr()) {
  if constexpr (std::is_same_v<typename Rule::orthogonalizer_type, matopt::newton_schulz<>>)
    if (rule.orthogonalizer.eps == matopt::negligible_norm) rule.orthogonalizer.eps = 1e-7;
  return {any_optimizer<B, T>(backend, std::move(rule)), s.number("lr", default_lr)};
}

}  // namespace replay
