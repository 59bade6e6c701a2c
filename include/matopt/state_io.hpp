// Saves and loads the state of an optimizer, any_optimizer or param_groups, bit for bit.
//
//   save_state(opt, "state.safetensors");     load_state(opt, "state.safetensors");
//   store_state(opt, file);                   restore_state(opt, file);          with weights in the same tensor_file
//   load_state(opt, path, {.partial = true}).missing     what fits, and a report of what does not
//
// Tensors are named "<parameter>.<state>" behind "optimizer." and stored dense and row-major, whatever the weight's
// storage. Beside them stand a format version, the rule, its settings and the number of steps, as metadata. The rule,
// its settings and every name, shape and type must agree on loading (a setting that
// the file lacks must have its default); if they do not, a bad_file lists both sides and
// nothing has changed. restore_options say what may differ on purpose. Learning rates are the caller's, and not
// compared. State that version 0.1 called or kept otherwise (core/state_layout.hpp) is loaded as what it is today.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/convert_elements.hpp"
#include "io/recode_state.hpp"
#include "optimizer.hpp"
#include "tensor_file.hpp"

namespace MATOPT_NAMESPACE {

inline constexpr const char* state_prefix = "optimizer.";

// What may differ between the file and the optimizer. The rule may not, whatever they say.
struct restore_options {
  bool other_settings = false;  // the settings of the rule; the optimizer's stay
  bool convert = false;         // the element types of the state, codes of 8 bits among them; rounded to nearest
  bool partial = false;         // parameters, their shapes, and element types: what fits is loaded
};

// What a load has found. Tensors of state have the names "<parameter>.<state>".
struct restore_report {
  struct difference {
    std::string name, file, here;
  };
  std::string note;                       // what could not be verified or compared; empty if everything was
  std::vector<std::string> missing;       // tensors of the optimizer that are not in the file
  std::vector<std::string> unexpected;    // tensors of the file that the optimizer does not have
  std::vector<difference> other_shape;    // tensors of another shape: F32 4x3 in the file, F32 5x3 here
  std::vector<difference> converted;      // loaded from another element type, or from a former name
  std::vector<std::string> not_restored;  // parameters whose state is as it was: some of it is missing or of another
                                          // shape, and half of a state is worse than none

