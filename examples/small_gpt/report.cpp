#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <set>
#include <sstream>

#include "files.hpp"
#include "plot.hpp"
#include "size_curves.hpp"
#include "text_format.hpp"

namespace small_gpt {

using nlohmann::json;
namespace fs = std::filesystem;

std::vector<std::string> run_folders(const std::vector<std::string>& paths) {
  std::vector<std::string> found;
  std::set<fs::path> known;  // a folder may be named in several ways
  for (const std::string& path : paths) {
    std::error_code failure;
    bool any = false;
    const auto take = [&](const fs::path& folder) {
      if (!fs::is_regular_file(folder / "log.jsonl", failure)) return;
      any = true;
      const fs::path real = fs::canonical(folder, failure);
      if (failure || known.insert(real).second) found.push_back(folder.string());
    };
    take(path);
    for (fs::recursive_directory_iterator at(path, failure), end; !failure && at != end; at.increment(failure))
      if (at->is_directory(failure)) take(at->path());
    if (!any) throw matopt::bad_file("\"" + path + "\" holds no run: there is no log.jsonl in or below it");
  }
  std::sort(found.begin(), found.end());
  return found;
}

namespace {

double mean_of(const json& analysis, const char* key) {
  double sum = 0;
  const auto at = analysis.find("matrices");
  if (at == analysis.end() || at->empty()) return std::nan("");
  for (const auto& m : *at) sum += m.at(key).get<double>();
  return sum / static_cast<double>(at->size());
}

// Within a cell of a table in Markdown.
std::string in_cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

std::string loss_text(const summary::spread& s) {
  if (!std::isfinite(s.median)) return "diverged";
  return fixed(s.median, 4) + (s.count > 1 ? " (" + fixed(s.least, 4) + " to " + fixed(s.greatest, 4) + ")" : "");
}

// Loss and size of the file of each compressed model, if some have fewer than 32 bits an element; else empty.
std::string table_of_bits(const summary& s) {
  const std::vector<int> all_bits = stored_bits(s);
  if (all_bits.empty() || all_bits == std::vector{32}) return {};
  std::set<double, std::greater<>> fractions;
  for (const auto& c : s.configurations)
    if (const json& a = s.runs[c.example].analysis; a.is_object())
      for (const json& e : a.value("compressed", json::array())) fractions.insert(e.at("keep").get<double>());
  std::ostringstream out;
  out << "\n| rule | bits | method |";
  for (const double keep : fractions) out << " keep " << matopt::detail::text(keep) << " |";
  out << "\n|---|---|---|";
  for (std::size_t i = 0; i < fractions.size(); ++i) out << "---|";
  out << '\n';
  for (const auto& c : s.configurations)
    for (const int bits : all_bits)
      for (const char* method : {"plain", "asvd", "whitened"}) {
        std::string cells;
        bool any = false;
        for (const double keep : fractions) {
          const json e = entry_of(s.runs[c.example].analysis, keep, bits);
          const double loss = s.in_unit(s.runs[c.example].record, loss_in(e, method));
          any = any || !std::isnan(loss);
          cells += std::isnan(loss) ? "  |" : " " + fixed(loss, 3) + " (" + size_text(bytes_of(e, method)) + ") |";
        }
        if (any) out << "| " << in_cell(c.label) << " | " << bits << " | " << method << " |" << cells << '\n';
      }
  return out.str();
}

}  // namespace

std::string table_of(const summary& s) {
  std::ostringstream out;
  std::vector<double> fractions;  // of the compressed models in 32 bits
  for (const auto& c : s.configurations)
    if (const json& a = s.runs[c.example].analysis; a.is_object() && a.contains("compressed")) {
      fractions.clear();
      for (const json& e : a.at("compressed"))
        if (bits_of(e) == 32) fractions.push_back(e.at("keep").get<double>());
    }
  out << "| rule | lr | seeds | validation, " << (s.in_bits ? "bits per byte" : "nats")
      << " | | bits per byte | at equal time | stable rank | spectral norm | nu | rate |";
  for (const char* method : {"plain", "whitened"})
    for (const double keep : fractions) out << ' ' << method << ' ' << fixed(keep, 1) << " |";
  out << " tokens/s | optimizer time |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|";
  for (std::size_t i = 0; i < 2 * fractions.size(); ++i) out << "---|";
  out << '\n';
  for (const auto& c : s.configurations) {
    const auto& best = c.rates[c.best];
    const auto& r = s.runs[c.example];
    out << "| " << in_cell(c.label) << " | " << matopt::detail::text(best.lr) << " | ";
    if (!std::isfinite(best.loss.median)) {
      out << "diverged at step " << r.record.diverged_at << " |\n";
      continue;
    }
    out << best.loss.count << " | " << loss_text(best.loss) << " | " << c.verdict
        << (c.at_edge ? "; rate at the edge" : "") << " | " << fixed(c.bits_per_byte, 4) << " | "
        << fixed(c.at_equal_time.median, 4) << " | " << fixed(mean_of(r.analysis, "stable_rank"), 1) << " | "
        << fixed(mean_of(r.analysis, "spectral_norm"), 2) << " | " << fixed(rate_in(r.analysis, "shape"), 2) << " | "
        << fixed(rate_in(r.analysis, "rate"), 4) << " |";
    for (const char* method : {"plain", "whitened"})
      for (const double keep : fractions) {
        const double loss = loss_in(entry_of(r.analysis, keep, 32), method);
        out << ' ' << fixed(s.in_unit(r.record, loss), 3) << " |";
      }
    const auto last = r.record.last_step();
    out << ' ' << fixed(last.tokens_per_second, 0) << " | " << percent(last.optimizer_share) << " |\n";
  }
  return out.str() + table_of_bits(s);
}

json as_json(const summary& s) {
  json j{{"settings", json::object()},
         {"unit", s.unit()},
         {"texts", s.texts},
         {"tokens", s.tokens},
         {"seconds", s.seconds},
         {"deviation_of_seeds", s.deviation ? json(*s.deviation) : json()},
         {"degrees_of_freedom", s.degrees_of_freedom},
         {"rules", json::array()},
         {"crossings", json::array()},
         {"runs", json::array()}};
  const run_record& any = s.runs.front().record;
  j["processor"] = any.header.value("processor", "unknown"), j["threads"] = any.header.value("threads", 0);
  for (const auto& [name, value] : s.common.items())
    if (name.find('.') == std::string::npos) j["settings"][name] = value;
  j["settings"]["data"] = any.effective.value("data", "");
  if (std::all_of(s.runs.begin(), s.runs.end(),
                  [&](const auto& r) { return r.record.settings.seed == any.settings.seed; }))
    j["settings"]["seed"] = any.settings.seed;
  for (const char* own : {"rule", "set", "lr", "other_lr", "set_other"}) j["settings"].erase(own);
  for (const auto& c : s.configurations) {
    const auto& best = c.rates[c.best];
    const auto& r = s.runs[c.example];
    const bool good = std::isfinite(best.loss.median);
    json one{{"rule", r.record.settings.rule},
             {"label", c.label},
             {"lr", best.lr},
             {"seeds", best.runs.size()},
             {"verdict", c.verdict},
             {"rate_at_edge", c.at_edge},
             {"settings", r.record.effective},
             {"diverged", good ? json() : json(r.record.diverged)},
             {"validation", good ? json(best.loss.median) : json()},
             {"validation_range", good ? json{best.loss.least, best.loss.greatest} : json()},
             {"at_equal_time", good ? json(c.at_equal_time.median) : json()},
             {"bits_per_byte", good ? json(c.bits_per_byte) : json()},
             {"seconds", r.seconds()},
             {"rates", json::array()},
             {"matrices", json::array()},
             {"compressed", json::array()}};
    if (!r.record.steps.empty()) {
      one["tokens_per_second"] = r.record.steps.back().tokens_per_second;
      one["optimizer_share"] = r.record.steps.back().optimizer_share;
    }
    for (const auto& rate : c.rates)
      one["rates"].push_back({{"lr", rate.lr},
                              {"seeds", rate.runs.size()},
                              {"diverged", rate.diverged},
                              {"validation", std::isfinite(rate.loss.median) ? json(rate.loss.median) : json()}});
    if (good && r.analysis.is_object()) {
      one["matrices"] = r.analysis.at("matrices");
      one["mean_stable_rank"] = mean_of(r.analysis, "stable_rank");
      one["mean_spectral_norm"] = mean_of(r.analysis, "spectral_norm");
      for (const char* key : {"compressed", "dense", "rate"})
        if (r.analysis.contains(key)) one[key] = r.analysis.at(key);
      if (r.analysis.contains("dense")) j["dense_bytes"] = r.analysis.at("dense").at("bytes");
      for (const char* key : {"keep", "bits", "entropy"})
        if (r.analysis.contains(key)) j[key] = r.analysis.at(key);
    }
    j["rules"].push_back(std::move(one));
  }
  for (const char* method : {"plain", "asvd", "whitened"}) {
    for (const int bits : stored_bits(s))
      for (const size_crossing& x : crossings(size_curves(s, method, bits)))
        j["crossings"].push_back({{"method", method},
                                  {"bits", bits},
                                  {"bytes", x.bytes},
                                  {"above", s.configurations[x.above].label},
                                  {"below", s.configurations[x.below].label}});
  }
  for (const auto& r : s.runs)
    j["runs"].push_back({{"folder", fs::path(r.record.folder).filename().string()},
                         {"rule", r.record.settings.rule},
                         {"lr", r.record.settings.lr},
                         {"seed", r.record.settings.seed},
                         {"validation", r.diverged() ? json() : json(r.record.validations.back().loss)},
                         {"seconds", r.seconds()},
                         {"diverged", r.diverged() ? json(r.record.diverged) : json()}});
  return j;
}

std::string write_report(const std::vector<std::string>& folders, const std::string& out, matopt::eigen_backend& cpu,
                         const analysis_options& options) {
  require_gnuplot();
  std::error_code failure;
  fs::create_directories(out + "/plots", failure);
  if (failure) throw matopt::bad_file("cannot make the folder \"" + out + "/plots\": " + failure.message());
  std::vector<summary::run> runs;
  for (const std::string& folder : folders) try {
      runs.push_back({run_record::read(folder), {}});
    } catch (const matopt::error& e) {
      std::fprintf(stderr, "report: left out: %s\n", e.what());
    }
  summary s = summary::of(std::move(runs));
  for (const auto& c : s.configurations) {
    for (const std::size_t i : c.rates[c.best].runs)
      if (auto& r = s.runs[i]; !r.diverged())
        r.analysis = i == c.example ? analysis_of(r.record, cpu, options) : known_analysis(r.record, options);
  }
  for (const auto& r : s.runs) write_csv(r.record);
  const std::string table = table_of(s);
  write_file(out + "/report.json", as_json(s).dump(1, ' ', false, json::error_handler_t::replace) + '\n');
  write_file(out + "/report.html", page_of(s, out + "/plots"));
  write_file(out + "/report.md", table);
  return table;
}

}  // namespace small_gpt
