// Saves and loads the state of an optimizer, any_optimizer or param_groups, bit for bit.
//
//   save_state(opt, "state.safetensors");     load_state(opt, "state.safetensors");
//   store_state(opt, file);                   restore_state(opt, file);          with weights in the same tensor_file
//
// Tensors are named "<parameter>.<state>" behind "optimizer." and stored dense and row-major, whatever the weight's
// storage. Beside them stand a format version, the rule, its settings and the number of steps, as metadata. The rule,
// its settings and every name, shape and type must agree on loading; if they do not, a bad_file lists both sides and
// nothing has changed. {.other_settings = true} takes the state of a run with other settings of the same rule on
// purpose. Learning rates are the caller's, and not compared.
//
// What is returned says what could not be checked: files of matopt 0.1 have neither checksums nor settings. It is empty
// otherwise.
#pragma once
#include <charconv>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "optimizer.hpp"
#include "tensor_file.hpp"

namespace matopt {

inline constexpr const char* state_prefix = "optimizer.";

struct restore_options {
  bool other_settings = false;  // the file's settings may differ from the optimizer's, which stay
};

namespace detail {

inline constexpr const char* state_version = "1";
inline constexpr const char* state_version_key = "optimizer.format_version";
inline constexpr const char* settings_prefix = "optimizer.settings.";

// The settings that a run has in fact, defaults and all, by the keys that they have as metadata.
template <class Optimizer>
std::map<std::string, std::string> settings_metadata(const Optimizer& opt) {
  std::map<std::string, std::string> out;
  for (const setting& s : opt.settings()) {
    std::string key = settings_prefix + s.name;
    while (out.contains(key)) key += '+';  // a rule may have two of one name
    out[key] = s.value;
  }
  return out;
}

// The number of steps that `written` says, or -1: what to_string() would write, and no more than a step's counter
// holds.
inline index_t steps_of(const std::string& written) {
  index_t steps = -1;
  std::from_chars(written.data(), written.data() + written.size(), steps);
  const bool legal = steps >= 0 && steps <= max_steps && std::to_string(steps) == written;
  return legal ? steps : -1;
}

inline std::string shape_text(element_type type, index_t rows, index_t cols) {
  return std::string(name_of(type)) + " " + std::to_string(rows) + "x" + std::to_string(cols);
}

// What of the metadata does not fit, a line each; and in `note` what could not be compared.
template <class Optimizer>
std::string metadata_differences(const Optimizer& opt, const tensor_file& file, const restore_options& o,
                                 std::string& note) {
  const auto text = [&](const std::string& key) {
    const auto at = file.metadata.find(key);
    return at == file.metadata.end() ? std::string("(none)") : at->second;
  };
  std::string differences;
  const auto ours = settings_metadata(opt);
  std::map<std::string, std::string> theirs;
  for (const auto& [key, value] : file.metadata)
    if (key.starts_with(settings_prefix)) theirs[key] = value;
  const bool versioned = file.metadata.contains(state_version_key);
  if (versioned ? text(state_version_key) != state_version : !theirs.empty())
    differences += "\n  format version: file " + text(state_version_key) + ", legal: " + state_version;
  if (text("optimizer.rule") != opt.signature())
    differences += "\n  rule: file " + text("optimizer.rule") + ", here " + opt.signature();
  if (steps_of(text("optimizer.steps")) < 0)
    differences +=
        "\n  steps: file " + text("optimizer.steps") + ", legal: a whole number from 0 to " + std::to_string(max_steps);
  if (!versioned && theirs.empty()) {
    note = "the file has no settings of the rule, so they are not compared";
  } else if (!o.other_settings) {
    auto keys = theirs;
    keys.insert(ours.begin(), ours.end());
    for (const auto& [key, unused] : keys) {
      const auto here = ours.find(key);
      const std::string value = here == ours.end() ? "(none)" : here->second;
      if (text(key) != value)
        differences += "\n  setting " + key.substr(std::string(settings_prefix).size()) + ": file " + text(key) +
                       ", here " + value;
    }
  }
  return differences;
}

// The same of the tensors.
inline std::string tensor_differences(const std::vector<state_tensor>& here, const tensor_file& file) {
  std::string differences;
  std::set<std::string> names;
  for (const state_tensor& t : here) {
    if (!names.insert(state_prefix + t.name).second) differences += "\n  " + t.name + ": twice here";
    const auto at = file.tensors.find(state_prefix + t.name);
    const std::string ours = shape_text(t.type, t.rows, t.cols);
    if (at == file.tensors.end()) {
      differences += "\n  " + t.name + ": file (none), here " + ours;
      continue;
    }
    const auto& [type, shape, data] = at->second;
    const std::string theirs = shape.size() == 2 ? shape_text(type, shape[0], shape[1]) : "not a matrix";
    if (theirs != ours) {
      differences += "\n  " + t.name + ": file " + theirs + ", here " + ours;
    } else if (const auto bytes = static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type); data.size() != bytes) {
      differences +=
          "\n  " + t.name + ": file " + std::to_string(data.size()) + " bytes, here " + std::to_string(bytes);
    }
  }
  for (const auto& [name, unused] : file.tensors)
    if (name.starts_with(state_prefix) && !names.contains(name))
      differences += "\n  " + name.substr(std::string(state_prefix).size()) + ": in the file only";
  return differences;
}

}  // namespace detail

template <class Optimizer>
void store_state(const Optimizer& opt, tensor_file& file) {
  // Nothing stays of what the file held of another optimizer.
  std::erase_if(file.tensors, [](const auto& t) { return t.first.starts_with(state_prefix); });
  std::erase_if(file.metadata, [](const auto& m) { return m.first.starts_with(state_prefix); });
  for (const state_tensor& t : opt.state_tensors()) {
    std::vector<std::byte> data(static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type));
    opt.read_state(t, data.data());
    const auto name = state_prefix + t.name;
    if (!file.tensors.try_emplace(name, tensor_file::tensor{t.type, {t.rows, t.cols}, std::move(data)}).second)
      throw bad_value("state \"" + t.name + '"', "of two parameters", "of one; give them other names");
  }
  file.metadata.merge(detail::settings_metadata(opt));
  file.metadata[detail::state_version_key] = detail::state_version;
  file.metadata["optimizer.rule"] = opt.signature();
  file.metadata["optimizer.steps"] = std::to_string(opt.steps());
}

template <class Optimizer>
std::string restore_state(Optimizer& opt, const tensor_file& file, const restore_options& options = {}) {
  std::string note;
  const std::vector<state_tensor> here = opt.state_tensors();
  const std::string differences =
      detail::metadata_differences(opt, file, options, note) + detail::tensor_differences(here, file);
  if (!differences.empty()) throw bad_file("the saved state does not fit this optimizer:" + differences);

  for (const state_tensor& t : here) opt.write_state(t, file.tensors.at(state_prefix + t.name).data.data());
  opt.set_steps(detail::steps_of(file.metadata.at("optimizer.steps")));
  return file.note + (file.note.empty() || note.empty() ? "" : "; ") + note;
}

template <class Optimizer>
void save_state(const Optimizer& opt, const std::string& path) {
  tensor_file file;
  store_state(opt, file);
  file.save(path);
}
template <class Optimizer>
std::string load_state(Optimizer& opt, const std::string& path, const restore_options& options = {}) {
  return restore_state(opt, tensor_file::load(path), options);
}

}  // namespace matopt
