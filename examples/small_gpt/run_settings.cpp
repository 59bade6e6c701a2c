#include "run_settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <matopt/core/limits.hpp>
#include <set>

#include "files.hpp"
#include "rules.hpp"
#include "token_shards.hpp"

namespace small_gpt {

using matopt::bad_value;
using nlohmann::json;

namespace {

template <class T>
void check(const char* name, T value, matopt::range legal) {
  if (legal.contains(static_cast<double>(value))) return;
  if constexpr (std::is_integral_v<T>)
    throw bad_value(name, std::to_string(value), matopt::detail::text(legal));
  else
    throw bad_value(name, matopt::detail::text(value), matopt::detail::text(legal));
}

// The model is in float: a rate that is 0 there does not do what was asked, and optimizers take none beyond
// largest_input.
void check_rate(const char* name, double value) {
  check(name, value, {.low = 0, .high = matopt::largest_input<float>});
  if (value > 0 && static_cast<float>(value) == 0)
    throw bad_value(name, matopt::detail::text(value), "0, or at least 1.5e-45, the least number of a float");
}

// A bound of what is computed in float: of QK-clip's logits, and of the gradient's norm.
void check_threshold(const char* name, double value) {
  check(name, value, {.low = 0, .high = matopt::largest_input<float>});
  if (value > 0 && static_cast<float>(value) < std::numeric_limits<float>::min())
    throw bad_value(name, matopt::detail::text(value), "0, or at least 1.2e-38, the least normal float");
}

template <class... Legal>
void check_name(const char* name, const std::string& value, const Legal&... legal) {
  if (((value != legal) && ...)) {
    std::string list;
    ((list += (list.empty() ? "" : ", ") + std::string(legal)), ...);
    throw bad_value(name, '"' + value + '"', "one of " + list);
  }
}

bool is_utf8(const std::string& text) {
  try {
    (void)json(text).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

json by_name(const std::vector<matopt::setting>& defaults, const std::vector<matopt::setting>& given) {
  json all = json::object();
  for (const auto* list : {&defaults, &given})
    for (const auto& s : *list) all[s.name] = s.value;
  return all;
}

}  // namespace

void validate(const run_settings& s) {
  check_name("--vocabulary", s.vocabulary, "character", "byte", "pairs", "shards");
  check("--vocabulary-size", s.vocabulary_size, {.low = 2, .high = 65536});
  if (!(s.train_fraction > 0 && s.train_fraction < 1))
    throw bad_value("--train-fraction", matopt::detail::text(s.train_fraction), "above 0 and below 1");
  check_name("--arch", s.architecture, "nanogpt", "modern");
  check_name("--schedule", s.schedule, "wsd", "cosine", "constant");
  const matopt::range positive{.low = 1}, not_negative{.low = 0};
  check("--batch", s.batch, positive);
  check("--iterations", s.iterations, positive);
  check("--shards", s.shards, {.low = 1, .high = 1024});
  check("--eval-interval", s.eval_interval, positive);
  check("--checkpoint-interval", s.checkpoint_interval, positive);
  check("--eval-windows", s.eval_windows, not_negative);
  check("--measure-interval", s.measure_interval, not_negative);
  check_name("--checkpoints", s.checkpoints, "last", "all", "thinned");
  const bool gpu = s.device.starts_with("cuda");
  if (s.device != "cpu" && s.device != "cuda" &&
      !(s.device.starts_with("cuda:") && s.device.size() > 5 &&
        s.device.find_first_not_of("0123456789", 5) == std::string::npos))
    throw bad_value("--device", '"' + s.device + '"', "cpu, cuda, or cuda:N with the number of a GPU");
  if (gpu)
    check_name("--precision", s.precision, "", "float", "bf16");
  else
    check_name("--precision", s.precision, "", "float");
  check("--micro-batch", s.micro_batch, not_negative);
  check_threshold("--qk-clip", s.qk_clip);
  if (s.qk_clip > 0 && s.architecture != "nanogpt")
    throw bad_value("--qk-clip", matopt::detail::text(s.qk_clip),
                    "0 unless --arch is nanogpt: the model " + s.architecture +
                        " normalises queries and keys, which bounds its logits by sqrt(width / heads), and the length "
                        "of the rows that QK-clip would scale has no effect");
  check("--warmup", s.warmup, {.low = -1});
  check_rate("--lr", s.lr);
  check_rate("--other-lr", s.other_lr);
  check_threshold("--clip", s.clip);
  check("--lr-floor", s.lr_floor, {.low = 0, .high = 1});
  check("--decay-fraction", s.decay_fraction, {.low = 0, .high = 1});
}

std::vector<std::string> without_effect(const run_settings& s, const std::set<std::string>& given) {
  const bool gpu = s.device != "cpu";
  std::vector<std::string> lines;
  const auto look = [&](const char* name, bool idle, const std::string& beside) {
    std::string option = name;
    std::replace(option.begin(), option.end(), '_', '-');
    if (idle && given.contains(name)) lines.push_back("--" + option + " has no effect with " + beside);
  };
  look("vocabulary_size", s.vocabulary == "character" || s.vocabulary == "byte", "--vocabulary " + s.vocabulary);
  look("decay_fraction", s.schedule != "wsd", "--schedule " + s.schedule);
  look("lr_floor", s.schedule == "constant", "--schedule constant");
  look("micro_batch", !gpu && s.micro_batch > 0, "--device cpu");
  look("train_fraction", token_shards::is_folder(s.data), "a folder of tokens, whose *val*.bin validate");
  look("shards", gpu, "--device " + s.device);
  return lines;
}

run_settings resolved(run_settings s) {
  if (s.precision.empty()) s.precision = s.device == "cpu" ? "float" : "bf16";
  if (s.warmup < 0) s.warmup = s.iterations / 50;
  if (s.lr <= 0) s.lr = default_rate(s.rule);
  if (s.lr <= 0) throw bad_value("--lr", "0", "a rate above 0: the rule " + s.rule + " has none of its own");
  if (s.other_lr <= 0) s.other_lr = s.rule == "adamw" ? s.lr : default_rate("adamw");
  return s;
}

std::vector<matopt::setting> rule_settings(const run_settings& s) {
  rules().settings(s.rule);  // an unknown rule is reported before its settings
  auto given = parse_settings(s.set);
  fit_rank_schedule(s.rule, given, s.iterations);
  return given;
}

std::vector<matopt::setting> other_settings(const run_settings& s) {
  auto given = parse_settings(s.set_other);
  given.insert(given.begin(), {"beta2", "0.95"});
  return given;
}

void refuse_doubled(const std::string& where, const std::vector<std::string>& set) {
  std::set<std::string> names;
  for (const matopt::setting& s : parse_settings(set))
    if (!names.emplace(matopt::setting_name(s.name)).second)
      throw bad_value(where, '"' + s.name + "\" twice", "each setting once");
}

json to_checked_json(const run_settings& s) {
  json j = s;
  if (!is_utf8(s.data)) {
    j.erase("data");
    j["data_hex"] = hex(s.data);
  }
  return j;
}

run_settings from_checked_json(const json& j) {
  const auto malformed = [](const std::string& why) { return matopt::bad_file("malformed settings: " + why); };
  if (!j.is_object()) throw malformed("no JSON object");
  json plain = j;
  if (const auto data = j.find("data_hex"); data != j.end()) {
    if (!data->is_string() || j.contains("data")) throw malformed("data_hex");
    plain.erase("data_hex");
    plain["data"] = unhex(data->get<std::string>());
  }
  add_later_settings(plain);
  const json known = run_settings{};
  const auto wrong = [&](const std::string& name, const json& found) {
    const json& value = known.at(name);
    return malformed('"' + name + "\" is " + found.dump(-1, ' ', false, json::error_handler_t::replace) + "; legal: " +
                     (value.is_number_unsigned()  ? "a whole number >= 0"
                      : value.is_number_integer() ? "a whole number, -2147483648 to 2147483647"
                      : value.is_number()         ? "a number"
                      : value.is_array()          ? "a list of texts \"key=value\""
                                                  : "a text"));
  };
  for (const auto& [name, value] : plain.items())
    if (!known.contains(name)) throw malformed('"' + name + "\" is unknown to this program");
  for (const auto& [name, value] : known.items()) {
    if (!plain.contains(name)) throw malformed('"' + name + "\" is missing");
    const json& found = plain.at(name);
    const bool fits = value.is_number_unsigned()  ? found.is_number_unsigned()
                      : value.is_number_integer() ? found.is_number_integer()
                      : value.is_number()         ? found.is_number()
                                                  : found.type() == value.type();
    if (!fits) throw wrong(name, found);
  }
  try {
    const auto s = plain.get<run_settings>();
    const json again = s;
    for (const auto& [name, value] : plain.items())
      if (again.at(name) != value) throw wrong(name, value);
    return s;
  } catch (const json::exception& e) {
    throw malformed(e.what());
  }
}

std::vector<matopt::setting> unlike_defaults(const std::string& rule, const std::vector<std::string>& set) {
  std::vector<matopt::setting> found = parse_settings(set);
  const auto names = rules().names();
  if (std::find(names.begin(), names.end(), rule) == names.end()) return found;
  const auto same = [](const std::string& a, const std::string& b) {
    if (a == b) return true;
    char *a_end = nullptr, *b_end = nullptr;
    const double x = std::strtod(a.c_str(), &a_end), y = std::strtod(b.c_str(), &b_end);
    return a_end != a.c_str() && b_end != b.c_str() && *a_end == 0 && *b_end == 0 && x == y;
  };
  std::erase_if(found, [&](const matopt::setting& s) {
    const auto& known = rules().settings(rule);
    return std::any_of(known.begin(), known.end(), [&](const matopt::setting& k) {
      return matopt::setting_name(k.name) == matopt::setting_name(s.name) && same(k.value, s.value);
    });
  });
  return found;
}

json effective_settings(const run_settings& asked) {
  const run_settings s = resolved(asked);
  json j = to_checked_json(s);
  j["set"] = by_name(rules().settings(s.rule), rule_settings(s));
  j["set_other"] = by_name(rules().settings("adamw"), other_settings(s));
  return j;
}

void add_later_settings(json& settings) {
  const json before{{"vocabulary_size", 4096}, {"measure_interval", 100}, {"checkpoints", "last"}, {"device", "cpu"},
                    {"precision", "float"},    {"micro_batch", 0},        {"qk_clip", 0.0}};
  for (const auto& [name, value] : before.items())
    if (!settings.contains(name)) settings[name] = value;
}

std::string differences(const json& file, const json& here, const std::string& prefix) {
  std::string text;
  std::set<std::string> names;
  for (const auto* side : {&file, &here})
    for (const auto& [name, value] : side->items()) names.insert(name);
  const auto shown = [](const json& side, const std::string& name) {
    return side.contains(name) ? side.at(name).dump(-1, ' ', false, json::error_handler_t::replace) : "(none)";
  };
  for (const auto& name : names) {
    if (prefix.empty() && (name == "data" || name == "data_hex")) continue;
    const bool both = file.contains(name) && here.contains(name);
    if (both && file.at(name) == here.at(name)) continue;
    if (both && file.at(name).is_object() && here.at(name).is_object())
      text += differences(file.at(name), here.at(name), prefix + name + ".");
    else
      text += "\n  " + prefix + name + ": file " + shown(file, name) + ", here " + shown(here, name);
  }
  return text;
}

}  // namespace small_gpt
