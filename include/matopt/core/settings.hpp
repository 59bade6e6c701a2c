// Settings: every hyperparameter of a policy by name, with its legal range. One list per policy serves validation,
// setting by text ("--set momentum=0.9"), logs and documentation.
//
// A policy that has hyperparameters lists them in a static member template:
//
//   template <class Self, class Visit>
//   static void settings(Self& self, Visit&& visit) {
//     visit("momentum", self.beta, range{.low = 0, .high = 1, .high_open = true});
//   }
//
// The name is the member's, if need be behind the name of what it belongs to: rank_hold is the member hold of the rank
// schedule. (momentum, which every method calls so, is the member beta.) A rule that has a name twice, in two of its
// policies, is refused by optimizers; policy/prefixed.hpp gives the settings of one of them other names.
//
// If the setting is the coefficient b of a running average v <- b v + (1 - b) x in state of the policy's that is
// l.matrix() (core/state_layout.hpp), the range says so: range{..., .average = 1}. State of 16 bits cannot follow slow
// averages, and is then refused by name.
//
// A value is double, index_t, bool, std::vector<double>, an enumeration E that has `constexpr auto enum_names(E)`
// beside it (an array of std::string_view, in the order of the enumerators from 0), or a type of its own kind V with
// `std::string text() const` and `static V parse(name, text)`, which throws bad_value.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "error.hpp"
#include "index.hpp"

namespace MATOPT_NAMESPACE {

struct range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;
  // If not 0: x to this power is the coefficient of a running average that is kept as a matrix of state, and so as far
  // from 1 as the element type of the state asks for (slowest_average in limits.hpp).
  int average = 0;

  bool contains(double x) const {
    return std::isfinite(x) && (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  }
};

namespace detail {

[[gnu::cold]] inline std::string text(double x) {
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x).ptr;
  return {buffer.data(), end};
}
inline std::string text(index_t x) { return std::to_string(x); }
inline std::string text(bool x) { return x ? "true" : "false"; }
[[gnu::cold]] inline std::string text(const std::vector<double>& xs) {
  std::string s;
  for (const double x : xs) s += (s.empty() ? "" : ",") + text(x);
  return s;
}
template <class V>
requires requires(const V v) { v.text(); }
std::string text(const V& v) { return v.text(); }
[[gnu::cold, gnu::noinline]] inline std::string name_at(std::size_t i, const std::string_view* names,
                                                        std::size_t count) {
  return i < count ? std::string(names[i]) : std::to_string(static_cast<index_t>(i));
}
template <class E>
requires std::is_enum_v<E> std::string text(E e) {
  static constexpr auto names = enum_names(E{});
  return name_at(static_cast<std::size_t>(e), names.data(), names.size());
}

[[gnu::cold]] inline std::string text(const range& r) {
  const bool below = std::isfinite(r.low), above = std::isfinite(r.high);
  if (!below && !above) return "any finite number";
  const std::string low = text(r.low), high = text(r.high);  // named: GCC 12 warns of "literal + temporary"
  if (!above) return (r.low_open ? "> " : ">= ") + low;
  if (!below) return (r.high_open ? "< " : "<= ") + high;
  return (r.low_open ? "(" : "[") + low + ", " + high + (r.high_open ? ")" : "]");
}

constexpr char in_lower_case(char c) { return 'A' <= c && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Without regard to case.
[[gnu::cold]] inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t corner = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substitute = corner + (in_lower_case(a[i]) != in_lower_case(b[j]));
      corner = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substitute});
    }
  }
  return row.back();
}

[[gnu::cold]] inline double number(std::string_view name, std::string_view s) {
  double x = 0;
  const auto [end, failure] = std::from_chars(s.data(), s.data() + s.size(), x);
  if (end != s.data() + s.size() || failure == std::errc::invalid_argument)
    throw bad_value(std::string(name), '"' + std::string(s) + '"', "a number");
  if (failure != std::errc())
    throw bad_value(std::string(name), std::string(s),
                    "a number that a double can hold: 0, or 5e-324 to 1.8e308 in size");
  return x;
}