  bool everything() const { return missing.empty() && unexpected.empty() && other_shape.empty(); }
};

namespace detail {

inline constexpr const char* state_version = "1";
inline constexpr const char* state_version_key = "optimizer.format_version";
inline constexpr const char* settings_prefix = "optimizer.settings.";

inline constexpr const char* scheduled_prefix = "optimizer.scheduled.";

// Settings by the keys that they have as metadata.
inline std::map<std::string, std::string> settings_metadata(const std::vector<setting>& settings,
                                                            const char* prefix = settings_prefix) {
  std::map<std::string, std::string> out;
  for (const setting& s : settings) {
    std::string key = prefix + s.name;
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

inline std::string shape_text(const tensor_file::tensor& t) {
  return t.shape.size() == 2 ? shape_text(t.type, t.shape[0], t.shape[1]) : "not a matrix";
}

inline constexpr const char* rule_of_prefix = "optimizer.rule_of.";

// The rules in a signature.
inline std::vector<std::string> rules_of(std::string_view signature) {
  constexpr std::string_view between = " + ";
  std::vector<std::string> rules;
  for (std::size_t from = 0, end = 0; end != signature.npos; from = end + between.size()) {
    end = signature.find(between, from);
    rules.emplace_back(signature.substr(from, end == signature.npos ? end : end - from));
  }
  return rules;
}
// The same of a file. A rule that is not among `ours` may have been called otherwise in version 0.1.
inline std::vector<std::string> rules_in(const tensor_file& file, const std::vector<std::string>& ours) {
  const auto at = file.metadata.find("optimizer.rule");
  if (at == file.metadata.end()) return {"(none)"};
  auto rules = rules_of(at->second);
  for (std::string& rule : rules)
    if (std::find(ours.begin(), ours.end(), rule) == ours.end()) rule = rule_name(rule);
  return rules;
}

// Matrices that the file has under another rule, with that. (A file of an earlier version says nothing of that.)
template <class Optimizer>
std::map<std::string, std::string> under_other_rules(const Optimizer& opt, const tensor_file& file) {
  std::map<std::string, std::string> found;
  const auto ours = rules_of(opt.signature()), theirs = rules_in(file, ours);
  for (const auto& [name, place] : opt.rules_of_matrices()) {
    const auto at = file.metadata.find(rule_of_prefix + name);
    if (at == file.metadata.end()) continue;
    const index_t number = steps_of(at->second);
    const bool known = number >= 0 && number < static_cast<index_t>(theirs.size());
    const std::string rule = known ? theirs[static_cast<std::size_t>(number)] : "number " + at->second;
    if (rule != ours[place]) found[name] = rule;
  }
  return found;
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
  const auto ours = settings_metadata(opt.settings()), defaults = settings_metadata(opt.default_settings());
  std::map<std::string, std::string> theirs;
  for (const auto& [key, value] : file.metadata)
    if (key.starts_with(settings_prefix)) theirs[key] = value;
  const bool versioned = file.metadata.contains(state_version_key);
  if (versioned ? text(state_version_key) != state_version : !theirs.empty())
    differences += "\n  format version: file " + text(state_version_key) + ", legal: " + state_version;
  auto our_rules = rules_of(opt.signature()), their_rules = rules_in(file, our_rules);
  std::sort(our_rules.begin(), our_rules.end()), std::sort(their_rules.begin(), their_rules.end());
  if (our_rules != their_rules)  // in whatever order the groups are
    differences += "\n  rule: file " + text("optimizer.rule") + ", here " + opt.signature();
  if (steps_of(text("optimizer.steps")) < 0)
    differences +=
        "\n  steps: file " + text("optimizer.steps") + ", legal: a whole number from 0 to " + std::to_string(max_steps);
  if (!versioned && theirs.empty()) {
    note = "the file has no settings of the rule, so they are not compared";
  } else if (!o.other_settings) {
    const auto follow = settings_metadata(opt.scheduled_settings(), scheduled_prefix);
    auto keys = theirs;
    keys.insert(ours.begin(), ours.end());
    for (const auto& [key, unused] : keys) {
      const auto here = ours.find(key);
      const std::string value = here == ours.end() ? "(none)" : here->second;
      const std::string name = key.substr(std::string(settings_prefix).size());
      if (text(key) == value) continue;
      const bool fixed_there = theirs.contains(key), fixed_here = here != ours.end();
      if (!fixed_there && file.metadata.contains(scheduled_prefix + name)) {
        differences += "\n  setting " + name + ": file a schedule (" + text(scheduled_prefix + name) +
                       " when it was saved), here " + value +
                       " without one; give it that schedule before loading, or load with other_settings";
        continue;
      }
      if (!fixed_here && follow.contains(scheduled_prefix + name)) {
        differences += "\n  setting " + name + ": file " + text(key) +
                       " without a schedule, here a schedule; give it that value with set() before loading, or load "
                       "with other_settings";
        continue;
      }
      // The run may be older than the setting, and has then done what the default does.
      const bool younger = !fixed_there;
      if (younger && defaults.at(key) == value)
        note += (note.empty() ? "the file does not have the setting " : ", ") + name + " (the default, " + value + ")";
      else
        differences += "\n  setting " + name + ": file " + text(key) +
                       (younger ? ", which stands for the default, " + defaults.at(key) : std::string()) + ", here " +
                       value;
    }
  }
  return differences;
}

// A tensor of the file as state of the optimizer.
struct state_write {
  const state_tensor* to;
  const std::byte* from;
  std::vector<std::byte> own;  // what `from` points to, unless that is the file's
};

// Where the file has the state called "<parameter>.<state>": under its name, or under one that the state has had.
struct saved_state {
  const tensor_file::tensor* tensor = nullptr;
  std::string key;
  double (*meaning)(double) = nullptr;

  std::string former_name() const { return meaning ? " " + key.substr(key.rfind('.') + 1) : std::string(); }
};
inline saved_state find_saved(const tensor_file& file, const std::string& name) {
  const auto at = [&](const std::string& key, double (*meaning)(double)) {
    const auto found = file.tensors.find(key);
    return found == file.tensors.end() ? saved_state{} : saved_state{&found->second, key, meaning};
  };
  if (const saved_state today = at(state_prefix + name, nullptr); today.tensor) return today;
  const std::size_t dot = name.rfind('.');
  for (const former_state& old : former_states)
    if (name.substr(dot + 1) == old.today)
      if (const saved_state then = at(state_prefix + name.substr(0, dot + 1) + std::string(old.name), old.meaning);
          then.tensor)
        return then;
  return {};
}

inline std::string parameter_of(const std::string& state) { return state.substr(0, state.rfind('.')); }

// Compares the tensors of the file with those of the optimizer: what does not fit goes to `report` or, where `o` does
// not allow for it, to `refused`, a line each. Returns what is to be written.
inline std::vector<state_write> match_tensors(const std::vector<state_tensor>& here, const tensor_file& file,
                                              const std::map<std::string, std::string>& under_other_rules,
                                              const restore_options& o, restore_report& report, std::string& refused) {
  std::vector<std::pair<const state_tensor*, saved_state>> fitting;
  std::set<std::string> names, keys, not_restored;
  const auto unlike = [&](const std::string& name, const std::string& theirs, const std::string& ours) {
    refused += "\n  " + name + ": file " + theirs + ", here " + ours;
  };
  for (const state_tensor& t : here) {
    if (!names.insert(t.name).second) refused += "\n  " + t.name + ": twice here";
    const std::string ours = shape_text(t.type, t.rows, t.cols);
    const saved_state saved =
        under_other_rules.contains(parameter_of(t.name)) ? saved_state{} : find_saved(file, t.name);
    if (!saved.tensor) {
      report.missing.push_back(t.name), not_restored.insert(parameter_of(t.name));
      if (!o.partial) unlike(t.name, "(none)", ours);
      continue;
    }
    keys.insert(saved.key);
    const auto& [type, shape, data] = *saved.tensor;
    if (const std::string theirs = shape_text(*saved.tensor); shape != std::vector<index_t>{t.rows, t.cols}) {
      report.other_shape.push_back({t.name, theirs, ours}), not_restored.insert(parameter_of(t.name));
      if (!o.partial) unlike(t.name, theirs, ours);
    } else if (const auto bytes = static_cast<std::size_t>(t.rows * t.cols) * size_of(type); data.size() != bytes) {
      unlike(t.name, std::to_string(data.size()) + " bytes", std::to_string(bytes));
    } else if (type != t.type && ((!o.convert && !o.partial) || holds_codes(type) || holds_codes(t.type))) {
      unlike(t.name, theirs, ours);
    } else {
      fitting.emplace_back(&t, saved);
    }
  }
  for (const auto& [key, unused] : file.tensors)
    if (key.starts_with(state_prefix) && !keys.contains(key)) {
      report.unexpected.push_back(key.substr(std::string(state_prefix).size()));
      if (!o.partial) refused += "\n  " + report.unexpected.back() + ": in the file only";
    }
  report.not_restored.assign(not_restored.begin(), not_restored.end());

  std::vector<state_write> writes;
  for (const auto& [t, saved] : fitting) {
    // A bias correction or a basis without the moments that belong to it would make long steps.
    if (not_restored.contains(parameter_of(t->name))) continue;
    const auto& [type, shape, data] = *saved.tensor;
    writes.push_back({t, data.data(), {}});
    if (type == t->type && !saved.meaning) continue;
    converted_elements today = convert_elements(data, type, t->type, saved.meaning);
    if (today.out_of_range)
      refused += "\n  " + t->name + ": " + text(*today.out_of_range) + " in the file is too large for " +
                 std::string(name_of(t->type));
    writes.back().own = std::move(today.data), writes.back().from = writes.back().own.data();
    report.converted.push_back(
        {t->name, std::string(name_of(type)) + saved.former_name(), std::string(name_of(t->type))});
  }
  return writes;
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
  file.metadata.merge(detail::settings_metadata(opt.settings()));
  file.metadata.merge(detail::settings_metadata(opt.scheduled_settings(), detail::scheduled_prefix));
  file.metadata[detail::state_version_key] = detail::state_version;
  file.metadata["optimizer.rule"] = opt.signature();
  for (const auto& [name, place] : opt.rules_of_matrices())
    file.metadata[detail::rule_of_prefix + name] = std::to_string(place);
  file.metadata["optimizer.steps"] = std::to_string(opt.steps());
}

// Everything is read, compared and converted before the first tensor is written.
template <class Optimizer>
restore_report restore_state(Optimizer& opt, const tensor_file& file, const restore_options& options = {}) {
  restore_report report;
  const std::vector<state_tensor> here = opt.state_tensors();
  std::string refused = detail::metadata_differences(opt, file, options, report.note);
  const bool any_format = options.convert || options.partial;
  const auto recoded = any_format ? detail::recode_state(here, file, state_prefix) : std::nullopt;
  if (recoded)
    for (const auto& c : recoded->changes) report.converted.push_back({c.name, c.file, c.here});
  const auto other_rules = detail::under_other_rules(opt, file);
  if (!options.partial)
    for (const auto& [name, rule] : other_rules)
      refused += "\n  rule of " + name + ": file " + rule + ", here another one";
  const auto writes =
      detail::match_tensors(here, recoded ? recoded->file : file, other_rules, options, report, refused);
  if (!refused.empty()) throw bad_file("the saved state does not fit this optimizer:" + refused);

  for (const auto& w : writes) opt.write_state(*w.to, w.from);
  opt.set_steps(detail::steps_of(file.metadata.at("optimizer.steps")));
  report.note = file.note + (file.note.empty() || report.note.empty() ? "" : "; ") + report.note;
  return report;
}

template <class Optimizer>
void save_state(const Optimizer& opt, const std::string& path) {
  tensor_file file;
  store_state(opt, file);
  file.save(path);
}
template <class Optimizer>
restore_report load_state(Optimizer& opt, const std::string& path, const restore_options& options = {}) {
  return restore_state(opt, tensor_file::load(path), options);
}

}  // namespace MATOPT_NAMESPACE
