#include "report.hpp"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <numeric>
#include <sstream>

#include "plot.hpp"

namespace small_gpt {

namespace {

using matopt::index_t;
using nlohmann::json;

std::string fixed(double x, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, x);
  return text;
}

template <class F>
double mean(const std::vector<matrix_report>& all, F value) {
  double sum = 0;
  for (const auto& m : all) sum += value(m);
  return all.empty() ? 0 : sum / static_cast<double>(all.size());
}

std::string html(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

constexpr const char* method_names[] = {"plain", "whitened"};

// The bytes of the compressed models, of the first run that has any: all runs have the same shapes.
std::string bytes_of(const comparison& c) {
  for (const auto& e : c.entries) {
    if (e.diverged()) continue;
    std::string text;
    for (std::size_t i = 0; i < c.keep.size(); ++i)
      text += ", keep " + fixed(c.keep[i], 1) + ": " + std::to_string(e.plain[i].bytes());
    return text;
  }
  return {};
}

}  // namespace

double comparison::entry::mean_stable_rank() const {
  return mean(matrices, [](const auto& m) { return m.stable_rank; });
}
double comparison::entry::mean_spectral_norm() const {
  return mean(matrices, [](const auto& m) { return m.spectral_norm; });
}

std::string table_of(const comparison& c) {
  std::ostringstream out;
  out << "| rule | lr | validation, nats | bits per byte | stable rank | spectral norm |";
  for (const char* method : method_names)
    for (const double keep : c.keep) out << ' ' << method << ' ' << fixed(keep, 1) << " |";
  out << " tokens/s | optimizer time |\n|---|---|---|---|---|---|";
  for (std::size_t i = 0; i < 2 * c.keep.size(); ++i) out << "---|";
  out << "---|---|\n";
  for (const auto& e : c.entries) {
    out << "| " << e.settings.rule << " | " << matopt::detail::text(e.settings.lr) << " | ";
    if (e.diverged()) {
      out << "diverged at step " << e.training.step << " | ";
      for (std::size_t i = 0; i < 3 + 2 * c.keep.size(); ++i) out << "| ";
    } else {
      out << fixed(e.training.validation->loss, 4) << " | " << fixed(e.training.validation->bits_per_byte, 4) << " | "
          << fixed(e.mean_stable_rank(), 1) << " | " << fixed(e.mean_spectral_norm(), 2) << " | ";
      for (const auto* side : {&e.plain, &e.whitened})
        for (const auto& m : *side) out << fixed(m.loss, 3) << " | ";
    }
    out << fixed(e.training.tokens_per_second, 0) << " | " << fixed(100 * e.training.optimizer_share, 1) << " % |\n";
  }
  out << "\nLoss after truncation keeps the given fraction of the parameters of each hidden matrix (plain SVD, or "
         "whitened by the layer's inputs). Bytes of the model in float32: dense "
      << c.dense_bytes << bytes_of(c) << ".\n";
  return out.str();
}

void write_json(const comparison& c, const std::string& path) {
  json common = to_checked_json(c.settings);
  for (const char* own : {"rule", "set", "lr", "other_lr", "set_other"}) common.erase(own);
  json j{{"settings", common}, {"processor", c.processor},     {"threads", c.threads},
         {"keep", c.keep},     {"dense_bytes", c.dense_bytes}, {"rules", json::array()}};
  for (const auto& e : c.entries) {
    const auto& validation = e.training.validation;
    json r{{"rule", e.settings.rule},
           {"signature", e.signature},
           {"lr", e.settings.lr},
           {"settings", effective_settings(e.settings)},
           {"diverged", e.diverged() ? json(e.training.why) : json()},
           {"validation", validation ? json(validation->loss) : json()},
           {"bits_per_byte", validation ? json(validation->bits_per_byte) : json()},
           {"steps", e.training.steps},
           {"seconds", e.training.seconds},
           {"tokens_per_second", e.training.tokens_per_second},
           {"optimizer_share", e.training.optimizer_share},
           {"train_curve", e.training.train_curve},
           {"validation_curve", e.training.validation_curve},
           {"mean_stable_rank", e.mean_stable_rank()},
           {"mean_spectral_norm", e.mean_spectral_norm()},
           {"matrices", json::array()},
           {"compressed", json::array()}};
    for (const auto& m : e.matrices)
      r["matrices"].push_back({{"name", m.name},
                               {"shape", {m.rows, m.cols}},
                               {"spectral_norm", m.spectral_norm},
                               {"stable_rank", m.stable_rank},
                               {"effective_rank", m.effective_rank},
                               {"row_norms", {m.least_row, m.greatest_row}},
                               {"coherence", m.coherence},
                               {"singular_values", m.values}});
    for (std::size_t i = 0; i < e.plain.size(); ++i)
      r["compressed"].push_back({{"keep", c.keep[i]},
                                 {"bytes", e.plain[i].bytes()},
                                 {"plain", e.plain[i].loss},
                                 {"whitened", e.whitened[i].loss},
                                 {"ridge", e.whitened[i].ridge}});
    j["rules"].push_back(std::move(r));
  }
  write_file(path, j.dump(1) + '\n');
}

void write_page(const comparison& c, const std::string& path) {
  const auto each = [&](const std::function<void(std::vector<series>&, const comparison::entry&, std::size_t)>& add) {
    std::vector<series> all;
    for (std::size_t i = 0; i < c.entries.size(); ++i) add(all, c.entries[i], i);
    return all;
  };
  const auto curves = [&](auto member) {
    return each([&](auto& all, const auto& e, std::size_t i) {
      all.push_back({e.settings.rule, e.training.*member, false, i});
    });
  };
  std::ostringstream page;
  page << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>small_gpt: optimizers "
          "compared</title>\n<style>"
          "body{font:15px/1.5 system-ui,sans-serif;max-width:1300px;margin:2em auto;padding:0 1em;color:#222}"
          "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}th,td{border-bottom:1px solid "
          "#ddd;padding:.3em .6em;text-align:right;"
          "white-space:nowrap}th:first-child,td:first-child{text-align:left}.best{font-weight:bold;background:#eef6ee}"
          ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(560px,1fr));gap:1em}figure{margin:0}figure "
          "img{width:100%}"
          "figcaption{font-size:13px;color:#555}</style></head><body>\n<h1>Optimizers compared on a small GPT</h1>\n";
  const auto& s = c.settings;
  page << "<p>" << html(s.architecture) << " architecture, " << s.layers << " layers, " << s.heads << " heads, width "
       << s.width << ", context " << s.context << "; " << s.iterations << " steps of "
       << static_cast<index_t>(s.batch) * s.context << " tokens of <code>"
       << html(std::filesystem::path(s.data).filename().string())
       << "</code>, the same batches for every rule; schedule " << html(s.schedule) << ", seed " << s.seed << ". "
       << html(c.processor) << ", " << c.threads << " threads.</p>\n";

  // Two tables, with the best of each loss column marked.
  const auto loss_cell = [&](double value, const std::function<double(const comparison::entry&)>& column) {
    double best = value;
    for (const auto& e : c.entries)
      if (!e.diverged()) best = std::min(best, column(e));
    return std::string("<td") + (value <= best ? " class=\"best\"" : "") + ">" + fixed(value, 4) + "</td>";
  };
  page << "<table><tr><th>rule</th><th>lr</th><th>validation, nats per token</th><th>bits per byte</th><th>mean stable "
          "rank</th>"
          "<th>mean spectral norm</th><th>tokens/s</th><th>optimizer's share of the time</th></tr>\n";
  for (const auto& e : c.entries) {
    page << "<tr><td title=\"" << html(e.signature) << "\">" << html(e.settings.rule) << "</td><td>"
         << matopt::detail::text(e.settings.lr) << "</td>";
    if (e.diverged())
      page << "<td colspan=\"4\">diverged at step " << e.training.step << ": " << html(e.training.why) << "</td><td>";
    else
      page << loss_cell(e.training.validation->loss, [](const auto& o) { return o.training.validation->loss; })
           << loss_cell(e.training.validation->bits_per_byte,
                        [](const auto& o) { return o.training.validation->bits_per_byte; })
           << "<td>" << fixed(e.mean_stable_rank(), 1) << "</td><td>" << fixed(e.mean_spectral_norm(), 2)
           << "</td><td>";
    page << fixed(e.training.tokens_per_second, 0) << "</td><td>" << fixed(100 * e.training.optimizer_share, 1)
         << " %</td></tr>\n";
  }
  page << "</table>\n<table><tr><th>loss after truncation</th>";
  for (const char* method : method_names)
    for (const double keep : c.keep) page << "<th>" << method << " " << fixed(keep, 1) << "</th>";
  page << "</tr>\n";
  for (const auto& e : c.entries) {
    if (e.diverged()) continue;
    page << "<tr><td>" << html(e.settings.rule) << "</td>";
    for (std::size_t i = 0; i < c.keep.size(); ++i)
      page << loss_cell(e.plain[i].loss, [&](const auto& o) { return o.plain[i].loss; });
    for (std::size_t i = 0; i < c.keep.size(); ++i)
      page << loss_cell(e.whitened[i].loss, [&](const auto& o) { return o.whitened[i].loss; });
    page << "</tr>\n";
  }
  page << "</table>\n<p>The columns <em>plain</em> and <em>whitened</em> give the validation loss after each hidden "
          "matrix was cut to that fraction of its "
          "parameters, by its singular values or by those of its output on training text. Bytes in float32: dense "
       << c.dense_bytes << bytes_of(c) << ".</p>\n<div class=\"plots\">\n";

  const auto figure = [&](const std::string& caption, const std::string& picture) {
    page << "<figure>" << picture << "<figcaption>" << caption << "</figcaption></figure>\n";
  };
  figure("Smoothed training loss.", plot("set xlabel 'tokens'\nset ylabel 'nats per token'\nset format x '%.1s%c'",
                                         curves(&train_result::train_curve)));
  figure("Validation loss on a fixed set of windows.",
         plot("set xlabel 'tokens'\nset ylabel 'nats per token'\nset format x '%.1s%c'",
              curves(&train_result::validation_curve)));
  figure(
      "Singular values of the hidden matrices relative to the largest, averaged over the matrices; by fraction of the "
      "rank.",
      plot("set xlabel 'index / rank'\nset ylabel 'singular value / largest'\nset yrange [0:1]",
           each([](auto& all, const auto& e, std::size_t i) {
             constexpr int points = 64;
             if (e.diverged()) return;
             series line{e.settings.rule, {}, false, i};
             for (int p = 0; p < points; ++p) {
               const double at = static_cast<double>(p) / (points - 1);
               line.points.emplace_back(at, mean(e.matrices, [&](const matrix_report& m) {
                                          const auto index =
                                              static_cast<std::size_t>(at * static_cast<double>(m.values.size() - 1));
                                          return m.spectral_norm > 0 ? m.values[index] / m.spectral_norm : 0;
                                        }));
             }
             all.push_back(std::move(line));
           })));
  figure("Validation loss against the size of the model: whitened (solid) and plain (dashed) truncation.",
         plot("set xlabel 'bytes (float32)'\nset ylabel 'nats per token'\nset format x '%.1s%c'",
              each([&](auto& all, const auto& e, std::size_t i) {
                if (e.diverged()) return;
                for (const auto* side : {&e.whitened, &e.plain}) {
                  const bool dashed = side == &e.plain;
                  series line{dashed ? e.settings.rule + ", plain" : e.settings.rule,
                              {{static_cast<double>(c.dense_bytes), e.training.validation->loss}},
                              dashed,
                              i};
                  for (const auto& m : *side) line.points.emplace_back(static_cast<double>(m.bytes()), m.loss);
                  all.push_back(std::move(line));
                }
              })));
  page << "</div>\n</body></html>\n";
  write_file(path, page.str());
}

}  // namespace small_gpt