inline void parse(std::string_view name, std::string_view s, double& out) { out = number(name, s); }
[[gnu::cold]] inline void parse(std::string_view name, std::string_view s, index_t& out) {
  const double x = number(name, s);
  if (x != std::floor(x) || std::abs(x) > 0x1p53)
    throw bad_value(std::string(name), std::string(s), "a whole number, of at most " + text(0x1p53) + " in size");
  out = static_cast<index_t>(x);
}
[[gnu::cold]] inline void parse(std::string_view name, std::string_view s, bool& out) {
  if (s != "true" && s != "false" && s != "1" && s != "0")
    throw bad_value(std::string(name), '"' + std::string(s) + '"', "true or false");
  out = s == "true" || s == "1";
}
[[gnu::cold]] inline void parse(std::string_view name, std::string_view s, std::vector<double>& out) {
  out.clear();
  for (bool more = !s.empty(); more;) {
    const std::size_t comma = s.find(',');
    out.push_back(number(name, s.substr(0, comma)));  // an entry that is empty is none
    more = comma != s.npos;
    if (more) s.remove_prefix(comma + 1);
  }
}
template <class V>
requires requires(std::string_view s) { V::parse(s, s); }
void parse(std::string_view name, std::string_view s, V& out) { out = V::parse(name, s); }
[[gnu::cold]] inline std::size_t place_among(std::string_view name, std::string_view s, const std::string_view* names,
                                             std::size_t count) {
  std::string legal;
  for (std::size_t i = 0; i < count; ++i) {
    if (names[i] == s) return i;
    legal += (i ? ", " : "") + std::string(names[i]);
  }
  throw bad_value(std::string(name), '"' + std::string(s) + '"', "one of " + legal);
}
template <class E>
requires std::is_enum_v<E>
void parse(std::string_view name, std::string_view s, E& out) {
  static constexpr auto names = enum_names(E{});
  out = static_cast<E>(place_among(name, s, names.data(), names.size()));
}

// A setting with its type forgotten: what is done with settings is compiled once, and not for every policy.
enum class field_kind { number, whole, list, other };
struct setting_field {
  std::string_view name;
  void* value;
  range legal;
  field_kind kind;
  std::string (*text_of)(const void* value);
  void (*parse_into)(std::string_view name, std::string_view text, void* value);
  void (*check_name)(std::string_view name, const void* value);  // that an enumerator has one

  std::string text() const { return text_of(value); }
  double& number() const { return *static_cast<double*>(value); }
  // use(x) for each number in it that has a range.
  template <class Use>
  void each_number(Use use) const {
    if (kind == field_kind::number) use(number());
    if (kind == field_kind::whole) use(static_cast<double>(*static_cast<const index_t*>(value)));
    if (kind == field_kind::list)
      for (const double x : *static_cast<const std::vector<double>*>(value)) use(x);
  }
};
template <class V>
inline constexpr field_kind kind_of = std::is_same_v<V, double>                ? field_kind::number
                                      : std::is_same_v<V, index_t>             ? field_kind::whole
                                      : std::is_same_v<V, std::vector<double>> ? field_kind::list
                                                                               : field_kind::other;

// The visitor of all lists of settings: hands each on as a setting_field.
class field_visitor {
 public:
  template <class See>
  explicit field_visitor(See& see)
      : context_(&see), see_([](void* context, const setting_field& f) { (*static_cast<See*>(context))(f); }) {}
  template <class V>
  void operator()(std::string_view name, V& value, const range& legal = {}) const {
    see_(context_, {name, &value, legal, kind_of<V>, [](const void* v) { return text(*static_cast<const V*>(v)); },
                    [](std::string_view n, std::string_view s, void* v) { parse(n, s, *static_cast<V*>(v)); },
                    []([[maybe_unused]] std::string_view n, [[maybe_unused]] const void* v) {
                      if constexpr (std::is_enum_v<V>) {
                        V named{};
                        parse(n, text(*static_cast<const V*>(v)), named);
                      }
                    }});
  }

 private:
  void* context_;
  void (*see_)(void*, const setting_field&);
};

template <class P>
concept has_settings = requires(P p, const field_visitor& visit) {
  P::settings(p, visit);
};

// The settings of one policy.
class setting_fields {
 public:
  // A policy that is only looked at is const all the same.
  template <class Policy>
  explicit setting_fields(const Policy& policy) : policy_(const_cast<Policy*>(&policy)) {
    if constexpr (has_settings<Policy>)
      walk_ = [](void* p, const field_visitor& visit) { Policy::settings(*static_cast<Policy*>(p), visit); };
  }
  template <class See>
  void each(See see) const {
    if (walk_) walk_(policy_, field_visitor(see));
  }

 private:
  void* policy_;
  void (*walk_)(void*, const field_visitor&) = nullptr;
};

}  // namespace detail

