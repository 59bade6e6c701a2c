#include "summary.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <set>

namespace small_gpt {

using nlohmann::json;

namespace {

constexpr double never = std::numeric_limits<double>::infinity();

// The settings in effect, one level deep: "set.momentum".
std::map<std::string, json> flat(const json& effective) {
  std::map<std::string, json> out;
  for (const auto& [name, value] : effective.items()) {
    if (value.is_object())
      for (const auto& [key, v] : value.items()) out[name + "." + key] = v;
    else
      out[name] = value;
  }
  return out;
}

// Those that tell configurations apart: not the rate, the seed, or what changes no result.
std::map<std::string, json> distinguishing(const run_record& r) {
  json j = r.effective;
  add_later_settings(j);
  auto all = flat(j);
  for (const char* name :
       {"lr", "seed", "data", "data_hex", "checkpoint_interval", "checkpoints", "measure_interval", "eval_interval"})
    all.erase(name);
  return all;
}

// The same for each run. Where the other rate is the rate itself in all runs that differ in nothing else, as in those of
// adamw, whose rate is that of everything, it is no setting of its own.
std::vector<std::map<std::string, json>> distinguishing(const std::vector<summary::run>& runs) {
  std::vector<std::map<std::string, json>> all, others;
  for (const auto& r : runs) {
    others.push_back(all.emplace_back(distinguishing(r.record)));
    others.back().erase("other_lr");
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    bool follows = true;
    for (std::size_t k = 0; k < runs.size(); ++k)
      if (others[k] == others[i])
        follows = follows && runs[k].record.effective.value("other_lr", json()) == runs[k].record.effective.at("lr");
    if (follows) all[i] = others[i];
  }
  return all;
}

// What a run learned from, for a person: the name of the file.
std::string name_of_text(const run_record& r) { return std::filesystem::path(r.settings.data).filename().string(); }

// Tells one text from another. An old log has the name only: it means the text that other runs have under that name.
std::string text_of(const run_record& r, const std::vector<summary::run>& all) {
  if (const std::string digest = r.header.value("text", ""); !digest.empty()) return digest;
  std::set<std::string> digests;
  for (const auto& other : all)
    if (name_of_text(other.record) == name_of_text(r)) digests.insert(other.record.header.value("text", ""));
  digests.erase("");
  return digests.size() == 1 ? *digests.begin() : name_of_text(r);
}

// The same run in two folders: one is a copy of the other, or was resumed from its end.
bool same_run(const run_record& a, const run_record& b) {
  const auto end = [](const run_record& r) {
    return r.validations.empty() ? std::pair(-1, 0.0) : std::pair(r.validations.back().step, r.validations.back().loss);
  };
  return a.settings.lr == b.settings.lr && a.settings.seed == b.settings.seed && a.diverged_at == b.diverged_at &&
         end(a) == end(b) && a.header.value("text", "") == b.header.value("text", "") &&
         distinguishing(a) == distinguishing(b);
}

// A copy is no other seed: of each run one folder stays, that with the most of its log.
void drop_copies(std::vector<summary::run>& runs) {
  std::vector<summary::run> kept;
  for (summary::run& r : runs) {
    const auto twin =
        std::find_if(kept.begin(), kept.end(), [&](const auto& k) { return same_run(k.record, r.record); });
    if (twin == kept.end()) {
      kept.push_back(std::move(r));
      continue;
    }
    if (twin->record.steps.size() < r.record.steps.size()) std::swap(*twin, r);
    std::fprintf(stderr, "report: \"%s\" is the same run as \"%s\", and is left out\n", r.record.folder.c_str(),
                 twin->record.folder.c_str());
  }
  runs = std::move(kept);
}

// Two-sided quantile of Student's distribution at 95 %.
double student(int degrees) {
  constexpr double table[] = {12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23};
  if (degrees <= 10) return table[std::max(1, degrees) - 1];
  return degrees <= 20 ? 2.13 : degrees <= 40 ? 2.04 : 1.98;
}

}  // namespace

double validation_at(const run_record& r, double at, bool seconds) {
  if (r.validations.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto x = [&](const auto& v) { return seconds ? v.seconds : v.step * r.tokens_per_step(); };
  const auto* before = &r.validations.front();
  for (const auto& v : r.validations) {
    if (x(v) >= at) {
      if (x(v) <= x(*before)) return v.loss;
      const double part = (at - x(*before)) / (x(v) - x(*before));
      return before->loss + std::max(0.0, part) * (v.loss - before->loss);
    }
    before = &v;
  }
  return r.validations.back().loss;
}

double summary::run::tokens() const { return record.last_step().step * record.tokens_per_step(); }
double summary::run::seconds() const { return record.last_step().seconds; }

summary::spread summary::spread::of(std::vector<double> values) {
  spread s;
  s.count = values.size();
  if (values.empty()) return {never, never, never, 0};
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  s.median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  s.least = values.front(), s.greatest = values.back();
  return s;
}

summary summary::of(std::vector<run> given) {
  summary s;
  for (run& r : given) {
    if (r.record.finished() && (r.diverged() || !r.record.validations.empty()))
      s.runs.push_back(std::move(r));
    else
      std::fprintf(stderr, "report: \"%s\" has not ended, and is left out\n", r.record.folder.c_str());
  }
  if (s.runs.empty()) throw matopt::error("report: there is no run that has ended");

  drop_copies(s.runs);

  // Texts, and the names that they have on the page; vocabularies, as far as the logs have them.
  std::map<std::string, std::string> texts;
  std::set<std::string> names, vocabularies;
  for (const run& r : s.runs) {
    texts[text_of(r.record, s.runs)] = name_of_text(r.record);
    if (r.record.header.contains("vocabulary"))
      vocabularies.insert(r.record.settings.vocabulary + ' ' + r.record.header.at("vocabulary").dump());
  }
  for (const auto& [text, name] : texts) names.insert(name);
  for (auto& [text, name] : texts) {
    if (names.size() < texts.size() && name != text) name += " (" + text + ")";
    s.texts.push_back(name);
  }
  if (texts.size() > 1 || vocabularies.size() > 1)
    s.in_bits = std::all_of(s.runs.begin(), s.runs.end(), [](const run& r) {
      return r.record.validations.empty() || std::isfinite(r.record.bits_per_nat());
    });
  s.comparable = s.in_bits || vocabularies.size() < 2;

  // Configurations, in the order of their first runs.
  std::vector<std::map<std::string, json>> settings;
  std::vector<std::map<double, rate>> rates;
  const auto settings_of_runs = distinguishing(s.runs);
  for (std::size_t i = 0; i < s.runs.size(); ++i) {
    auto own = settings_of_runs[i];
    if (texts.size() > 1) own["text"] = texts.at(text_of(s.runs[i].record, s.runs));
    auto at = static_cast<std::size_t>(std::find(settings.begin(), settings.end(), own) - settings.begin());
    if (at == settings.size()) settings.push_back(own), rates.emplace_back();
    const double lr = s.runs[i].record.settings.lr;
    auto& place = rates[at][lr];
    place.lr = lr, place.runs.push_back(i);
    place.diverged += s.runs[i].diverged();
  }

  // What all share; and the labels: the rule, those of its settings that are not its defaults, and what tells it from
  // others of the same rule.
  std::map<std::string, std::set<std::string>> values;
  for (const auto& own : settings)
    for (const auto& [name, value] : own) values[name].insert(value.dump());
  s.common = json::object();
  for (const auto& [name, value] : settings.front())
    if (values[name].size() == 1 &&
        std::all_of(settings.begin(), settings.end(), [&, &n = name](const auto& own) { return own.contains(n); }))
      s.common[name] = value;
  for (std::size_t c = 0; c < settings.size(); ++c) {
    configuration own;
    std::set<std::string> unusual;
    const run_settings& asked = s.runs[rates[c].begin()->second.runs.front()].record.settings;
    for (const auto& given : unlike_defaults(asked.rule, asked.set)) unusual.insert("set." + given.name);
    own.label = settings[c].at("rule").get<std::string>();
    for (const auto& [name, value] : settings[c]) {
      bool differs = unusual.contains(name);
      for (const auto& other : settings)
        differs = differs ||
                  (other.at("rule") == settings[c].at("rule") && (!other.contains(name) || other.at(name) != value));
      if (differs)
        own.label += " " + (name.starts_with("set.") ? name.substr(4) : name) + "=" +
                     (value.is_string() ? value.get<std::string>() : value.dump());
    }
    for (auto& [lr, r] : rates[c]) own.rates.push_back(std::move(r));
    s.configurations.push_back(std::move(own));
  }

  // The tokens that every run which did not diverge has seen.
  s.tokens = never;
  for (const run& r : s.runs)
    if (!r.diverged()) s.tokens = std::min(s.tokens, r.tokens());
  double squares = 0;
  for (configuration& c : s.configurations) {
    for (rate& r : c.rates) {
      std::vector<double> losses;
      for (const std::size_t i : r.runs)
        if (!s.runs[i].diverged()) losses.push_back(s.loss_at(s.runs[i].record, s.tokens, false));
      if (losses.size() > 1) {
        double mean = 0;
        for (const double x : losses) mean += x / static_cast<double>(losses.size());
        for (const double x : losses) squares += (x - mean) * (x - mean);
        s.degrees_of_freedom += static_cast<int>(losses.size()) - 1;
      }
      r.loss = 2 * r.diverged >= r.runs.size() ? spread{never, never, never, 0} : spread::of(losses);
    }
    // More seeds are better evidence: the best rate is looked for among those with most.
    std::size_t most = 0;
    for (const rate& r : c.rates) most = std::max(most, r.loss.count);
    double least = never;
    for (std::size_t i = 0; i < c.rates.size(); ++i)
      if (c.rates[i].loss.count == most && c.rates[i].loss.median < least) least = c.rates[i].loss.median, c.best = i;
    c.at_edge = c.rates.size() > 1 && (c.best == 0 || c.best + 1 == c.rates.size());
    const rate& best = c.rates[c.best];
    c.example = best.runs.front();
    double nearest = never;
    for (const std::size_t i : best.runs)
      if (const double away = std::abs(s.loss_at(s.runs[i].record, s.tokens, false) - best.loss.median);
          !s.runs[i].diverged() && away < nearest)
        nearest = away, c.example = i;
    c.bits_per_byte = best.loss.median * (s.in_bits ? 1 : s.runs[c.example].record.bits_per_nat());
  }
  if (s.degrees_of_freedom > 0) s.deviation = std::sqrt(squares / s.degrees_of_freedom);

  // Equal time: that of the fastest best run.
  s.seconds = never;
  for (const configuration& c : s.configurations)
    if (std::isfinite(c.rates[c.best].loss.median)) s.seconds = std::min(s.seconds, s.runs[c.example].seconds());
  if (!std::isfinite(s.seconds)) s.seconds = std::numeric_limits<double>::quiet_NaN();
  for (configuration& c : s.configurations) {
    std::vector<double> losses;
    for (const std::size_t i : c.rates[c.best].runs)
      if (!s.runs[i].diverged() && std::isfinite(s.runs[i].seconds() + s.seconds))
        losses.push_back(s.loss_at(s.runs[i].record, s.seconds, true));
    c.at_equal_time = spread::of(losses);
    if (losses.empty()) c.at_equal_time.median = std::numeric_limits<double>::quiet_NaN();
  }

  std::stable_sort(s.configurations.begin(), s.configurations.end(), [](const auto& a, const auto& b) {
    return a.rates[a.best].loss.median < b.rates[b.best].loss.median;
  });
  const rate& first = s.configurations.front().rates[s.configurations.front().best];
  for (configuration& c : s.configurations) {
    const rate& r = c.rates[c.best];
    char text[96];
    if (!std::isfinite(r.loss.median)) {
      c.verdict = "diverged at every rate";
    } else if (&c == &s.configurations.front()) {
      c.verdict = "best";
    } else if (!s.deviation) {
      std::snprintf(text, sizeof text, "+%.4f, noise unknown", r.loss.median - first.loss.median);
      c.verdict = text;
    } else {
      const double behind = r.loss.median - first.loss.median;
      const double noise =
          student(s.degrees_of_freedom) * *s.deviation *
          std::sqrt(1.0 / static_cast<double>(r.loss.count) + 1.0 / static_cast<double>(first.loss.count));
      std::snprintf(text, sizeof text, behind > noise ? "+%.4f" : "+%.4f, within noise (%.4f)", behind, noise);
      c.verdict = text;
    }
  }
  return s;
}

}  // namespace small_gpt
