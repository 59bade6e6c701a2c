#include "run_record.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <matopt/core/settings.hpp>
#include <sstream>

#include "files.hpp"
#include "rules.hpp"

namespace small_gpt {

using nlohmann::json;

namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

double number(const json& line, const char* key) {
  const auto at = line.find(key);
  return at != line.end() && at->is_number() ? at->get<double>() : unknown;
}

// Whether the matrices of a measurement have what the program reads of them.
bool well_formed(const json& matrices) {
  const auto numbers = [](const json& m, const char* key, std::size_t count) {
    const auto at = m.find(key);
    return at == m.end() || (at->is_array() && at->size() == count &&
                             std::all_of(at->begin(), at->end(), [](const json& x) { return x.is_number(); }));
  };
  const auto text = [](const json& m, const char* key) { return !m.contains(key) || m.at(key).is_string(); };
  return matrices.is_array() && std::all_of(matrices.begin(), matrices.end(), [&](const json& m) {
           return m.is_object() && text(m, "name") && text(m, "kind") && numbers(m, "row_norms", 3) &&
                  numbers(m, "singular_values", 11);
         });
}

// What is wrong with the line that describes the run; empty if nothing is.
std::string fault_of_header(const json& header) {
  for (const char* key : {"version", "rules", "processor", "command", "text", "started"})
    if (header.contains(key) && !header.at(key).is_string()) return std::string(key) + " is " + header.at(key).dump();
  for (const char* key : {"threads", "parameters", "vocabulary"})
    if (header.contains(key) && !header.at(key).is_number()) return std::string(key) + " is " + header.at(key).dump();
  return {};
}

// Whether settings in effect are what a program of this kind writes: those that this one knows have its types.
bool well_formed_effective(const json& effective, const json& settings) {
  if (!effective.is_object() || !effective.contains("rule") || !effective.contains("lr")) return false;
  for (const auto& [name, known] : settings.items()) {
    const auto at = effective.find(name);
    if (at == effective.end()) continue;
    const bool fits = known.is_array()    ? at->is_object()
                      : known.is_number() ? at->is_number()
                                          : at->type() == known.type();
    if (!fits) return false;
  }
  return true;
}

template <class Lines>
void drop_after(Lines& lines, int step) {
  std::erase_if(lines, [&](const auto& l) { return l.step > step; });
}

std::string cell(double x) { return std::isnan(x) ? std::string() : matopt::detail::text(x); }

std::string csv_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

}  // namespace

run_record run_record::read(const std::string& folder) {
  const std::string path = folder + "/log.jsonl";
  std::istringstream text(read_file(path));
  const auto fail = [&](const std::string& why) { return matopt::bad_file("\"" + path + "\": " + why); };
  run_record r;
  r.folder = folder;
  int first = 0;      // the step where the current process began
  double before = 0;  // seconds of the processes before
  int number_of_line = 0;
  for (std::string raw; std::getline(text, raw);) try {
      ++number_of_line;
      const json line = json::parse(raw, nullptr, false);
      if (!line.is_object()) continue;  // cut off when its process was killed
      if (line.contains("settings")) {
        if (const std::string fault = fault_of_header(line); !fault.empty()) throw fail(fault);
        r.header = line;
        try {
          r.settings = resolved(from_checked_json(line.at("settings")));
          validate(r.settings), parse_settings(r.settings.set), parse_settings(r.settings.set_other);
        } catch (const matopt::error& e) {
          throw fail(e.what());
        }
        continue;
      }
      const json none, &where = line.contains("step") ? line.at("step") : none;
      if (!where.is_number_integer() || where < 0 || where > std::numeric_limits<int>::max()) continue;
      const int step = where.get<int>();
      if (line.contains("resumed")) {
        drop_after(r.steps, step), drop_after(r.validations, step), drop_after(r.measurements, step);
        std::erase_if(r.skipped, [&](const auto& s) { return s.first > step; });
        r.diverged.clear(), r.diverged_at = -1, r.done = false;
        first = step, before = r.steps.empty() ? 0 : r.steps.back().seconds;
      } else if (line.contains("loss")) {
        step_line s{step,
                    number(line, "loss"),
                    number(line, "smoothed"),
                    number(line, "lr"),
                    number(line, "other_lr"),
                    number(line, "gradient_norm"),
                    number(line, "seconds"),
                    number(line, "elapsed"),
                    number(line, "tokens_per_second"),
                    number(line, "optimizer_share"),
                    number(line, "qk_max"),
                    number(line, "qk_clipped")};
        if (std::isnan(s.seconds)) s.seconds = before + (step - first) * r.tokens_per_step() / s.tokens_per_second;
        r.steps.push_back(s);
      } else if (line.contains("validation")) {
        if (const double loss = number(line, "validation"); std::isfinite(loss))
          r.validations.push_back(
              {step, loss, number(line, "bits_per_byte"), r.steps.empty() ? unknown : r.steps.back().seconds});
      } else if (line.contains("measurements")) {
        if (!well_formed(line.at("measurements")))
          throw fail("line " + std::to_string(number_of_line) + ": measurements");
        r.measurements.push_back({step, line.at("measurements")});
      } else if (line.contains("skipped")) {
        r.skipped.emplace_back(step, line.at("skipped").get<std::vector<std::string>>());
      } else if (line.contains("done")) {
        r.done = true;
      } else if (line.contains("diverged")) {
        r.diverged_at = step, r.diverged = line.at("diverged").get<std::string>();
      }
    } catch (const json::exception& e) {
      throw fail("line " + std::to_string(number_of_line) + ": " + e.what());
    }
  if (r.header.is_null()) throw fail("it has no line with the settings of a run");
  if (!r.header.contains("version"))  // of 0.1, which has no line for it
    r.done = !r.validations.empty() && r.validations.back().step == r.settings.iterations;
  r.done = r.done && !r.validations.empty();
  r.effective = r.header.value("effective", json());
  if (!well_formed_effective(r.effective, json(r.settings))) try {
      r.effective = effective_settings(r.settings);
    } catch (const matopt::error&) {  // a rule that this program does not have
      r.effective = to_checked_json(r.settings);
    }
  return r;
}

