#include "sweep.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "compression.hpp"
#include "files.hpp"
#include "rules.hpp"
#include "trained_model.hpp"

namespace small_gpt {

using matopt::bad_value;
using nlohmann::json;

namespace {

// One setting in several values.
struct axis {
  std::string name;  // "schedule", or "set.momentum"
  std::vector<json> values;
};

std::string plain_text(const json& value) {
  return value.is_string()         ? value.get<std::string>()
         : value.is_number_float() ? matopt::detail::text(value.get<double>())
                                   : value.dump();
}

void refuse_unknown(const json& table, const std::string& where, const std::set<std::string>& known) {
  if (!table.is_object()) throw bad_value(where, table.dump(), "a table");
  for (const auto& [name, value] : table.items())
    if (!known.contains(name)) {
      std::string list;
      for (const auto& k : known) list += (list.empty() ? "" : ", ") + k;
      throw bad_value("a name in " + where, '"' + name + '"', "one of " + list);
    }
}

// Up to what a double tells apart from its neighbours; all of TOML's whole numbers if they are written as such.
std::vector<std::uint64_t> whole_numbers(const json& value, const std::string& name) {
  std::vector<std::uint64_t> out;
  const auto wrong = [&] { return bad_value(name, value.dump(), "a list of whole numbers >= 0, one or more"); };
  if (!value.is_array() || value.empty()) throw wrong();
  for (const json& v : value) {
    const bool whole = v.is_number_float() ? v.get<double>() >= 0 && v.get<double>() < 9007199254740992.0 &&
                                                 v.get<double>() == std::floor(v.get<double>())
                                           : v.is_number_integer() && v >= 0;
    if (!whole) throw wrong();
    if (const auto number = v.get<std::uint64_t>(); std::find(out.begin(), out.end(), number) == out.end())
      out.push_back(number);
  }
  return out;
}

// Each once.
std::vector<double> numbers(const json& value, const std::string& name) {
  const auto wrong = [&] { return bad_value(name, value.dump(), "a list of numbers, one or more"); };
  if (!value.is_array() || value.empty()) throw wrong();
  std::vector<double> out;
  for (const auto& v : value) {
    if (!v.is_number()) throw wrong();
    if (std::find(out.begin(), out.end(), v.get<double>()) == out.end()) out.push_back(v.get<double>());
  }
  return out;
}

// Settings as on the command line of train, "eval-interval" or "eval_interval"; a later table replaces what an earlier
// one says.
void take_settings(const json& table, const std::string& where, json& fixed, std::vector<axis>& axes) {
  const json known = to_checked_json(run_settings{});
  std::set<std::string> names;
  for (const auto& [name, value] : known.items())
    if (name != "rule" && name != "lr" && name != "seed") names.insert(name);
  json renamed = json::object();
  if (!table.is_object()) throw bad_value(where, table.dump(), "a table");
  for (const auto& [raw, value] : table.items()) {
    std::string name = raw;
    std::replace(name.begin(), name.end(), '-', '_');
    if (name == "arch") name = "architecture";
    if (renamed.contains(name)) throw bad_value(where + "." + name, "there twice, also as " + raw, "one of the two");
    renamed[name] = value;
  }
  refuse_unknown(renamed, where, names);
  const auto put = [&](const std::string& name, const json& value, auto set) {
    std::erase_if(axes, [&](const axis& a) { return a.name == name; });
    if (value.is_array()) {
      if (value.empty()) throw bad_value(where + "." + name, "[]", "one value or more");
      axis& own = axes.emplace_back(axis{name, {}});
      for (const json& v : value)
        if (std::find(own.values.begin(), own.values.end(), v) == own.values.end()) own.values.push_back(v);
    } else {
      set(value);
    }
  };
  // clang before 16 captures no structured bindings.
  for (const auto& entry : renamed.items()) {
    const std::string& name = entry.key();
    const json& value = entry.value();
    if (name == "set" || name == "set_other") {
      if (!value.is_object()) throw bad_value(where + "." + name, value.dump(), "a table of settings");
      for (const auto& own : value.items())
        put(name + "." + own.key(), own.value(), [&](const json& single) { fixed[name][own.key()] = single; });
    } else {
      put(name, value, [&](const json& single) { fixed[name] = single; });
    }
  }
}

// The JSON of run_settings from settings by name: {"set": {"momentum": 0.9}} becomes {"set": ["momentum=0.9"]}.
run_settings settings_from(const json& named, const std::string& where) {
  json all = to_checked_json(run_settings{});
  for (const auto& [name, value] : named.items()) {
    if (name != "set" && name != "set_other") {
      // A whole number will do where a number is asked for.
      all[name] = all.at(name).is_number_float() && value.is_number() ? json(value.get<double>()) : value;
      if (all.at(name).is_number_integer() && value.is_number_integer() && value >= 0)
        all[name] = all.at(name).is_number_unsigned() ? json(value.get<std::uint64_t>()) : value;
      continue;
    }
    for (const auto& [key, v] : value.items()) all[name].push_back(key + "=" + plain_text(v));
  }
  try {
    return from_checked_json(all);
  } catch (const matopt::error& e) {
    throw matopt::error(where + ": " + e.what());
  }
}

rate_search search_from(const json& table, double start) {
  refuse_unknown(table, "search", {"start", "step", "width", "low", "high"});
  rate_search s;
  s.start = start;
  const auto take = [&](const char* name, double& into, double above) {
    const auto at = table.find(name);
    if (at == table.end()) return;
    if (!at->is_number() || !(at->get<double>() > above))
      throw bad_value(std::string("search.") + name, at->dump(), "a number above " + matopt::detail::text(above));
    into = at->get<double>();
  };
  take("start", s.start, 0), take("step", s.step, 1), take("width", s.width, 1), take("low", s.low, 0);
  take("high", s.high, s.low);
  if (table.contains("start") && !(s.start >= s.low && s.start <= s.high))
    throw bad_value("search.start", matopt::detail::text(s.start),
                    "low to high, " + matopt::detail::text(s.low) + " to " + matopt::detail::text(s.high));
  if (!(s.start > 0)) throw bad_value("search.start", "missing", "a rate: the rule has none of its own");
  return s;
}

}  // namespace

sweep_plan sweep_plan::from_json(const json& file) {
  refuse_unknown(file, "the sweep", {"out", "seeds", "settings", "rules", "compress"});
  sweep_plan plan;
  if (const auto out = file.find("out"); out != file.end()) {
    if (!out->is_string()) throw bad_value("out", out->dump(), "the name of a folder");
    plan.out = out->get<std::string>();
  }
  plan.seeds = whole_numbers(file.value("seeds", json::array({1})), "seeds");
  if (const auto table = file.find("compress"); table != file.end()) {
    refuse_unknown(*table, "[compress]", {"keep", "bits", "entropy", "calibration", "runs"});
    analysis_options& how = plan.compression.emplace();
    if (table->contains("keep")) how.keep = numbers(table->at("keep"), "keep of [compress]");
    if (table->contains("bits")) {
      const json& bits = table->at("bits");
      how.bits.clear();
      for (const double b : numbers(bits, "bits of [compress]")) {
        if (!storage::legal(b)) throw bad_value("bits of [compress]", bits.dump(), storage::legal_bits);
        how.bits.push_back(static_cast<int>(b));
      }
    }
    const json entropy = table->value("entropy", json(false));
    if (!entropy.is_boolean()) throw bad_value("entropy of [compress]", entropy.dump(), "true or false");
    how.entropy = entropy.get<bool>();
    how.validate(" of [compress]");
    const json calibration = table->value("calibration", json(how.calibration));
    if (!calibration.is_number_integer() || calibration < 1 || calibration > 1000000)
      throw bad_value("calibration of [compress]", calibration.dump(), "a whole number, 1 to 1000000");
    how.calibration = calibration.get<int>();
    const json runs = table->value("runs", json("best"));
    if (runs != "best" && runs != "all") throw bad_value("runs of [compress]", runs.dump(), "\"best\" or \"all\"");
    plan.compress_all = runs == "all";
  }
  const json rules_of_file = file.value("rules", json::array());
  if (!rules_of_file.is_array() || rules_of_file.empty())
    throw bad_value("rules", rules_of_file.dump(), "one [[rules]] or more");

  constexpr double most_runs = 10000;
  double runs = 0;
  for (const json& rule : rules_of_file) {
    refuse_unknown(rule, "[[rules]]", {"name", "rates", "search", "settings", "set"});
    if (!rule.contains("name") || !rule.at("name").is_string())
      throw bad_value("name of [[rules]]", rule.value("name", json()).dump(), "the name of a rule");
    const auto name = rule.at("name").get<std::string>();
    json fixed = json::object();
    std::vector<axis> axes;
    take_settings(file.value("settings", json::object()), "[settings]", fixed, axes);
    take_settings(rule.value("settings", json::object()), "settings of " + name, fixed, axes);
    if (rule.contains("set")) take_settings({{"set", rule.at("set")}}, "[[rules]] " + name, fixed, axes);
    fixed["rule"] = name;
    rules().settings(name);  // an unknown rule is named now
    if (rule.contains("rates") && rule.contains("search"))
      throw bad_value("rates and search of " + name, "both", "one of the two");

    const std::vector<double> rates = rule.contains("rates") ? numbers(rule.at("rates"), "rates of " + name)
                                                             : std::vector<double>{default_rate(name)};
    auto count = static_cast<double>(plan.seeds.size()) * static_cast<double>(rates.size());
    for (const axis& a : axes) count *= static_cast<double>(a.values.size());
    if ((runs += count) > most_runs)
      throw bad_value("the number of runs up to rule " + name, matopt::detail::text(runs),
                      "at most " + matopt::detail::text(most_runs) +
                          ": rates x seeds x the values of each setting that has a list");

    std::vector<std::size_t> at(axes.size(), 0);
    for (bool more = true; more;) {
      json named = fixed;
      configuration c;
      c.label = name;
      for (std::size_t a = 0; a < axes.size(); ++a) {
        const json& value = axes[a].values[at[a]];
        const auto dot = axes[a].name.find('.');
        if (dot == std::string::npos)
          named[axes[a].name] = value;
        else
          named[axes[a].name.substr(0, dot)][axes[a].name.substr(dot + 1)] = value;
        c.label += " " + axes[a].name.substr(dot == std::string::npos ? 0 : dot + 1) + "=" + plain_text(value);
      }
      c.settings = settings_from(named, "[settings] or [[rules]] " + name);
      for (const auto& entry : named.items()) c.given.insert(entry.key());
      for (const auto& s : unlike_defaults(name, c.settings.set))
        if (std::none_of(axes.begin(), axes.end(), [&](const axis& a) { return a.name == "set." + s.name; }))
          c.label += " " + s.name + "=" + s.value;
      validate(c.settings);
      shape_of(c.settings, 2).validate();
      refuse_doubled("set of " + name, c.settings.set), refuse_doubled("set_other of " + name, c.settings.set_other);
      rules().rule(name, rule_settings(c.settings));  // the values, too
      rules().rule("adamw", other_settings(c.settings));
      if (rule.contains("search"))
        c.search = search_from(rule.at("search"), default_rate(name));
      else
        c.rates = rates;
      std::vector<double> all = c.rates;
      if (c.search) all = {c.search->start, c.search->low, c.search->high};
      for (const double lr : all) {
        if (!(lr > 0)) throw bad_value("rates of " + name, matopt::detail::text(lr), "numbers above 0");
        run_settings tried = c.settings;
        tried.lr = lr;
        validate(tried);
      }
      plan.configurations.push_back(std::move(c));
      more = false;
      for (std::size_t a = axes.size(); a-- > 0 && !more;) {
        more = ++at[a] < axes[a].values.size();
        if (!more) at[a] = 0;
      }
    }
  }
  return plan;
}

std::vector<run_settings> sweep_plan::needed(const std::vector<losses>& known) const {
  std::vector<run_settings> jobs;
  const auto add = [&](std::size_t i, double rate, std::uint64_t seed) {
    const auto at = known[i].find(rate);
    if (at != known[i].end() && at->second.contains(seed)) return;
    run_settings s = configurations[i].settings;
    s.lr = rate, s.seed = seed;
    jobs.push_back(std::move(s));
  };
  std::vector<std::optional<double>> best(configurations.size());
  for (std::size_t i = 0; i < configurations.size(); ++i) {
    const configuration& c = configurations[i];
    if (!c.search) {
      for (const double rate : c.rates) add(i, rate, seeds.front());
      continue;
    }
    std::map<double, double> by_rate;  // of the first seed
    for (const auto& [rate, runs] : known[i])
      if (const auto run = runs.find(seeds.front()); run != runs.end()) by_rate[rate] = run->second;
    if (const auto rate = c.search->next(by_rate))
      add(i, *rate, seeds.front());
    else
      best[i] = std::min_element(by_rate.begin(), by_rate.end(), [](const auto& a, const auto& b) {
                  return a.second < b.second;
                })->first;
  }
  // The first seed of everything comes before the others, so that what is there early can be compared.
  for (std::size_t s = 1; s < seeds.size(); ++s)
    for (std::size_t i = 0; i < configurations.size(); ++i) {
      for (const double rate : configurations[i].rates) add(i, rate, seeds[s]);
      if (best[i]) add(i, *best[i], seeds[s]);
    }
  return jobs;
}

std::vector<run_settings> sweep_plan::to_compress(const std::vector<losses>& known) const {
  std::vector<run_settings> chosen;
  std::vector<bool> lacks(configurations.size());
  for (const run_settings& missing : needed(known)) {
    auto is_own = is_run_of(missing);
    for (std::size_t i = 0; i < configurations.size(); ++i) lacks[i] = lacks[i] || is_own(configurations[i]);
  }
  for (std::size_t i = 0; i < configurations.size(); ++i) {
    run_settings s = configurations[i].settings;
    if (!compress_all && lacks[i]) continue;
    std::size_t most = 0;
    for (const auto& [rate, runs] : known[i]) most = std::max(most, runs.size());
    std::optional<double> best;
    double least = std::numeric_limits<double>::infinity();
    for (const auto& [rate, runs] : known[i]) {
      std::vector<double> found;
      for (const auto& [seed, loss] : runs) found.push_back(loss);
      std::sort(found.begin(), found.end());
      if (const double median = found[found.size() / 2]; runs.size() == most && median < least)
        least = median, best = rate;
    }
    for (const auto& [rate, runs] : known[i])
      for (const auto& [seed, loss] : runs)
        if (std::isfinite(loss) && (compress_all || rate == best)) {
          s.lr = rate, s.seed = seed;
          chosen.push_back(s);
        }
  }
  return chosen;
}

std::string sweep_plan::label_of(const run_settings& s) const {
  std::string label = s.rule;
  if (const auto c = std::find_if(configurations.begin(), configurations.end(), is_run_of(s));
      c != configurations.end())
    label = c->label;
  label += " lr=" + matopt::detail::text(s.lr) + " seed=" + std::to_string(s.seed);
  for (char& c : label)
    if (std::string_view("/\\ ").find(c) != std::string_view::npos) c = c == ' ' ? ',' : '_';
  // File systems take names of 255 bytes. A number that stands for the whole name tells one that was cut from others.
  constexpr std::size_t longest = 200, beginning = 120;
  if (label.size() <= longest) return label;
  const std::string ending = label.substr(label.rfind(",lr="));
  return label.substr(0, beginning) + "~" + digest_of(label).substr(8, 16) + ending;
}

std::string identity_of(const json& effective) {
  json j = effective;
  add_later_settings(j);
  for (const char* name : {"data", "data_hex", "checkpoint_interval", "checkpoints", "measure_interval"}) j.erase(name);
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace small_gpt
