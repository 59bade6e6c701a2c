// The settings of one case, read by name; a name that nothing read is an error that says which known one is nearest.
#pragma once
#include <cmath>
#include <matopt/core/settings.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace replay {

using json = nlohmann::json;
using matopt::index_t;

class settings_reader {
 public:
  settings_reader(std::string rule, const json& settings) : rule_(std::move(rule)), settings_(settings) {
    if (!settings.is_object())
      throw matopt::bad_value("settings of rule \"" + rule_ + '"', settings.type_name(), "an object");
  }

  bool has(const char* name) { return read(name) && !settings_.at(name).is_null(); }
  double number(const char* name, double otherwise) {
    return has(name) ? value<double>(name, &json::is_number, "a number") : otherwise;
  }
  index_t whole(const char* name, index_t otherwise, index_t low, index_t high) {
    const double x = number(name, static_cast<double>(otherwise));
    if (!(x >= static_cast<double>(low) && x <= static_cast<double>(high)) || x != std::floor(x))
      throw matopt::bad_value(named(name), matopt::detail::text(x),
                              "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return static_cast<index_t>(x);
  }
  bool flag(const char* name, bool otherwise) {
    return has(name) ? value<bool>(name, &json::is_boolean, "true or false") : otherwise;
  }
  std::string word(const char* name, const std::string& otherwise, const std::vector<std::string>& legal) {
    const std::string w = has(name) ? value<std::string>(name, &json::is_string, "a string") : otherwise;
    std::string list;
    for (const auto& known : legal) {
      if (w == known) return w;
      list += (list.empty() ? "" : ", ") + known;
    }
    throw matopt::bad_value(named(name), '"' + w + '"',
                            "one of " + list + "; nearest: " + matopt::nearest_name(w, legal));
  }
  std::vector<double> numbers(const char* name, const std::vector<double>& otherwise) {
    if (!has(name)) return otherwise;
    const json& list = settings_.at(name);
    for (const auto& x : list)
      if (!list.is_array() || !x.is_number()) throw matopt::bad_value(named(name), list.dump(), "a list of numbers");
    return list.get<std::vector<double>>();
  }
  const json& raw(const char* name) { return read(name), settings_.at(name); }
  // Says nothing about how a matrix steps.
  void ignore(const char* name) { read(name); }

  // If `theirs` is set, the rule's setting `ours` takes its value.
  template <class Rule>
  void put(Rule& rule, const char* theirs, const char* ours) {
    if (!has(theirs)) return;
    const json& x = settings_.at(theirs);
    matopt::set_setting(rule, ours, x.is_string() ? x.get<std::string>() : x.is_array() ? joined(x) : x.dump());
  }

  // After everything was read.
  void finish() const {
    for (const auto& [name, unused] : settings_.items()) {
      bool found = false;
      for (const auto& known : known_) found |= known == name;
      if (!found)
        throw matopt::error("unknown setting \"" + name + "\" of rule \"" + rule_ + "\"; nearest: \"" +
                            matopt::nearest_name(name, known_) + '"');
    }
  }

 private:
  bool read(const char* name) {
    known_.emplace_back(name);
    return settings_.contains(name);
  }
  std::string named(const char* name) const { return std::string(name) + " of rule \"" + rule_ + '"'; }
  template <class V>
  V value(const char* name, bool (json::*right)() const noexcept, const char* legal) const {
    const json& x = settings_.at(name);
    if (!(x.*right)()) throw matopt::bad_value(named(name), x.dump(), legal);
    return x.get<V>();
  }
  static std::string joined(const json& list) {
    std::string text;
    for (const auto& x : list) text += (text.empty() ? "" : ",") + x.dump();
    return text;
  }

  std::string rule_;
  const json& settings_;
  std::vector<std::string> known_{};
};

}  // namespace replay