run_record::step_line run_record::last_step() const {
  if (!steps.empty()) return steps.back();
  step_line last;
  if (!validations.empty()) last.step = validations.back().step;
  return last;
}

double run_record::bits_per_nat() const {
  for (const validation_line& v : validations)
    if (v.loss > 0) return v.bits_per_byte / v.loss;
  return unknown;
}

void write_csv(const run_record& r) {
  std::map<int, const run_record::validation_line*> validated;
  for (const auto& v : r.validations) validated[v.step] = &v;
  std::string steps =
      "step,tokens,loss,smoothed,lr,other_lr,gradient_norm,seconds,elapsed,tokens_per_second,optimizer_share,"
      "validation,bits_per_byte,qk_max,qk_clipped\n";
  for (const auto& s : r.steps) {
    steps += std::to_string(s.step);
    for (const double x : {s.step * r.tokens_per_step(), s.loss, s.smoothed, s.lr, s.other_lr, s.gradient_norm,
                           s.seconds, s.elapsed, s.tokens_per_second, s.optimizer_share})
      steps += ',' + cell(x);
    const auto v = validated.find(s.step);
    steps += v == validated.end() ? ",," : ',' + cell(v->second->loss) + ',' + cell(v->second->bits_per_byte);
    steps += ',' + cell(s.qk_max) + ',' + cell(s.qk_clipped) + '\n';
  }
  write_file(r.folder + "/steps.csv", steps);

  std::string matrices =
      "step,name,kind,spectral_norm,stable_rank,least_row,mean_row,greatest_row,coherence,weight_norm,"
      "update_to_weight,gradient_norm,cosine,rate_shape,rate\n";
  for (const auto& m : r.measurements)
    for (const auto& w : m.matrices) {
      matrices += std::to_string(m.step) + ',' + csv_text(w.value("name", "")) + ',' + csv_text(w.value("kind", ""));
      for (const char* key : {"spectral_norm", "stable_rank"}) matrices += ',' + cell(number(w, key));
      const auto rows = w.find("row_norms");
      for (std::size_t i = 0; i < 3; ++i) matrices += ',' + (rows == w.end() ? "" : cell(rows->at(i).get<double>()));
      for (const char* key :
           {"coherence", "weight_norm", "update_to_weight", "gradient_norm", "cosine", "rate_shape", "rate"})
        matrices += ',' + cell(number(w, key));
      matrices += '\n';
    }
  if (!r.measurements.empty()) write_file(r.folder + "/measurements.csv", matrices);
}

}  // namespace small_gpt
