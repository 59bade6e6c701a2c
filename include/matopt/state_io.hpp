// Saves and loads the state of an optimizer, any_optimizer or param_groups, bit for bit.
//
//   save_state(opt, "state.safetensors");     load_state(opt, "state.safetensors");
//   store_state(opt, file);                   restore_state(opt, file);          with weights in the same tensor_file
//
// Tensors are named "<parameter>.<state>" behind "optimizer." and stored dense and row-major, whatever the weight's
// storage. The rule, the number of steps and every name, shape and type must agree on loading; if they do not, a
// bad_file lists both sides and nothing has changed.
#pragma once
#include <charconv>
#include <set>
#include <string>
#include <vector>

#include "optimizer.hpp"
#include "tensor_file.hpp"

namespace matopt {

inline constexpr const char* state_prefix = "optimizer.";

template <class Optimizer>
void store_state(const Optimizer& opt, tensor_file& file) {
  for (const state_tensor& t : opt.state_tensors()) {
    auto& out = file.tensors[state_prefix + t.name];
    out = {
        t.type, {t.rows, t.cols}, std::vector<std::byte>(static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type))};
    opt.read_state(t, out.data.data());
  }
  file.metadata["optimizer.rule"] = opt.signature();
  file.metadata["optimizer.steps"] = std::to_string(opt.steps());
}

template <class Optimizer>
void restore_state(Optimizer& opt, const tensor_file& file) {
  const auto text = [&](const std::string& key) {
    const auto at = file.metadata.find(key);
    return at == file.metadata.end() ? std::string("(none)") : at->second;
  };
  const auto shape = [](element_type type, index_t rows, index_t cols) {
    return std::string(name_of(type)) + " " + std::to_string(rows) + "x" + std::to_string(cols);
  };
  std::string differences;
  if (text("optimizer.rule") != opt.signature())
    differences += "\n  rule: file " + text("optimizer.rule") + ", here " + opt.signature();
  index_t steps = -1;
  const std::string written = text("optimizer.steps");
  std::from_chars(written.data(), written.data() + written.size(), steps);
  if (steps < 0) differences += "\n  steps: file " + written + ", legal: a whole number >= 0";

  const std::vector<state_tensor> here = opt.state_tensors();
  std::set<std::string> names;
  for (const state_tensor& t : here) {
    names.insert(state_prefix + t.name);
    const auto at = file.tensors.find(state_prefix + t.name);
    const std::string ours = shape(t.type, t.rows, t.cols);
    if (at == file.tensors.end()) {
      differences += "\n  " + t.name + ": file (none), here " + ours;
      continue;
    }
    const auto& s = at->second.shape;
    const std::string theirs = s.size() == 2 ? shape(at->second.type, s[0], s[1]) : "not a matrix";
    if (theirs != ours) differences += "\n  " + t.name + ": file " + theirs + ", here " + ours;
  }
  for (const auto& [name, unused] : file.tensors)
    if (name.starts_with(state_prefix) && !names.contains(name))
      differences += "\n  " + name.substr(std::string(state_prefix).size()) + ": in the file only";
  if (!differences.empty()) throw bad_file("the saved state does not fit this optimizer:" + differences);

  for (const state_tensor& t : here) opt.write_state(t, file.tensors.at(state_prefix + t.name).data.data());
  opt.set_steps(steps);
}

template <class Optimizer>
void save_state(const Optimizer& opt, const std::string& path) {
  tensor_file file;
  store_state(opt, file);
  file.save(path);
}
template <class Optimizer>
void load_state(Optimizer& opt, const std::string& path) {
  restore_state(opt, tensor_file::load(path));
}

}  // namespace matopt