// The known name nearest to a misspelt one, for error texts.
[[gnu::cold]] inline std::string nearest_name(std::string_view wrong, const std::vector<std::string>& known) {
  const auto best = std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) {
    return detail::edit_distance(wrong, a) < detail::edit_distance(wrong, b);
  });
  return best == known.end() ? std::string() : *best;
}

namespace detail {
[[gnu::cold]] inline void check_range(const setting_field& f) {
  f.check_name(f.name, f.value);
  f.each_number([&](double x) {
    if (!f.legal.contains(x)) throw bad_value(std::string(f.name), text(x), text(f.legal));
  });
}
}  // namespace detail

// Throws bad_value for the first hyperparameter that is not finite or outside its range.
template <class Policy>
void validate_settings(const Policy& policy) {
  detail::setting_fields(policy).each(detail::check_range);
}

namespace detail {
// Names of settings in version 0.1 or in PyTorch, and the names that they have here.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 12> renamed_settings{
    {{"weight_decay", "decay"},  // PyTorch's and optax' name
     {"rank_hold_steps", "rank_hold"},
     {"rank_end_step", "rank_total"},
     {"norm_mode", "norm_order"},
     {"spectral_max", "spectral_most"},
     {"spectral_decay", "spectral_decay_strength"},
     {"sphere_retraction", "sphere_how"},
     {"row_normalized", "norm_root_mean_square"},
     {"ns_norm", "ns_bound"},
     {"decay_steps", "rate_decay"},
     {"clamp_c", "clamp"},
     {"cautious_decay_after", "cautious_after_decay"}}};
// Names of policies in version 0.1, and what stands in their place now.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 3> renamed_policies{
    {{"row_norm<", "weight_normalization<"},
     {"nuclear_scaled<svd_polar>", "nuclear_scaled<polar_factor>"},
     {"polar_first<svd_polar,", "polar_first<polar_factor,"}}};
}  // namespace detail

// What a setting with this name in version 0.1, or in PyTorch, is called now: the same name if it did not change.
inline std::string_view setting_name(std::string_view name) {
  for (const auto& [old, now] : detail::renamed_settings)
    if (name == old) return now;
  return name;
}

// The name of a rule in version 0.1 with the policies as they are called now.
[[gnu::cold]] inline std::string rule_name(std::string name) {
  for (const auto& [old, now] : detail::renamed_policies)
    for (std::size_t at = name.find(old); at != std::string::npos; at = name.find(old, at + now.size()))
      name.replace(at, old.size(), now);
  return name;
}

namespace detail {
[[gnu::cold]] inline void set_field(const setting_fields& fields, std::string_view key, std::string_view value) {
  std::vector<std::string> known;
  fields.each([&](const setting_field& f) { known.emplace_back(f.name); });
  if (std::find(known.begin(), known.end(), key) == known.end()) key = setting_name(key);
  const auto found = std::count(known.begin(), known.end(), key);
  if (found > 1)
    throw error("setting \"" + std::string(key) + "\" is ambiguous: " + std::to_string(found) +
                " policies of this rule have one of that name; set it in the policy that is meant");
  fields.each([&](const setting_field& f) {
    if (f.name == key) f.parse_into(f.name, value, f.value);
  });
  if (found == 0) {
    std::string names;
    for (const auto& k : known) names += (names.empty() ? "" : ", ") + k;
    throw error("unknown setting \"" + std::string(key) + "\"; nearest: \"" + nearest_name(key, known) +
                "\"; known: " + names);
  }
  fields.each(check_range);
}
}  // namespace detail

// Sets the hyperparameter called `key` from text. A key that is unknown (the error names the nearest known one) or that
// two settings have, and a value outside the range: an error, and nothing changes. Names of version 0.1 work
// as well, and so does weight_decay for decay.
template <class Policy>
[[gnu::cold]] void set_setting(Policy& policy, std::string_view key, std::string_view value) {
  Policy changed = policy;
  detail::set_field(detail::setting_fields(changed), key, value);
  policy = changed;
}

struct setting {
  std::string name, value;
};

namespace detail {
[[gnu::cold]] inline std::vector<setting> texts_of(const setting_fields& fields) {
  std::vector<setting> out;
  fields.each([&](const setting_field& f) { out.push_back({std::string(f.name), f.text()}); });
  return out;
}
}  // namespace detail

// Every hyperparameter with its value as text.
template <class Policy>
std::vector<setting> settings_of(const Policy& policy) {
  return detail::texts_of(detail::setting_fields(policy));
}

}  // namespace MATOPT_NAMESPACE
