// The page of a report: first the answer, then the plots, then every run with its settings.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <sstream>

#include "files.hpp"
#include "plot.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "size_curves.hpp"
#include "text_format.hpp"

namespace small_gpt {

using nlohmann::json;

namespace {

constexpr const char* style =
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222}"
    "h1{font-size:1.6em}h2{font-size:1.25em;margin-top:1.6em}"
    "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto;font-variant-numeric:tabular-nums}"
    "th,td{border-bottom:1px solid #ddd;padding:.3em .6em;text-align:right;white-space:nowrap}"
    "th{border-bottom:2px solid "
    "#888;white-space:normal;vertical-align:bottom}th:first-child,td:first-child{text-align:left}td.text{text-align:"
    "left}"
    ".best{font-weight:bold;background:#eef6ee}.lead{font-size:1.1em}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(560px,1fr));gap:1em}"
    "figure{margin:0}figure.wide{grid-column:1/-1}figure img{width:100%}figcaption{font-size:13px;color:#555}"
    "pre{font-size:12px;white-space:pre-wrap}details{margin:.2em 0}";

std::string loss_cell(double value, bool best) {
  if (!std::isfinite(value)) return "<td>diverged</td>";
  return std::string("<td") + (best ? " class=\"best\"" : "") + ">" + fixed(value, 4) + "</td>";
}

std::string with_unit(double tokens) {
  return tokens < 1e6 ? fixed(tokens / 1e3, 0) + " k" : fixed(tokens / 1e6, tokens < 1e7 ? 2 : 0) + " M";
}

std::string count_of(double n, const char* one, const char* more) { return fixed(n, 0) + " " + (n == 1 ? one : more); }

// In a few sentences.
std::string lead(const summary& s) {
  std::ostringstream out;
  const auto& first = s.configurations.front();
  const auto& best = first.rates[first.best];
  if (!std::isfinite(best.loss.median)) return "<p class=\"lead\">Every run diverged.</p>\n";
  out << "<p class=\"lead\">The least validation loss is that of <b>" << html(first.label) << "</b> at a rate of "
      << matopt::detail::text(best.lr) << ": <b>" << fixed(best.loss.median, 4) << ' ' << s.unit() << "</b>"
      << (s.in_bits || std::isnan(first.bits_per_byte) ? "" : ", " + fixed(first.bits_per_byte, 4) + " bits per byte")
      << '.';
  std::string near, behind;
  for (const auto& c : s.configurations) {
    if (&c == &first || !std::isfinite(c.rates[c.best].loss.median)) continue;
    std::string& list = c.verdict.find("within noise") != std::string::npos ? near : behind;
    list += (list.empty() ? "" : ", ") + html(c.label) + " (+" +
            fixed(c.rates[c.best].loss.median - best.loss.median, 4) + ")";
  }
  if (!near.empty()) out << " Within the noise of it: " << near << ".";
  if (!behind.empty()) out << (s.deviation ? " Behind it by more than the noise: " : " Behind it: ") << behind << ".";
  out << "</p>\n<p>";
  if (s.texts.size() > 1) {
    out << "<b>The runs learned from different texts, and losses on different texts do not compare</b>:";
    for (const std::string& text : s.texts) out << (&text == &s.texts.front() ? " " : ", ") << html(text);
    out << ". ";
  } else if (!s.comparable) {
    out << "<b>The runs have different vocabularies, and their nats per token do not compare</b>; what a token stands "
           "for is not known of all. ";
  } else if (s.in_bits) {
    out << "The runs have different vocabularies: their losses are compared in bits per byte. ";
  }
  if (s.deviation)
    out << "Runs that differ in the seed alone have a standard deviation of " << fixed(*s.deviation, 4)
        << (s.in_bits ? " bits (" : " nats (") << s.degrees_of_freedom
        << " degrees of freedom over all rules and rates). A difference counts if it is larger than what "
        << "such noise gives in 95 of 100 cases; a comparison of many rules will show some difference by chance.";
  else
    out << "Each rate was trained with one seed, so the noise is not known, and small differences mean nothing.";
  std::string edges;
  for (const auto& c : s.configurations)
    if (c.at_edge) edges += (edges.empty() ? "" : ", ") + html(c.label);
  if (!edges.empty())
    out << " The best rate is the lowest or highest that was tried, so a better one may lie beyond, for: " << edges
        << ".";
  out << "</p>\n";
  return out.str();
}

std::string answer_table(const summary& s) {
  std::ostringstream out;
  double by_time = std::numeric_limits<double>::infinity();
  for (const auto& c : s.configurations) by_time = std::min(by_time, c.at_equal_time.median);
  out << "<table><tr><th>rule</th><th>best rate</th><th>seeds</th><th>" << s.unit() << " after " << with_unit(s.tokens)
      << " tokens</th><th>least to greatest</th><th>against the best</th>"
      << "<th>bits per byte</th><th>"
      << (std::isnan(s.seconds)
              ? "at equal time: not known"
              : std::string(s.unit()) + " after " +
                    (s.seconds < 60 ? fixed(s.seconds, s.seconds < 10 ? 2 : 0) + " s" : duration(s.seconds)))
      << "</th><th>shape &nu; of the weights</th><th>their rate</th><th>tokens/s</th><th>optimizer's time</th></tr>\n";
  for (const auto& c : s.configurations) {
    const auto& best = c.rates[c.best];
    const auto& r = s.runs[c.example];
    out << "<tr><td title=\"" << html(r.record.header.value("rules", "")) << "\">" << html(c.label) << "</td><td>"
        << matopt::detail::text(best.lr) << (c.at_edge ? " (edge)" : "") << "</td><td>" << best.runs.size() << "</td>";
    if (!std::isfinite(best.loss.median)) {
      out << "<td colspan=\"9\" class=\"text\">diverged at step " << r.record.diverged_at << ": "
          << html(r.record.diverged) << "</td></tr>\n";
      continue;
    }
    const auto last = r.record.last_step();
    out << loss_cell(best.loss.median, &c == &s.configurations.front()) << "<td>"
        << (best.loss.count > 1 ? fixed(best.loss.least, 4) + " to " + fixed(best.loss.greatest, 4) : std::string())
        << "</td><td class=\"text\">" << html(c.verdict) << "</td><td>" << fixed(c.bits_per_byte, 4) << "</td>"
        << (std::isnan(c.at_equal_time.median) ? std::string("<td></td>")
                                               : loss_cell(c.at_equal_time.median, c.at_equal_time.median <= by_time))
        << "<td>" << fixed(rate_in(r.analysis, "shape"), 2) << "</td><td>" << fixed(rate_in(r.analysis, "rate"), 4)
        << "</td><td>" << fixed(last.tokens_per_second, 0) << "</td><td>" << percent(last.optimizer_share)
        << "</td></tr>\n";
  }
  out << "</table>\n<p>Medians over the seeds. The loss at equal time is what the run had reached when the fastest one "
         "ended; its "
         "schedule was not made for that moment. The rate is BackSlash's, the mean of (|w| + 1)<sup>&nu;</sup> over "
         "the entries "
         "of the hidden matrices at the end, with &nu; the shape of the generalised Gaussian that they look like (2: "
         "Gauss, 1: "
         "Laplace).</p>\n";
  return out.str();
}

std::string rate_table(const summary& s) {
  std::set<double> rates;
  for (const auto& c : s.configurations)
    for (const auto& r : c.rates) rates.insert(r.lr);
  if (rates.size() < 2) return {};
  std::ostringstream out;
  out << "<h2>Every rate</h2>\n<table><tr><th>" << s.unit() << " at the rate</th>";
  for (const double lr : rates) out << "<th>" << matopt::detail::text(lr) << "</th>";
  out << "</tr>\n";
  for (const auto& c : s.configurations) {
    out << "<tr><td>" << html(c.label) << "</td>";
    for (const double lr : rates) {
      const auto at = std::find_if(c.rates.begin(), c.rates.end(), [&](const auto& r) { return r.lr == lr; });
      out << (at == c.rates.end() ? "<td></td>" : loss_cell(at->loss.median, &*at == &c.rates[c.best]));
    }
    out << "</tr>\n";
  }
  return out.str() + "</table>\n";
}

// Which configuration is ahead at which size, for each method and each number of bits.
std::string crossings_text(const summary& s) {
  std::ostringstream out;
  for (const char* method : {"plain", "asvd", "whitened"})
    for (const int bits : stored_bits(s)) {
      const auto curves = size_curves(s, method, bits);
      if (curves.size() < 2) continue;
      const auto changes = crossings(curves);
      out << "<li><em>" << method << "</em>" << bits_label(s, bits) << ": ";
      if (changes.empty()) {
        const auto first = std::min_element(curves.begin(), curves.end(), [](const auto& a, const auto& b) {
          return a.points.back().loss.median < b.points.back().loss.median;
        });
        out << html(s.configurations[first->configuration].label) << " is ahead at every size.";
      } else {
        out << html(s.configurations[changes.front().above].label) << " is ahead";
        for (const size_crossing& x : changes)
          out << "; below " << size_text(x.bytes) << ' ' << html(s.configurations[x.below].label);
        out << '.';
      }
      out << "</li>\n";
    }
  const std::string list = out.str();
  if (list.empty()) return list;
  return "<p>Where the curves of loss against bytes cross, from the dense model to smaller files, by the medians and "
         "straight lines between the points:</p>\n<ul>\n" +
         list + "</ul>\n";
}

// A row for each configuration and each number of bits. Where there are several of these, or files are entropy-coded, a loss
// stands beside the size of its own file.
std::string compression_table(const summary& s) {
  const std::vector<int> all_bits = stored_bits(s);
  if (all_bits.empty()) return {};
  std::set<double, std::greater<>> fractions;
  bool coded = false;
  for (const auto& c : s.configurations)
    if (const json& a = s.runs[c.example].analysis; a.is_object())
      for (const json& e : a.value("compressed", json::array())) {
        if (e.at("keep") < 1) fractions.insert(e.at("keep").get<double>());
        coded = coded || e.contains("coded_bytes");
      }
  const bool with_sizes = all_bits != std::vector{32};
  std::ostringstream out, sizes;
  out << "<h2>Compressed</h2>\n<table><tr><th>" << s.unit() << " after truncation</th><th>dense</th>";
  std::vector<std::pair<std::string, double>> columns{{"plain", 1}};  // the dense model, whatever the method
  for (const char* method : {"plain", "asvd", "whitened"})
    for (const double keep : fractions) {
      columns.emplace_back(method, keep);
      out << "<th>" << method << ' ' << matopt::detail::text(keep) << "</th>";
    }
  out << "</tr>\n";
  for (const int bits : all_bits) {
    const std::pair<double, double> unknown{std::nan(""), std::nan("")};
    const auto value = [&](const auto& c, const auto& column) -> std::pair<double, double> {  // loss and bytes
      const auto& r = s.runs[c.example];
      const bool dense = bits == 32 && column.second == 1;
      const std::string key = dense ? "loss" : column.first;
      const json e = !dense                   ? entry_of(r.analysis, column.second, bits)
                     : r.analysis.is_object() ? r.analysis.value("dense", json())
                                              : json();
      const double loss = s.in_unit(r.record, loss_in(e, key));
      return std::isnan(loss) ? unknown : std::pair{loss, bytes_of(e, key)};
    };
    bool first = true;
    for (const auto& c : s.configurations) {
      if (std::all_of(columns.begin(), columns.end(), [&](const auto& at) { return std::isnan(value(c, at).first); }))
        continue;
      out << "<tr><td>" << html(c.label) << bits_label(s, bits) << "</td>";
      for (const auto& column : columns) {
        double least = std::numeric_limits<double>::infinity();
        for (const auto& other : s.configurations)
          if (const double x = value(other, column).first; x < least) least = x;
        const auto [loss, bytes] = value(c, column);
        if (std::isnan(loss)) {
          out << "<td></td>";
          continue;
        }
        std::string cell = loss_cell(loss, column.second < 1 && loss <= least);
        if (with_sizes) cell.insert(cell.rfind('<'), "<br>" + size_text(bytes));
        out << cell;
        if (first && !with_sizes && column.first == "plain")
          sizes << (column.second < 1 ? ", " + matopt::detail::text(column.second) + ": " : " dense ")
                << fixed(bytes, 0);
      }
      first = false;
      out << "</tr>\n";
    }
  }
  out << "</table>\n<p>Each hidden matrix keeps that fraction of its parameters: <em>plain</em> by its singular "
         "values, <em>asvd</em> "
         "with its inputs' magnitudes, <em>whitened</em> by the singular values of its output on training text. The "
         "losses are of models that were written to a file and read back. ";
  if (with_sizes)
    out << "Matrices and factors are stored in so many bits an element: bfloat16 in 16, whole numbers with a scale for "
           "each row in 8 and 4"
        << (coded ? ", which are entropy-coded" : "") << ". Under each loss stands the size of the file.";
  else
    out << "Sizes of the files in bytes:" << sizes.str() << ".";
  return out.str() + "</p>\n" + crossings_text(s);
}

// One curve per configuration, of its example.
std::vector<series> each(const summary& s, const std::function<void(series&, const summary::run&)>& fill) {
  std::vector<series> all;
  for (std::size_t i = 0; i < s.configurations.size(); ++i) {
    series line{s.configurations[i].label, {}, i >= 10, i};
    if (const auto& r = s.runs[s.configurations[i].example]; !r.diverged()) fill(line, r);
    all.push_back(std::move(line));
  }
  return all;
}

// A validation curve per seed of the best rate; the first has the name.
std::vector<series> validation_curves(const summary& s, bool seconds) {
  std::vector<series> all;
  for (std::size_t i = 0; i < s.configurations.size(); ++i) {
    const auto& c = s.configurations[i];
    bool named = false;
    for (const std::size_t at : c.rates[c.best].runs) {
      const auto& r = s.runs[at];
      if (r.diverged()) continue;
      series line{named ? "" : c.label, {}, i >= 10, i};
      for (const auto& v : r.record.validations)
        line.points.push_back({seconds ? v.seconds : v.step * r.record.tokens_per_step(), s.in_unit(r.record, v.loss)});
      all.push_back(std::move(line)), named = true;
    }
  }
  return all;
}

// Of one quantity the mean over the matrices of a kind, over time; one panel per kind.
std::vector<panel> over_time(const summary& s, const std::function<double(const json&)>& quantity) {
  std::vector<panel> panels;
  for (const char* kind : {"q", "k", "v", "attention_out", "mlp_in", "mlp_out"})
    panels.push_back({kind, each(s, [&](series& line, const summary::run& r) {
                        for (const auto& m : r.record.measurements) {
                          double sum = 0;
                          int count = 0;
                          for (const json& w : m.matrices)
                            if (w.value("kind", "") == kind)
                              if (const double x = quantity(w); std::isfinite(x)) sum += x, ++count;
                          if (count > 0) line.points.push_back({m.step * r.record.tokens_per_step(), sum / count});
                        }
                      })});
  return panels;
}

double field(const json& w, const char* key) {
  const auto at = w.find(key);
  return at != w.end() && at->is_number() ? at->get<double>() : NAN;
}

// Commands for an axis of rates, which is logarithmic and may span less than a decade, where gnuplot names one rate or none.
std::string rate_axis(const std::vector<series>& lines) {
  double least = std::numeric_limits<double>::infinity(), greatest = 0;
  for (const series& line : lines)
    for (const plot_point& p : line.points) least = std::min(least, p.x), greatest = std::max(greatest, p.x);
  std::ostringstream out;
  out << "set logscale x\nset xlabel 'rate'\n";
  if (!(greatest > 0)) return out.str();
  const double low = least / 1.15, high = greatest * 1.15;
  const bool close = high / low < 300;  // room for three names in each decade
  std::string tics;
  for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10)
    for (const double digit : {1.0, 2.0, 5.0}) {
      const double at = decade * digit;
      if (at < low || at > high || (digit > 1 && !close)) continue;
      char name[32];
      std::snprintf(name, sizeof name, "%g", at);
      tics += std::string(tics.empty() ? "'" : ", '") + name + "' " + name;
    }
  out << "set xrange [" << low << ':' << high << "]\n";
  if (!tics.empty()) out << "set xtics (" << tics << ")\n";
  return out.str();
}

double greatest_row(const json& w) { return w.contains("row_norms") ? w.at("row_norms").at(2).get<double>() : NAN; }

// The median over all hidden matrices of one quantity, over time.
std::vector<series> medians(const summary& s, const std::function<double(const json&)>& quantity) {
  return each(s, [&](series& line, const summary::run& r) {
    for (const auto& m : r.record.measurements) {
      std::vector<double> values;
      for (const json& w : m.matrices)
        if (const double x = quantity(w); w.contains("spectral_norm") && std::isfinite(x)) values.push_back(x);
      if (!values.empty())
        line.points.push_back({m.step * r.record.tokens_per_step(), summary::spread::of(std::move(values)).median});
    }
  });
}

// Of steps, which are too many to draw each of them.
void largest_logits(series& line, const summary::run& r) {
  const auto& steps = r.record.steps;
  const std::size_t stride = (steps.size() + 199) / 200;
  for (std::size_t first = 0; first < steps.size(); first += stride) {
    double greatest = NAN;
    const std::size_t end = std::min(first + stride, steps.size());
    for (std::size_t i = first; i < end; ++i) greatest = std::fmax(greatest, steps[i].qk_max);
    if (greatest > 0) line.points.push_back({steps[end - 1].step * r.record.tokens_per_step(), greatest});
  }
}

class figures {
 public:
  explicit figures(std::string folder) : folder_(std::move(folder)) {}
  void add(const std::string& name, const std::string& caption, const std::string& svg, bool wide = false) {
    if (svg.empty()) return;
    write_file(folder_ + "/" + name + ".svg", svg);
    html_ << "<figure" << (wide ? " class=\"wide\"" : "") << ">" << image(svg) << "<figcaption>" << caption
          << "</figcaption></figure>\n";
  }
  std::string text() const { return html_.str(); }

 private:
  std::string folder_;
  std::ostringstream html_;
};

std::string plots(const summary& s, const std::string& folder) {
  const std::string tokens = "set xlabel 'tokens'\nset format x '%.1s%c'\n",
                    loss = std::string("set ylabel '") + s.unit() + "'\n";
  figures f(folder);
  f.add("validation", "Validation loss on a fixed set of windows against tokens; every seed at the best rate.",
        svg_plot(tokens + loss, {{"", validation_curves(s, false)}}));
  f.add("time", "The same against seconds of training steps.",
        svg_plot("set xlabel 'seconds'\n" + loss, {{"", validation_curves(s, true)}}));
  f.add("train", "Smoothed loss of the training batches at the best rate.",
        svg_plot(tokens + loss, {{"", each(s, [&](series& line, const summary::run& r) {
                                    const std::size_t stride = std::max<std::size_t>(1, r.record.steps.size() / 400);
                                    for (std::size_t i = 0; i < r.record.steps.size(); i += stride)
                                      line.points.push_back({r.record.steps[i].step * r.record.tokens_per_step(),
                                                             s.in_unit(r.record, r.record.steps[i].smoothed)});
                                  })}}));

  std::vector<series> plateau;
  double least = std::numeric_limits<double>::infinity();
  bool several = false;
  for (std::size_t i = 0; i < s.configurations.size(); ++i) {
    series line{s.configurations[i].label, {}, i >= 10, i, true};
    for (const auto& r : s.configurations[i].rates)
      if (std::isfinite(r.loss.median)) {
        line.points.push_back({r.lr, r.loss.median, r.loss.least, r.loss.greatest});
        least = std::min(least, r.loss.median);
      }
    several = several || line.points.size() > 1;
    plateau.push_back(std::move(line));
  }
  const std::string rates = rate_axis(plateau);
  if (several)
    f.add("plateau",
          "Final loss against the rate of the hidden matrices: median, least and greatest over the seeds. What is more "
          "than 1 above the best, or diverged, is left out.",
          svg_plot(rates + loss + "set yrange [*:*<" + fixed(least + 1, 3) + "]\n", {{"", std::move(plateau)}}));

  f.add("singular_values",
        "Singular values of the hidden matrices at the end relative to the largest, averaged over the matrices, by "
        "fraction of the rank.",
        svg_plot("set xlabel 'index / rank'\nset ylabel 'singular value / largest'\nset yrange [0:1]\n",
                 {{"", each(s, [](series& line, const summary::run& r) {
                     if (!r.analysis.is_object()) return;
                     const json& matrices = r.analysis.at("matrices");
                     constexpr int points = 64;
                     for (int p = 0; p < points; ++p) {
                       const double at = static_cast<double>(p) / (points - 1);
                       double sum = 0;
                       for (const json& m : matrices) {
                         const json& values = m.at("singular_values");
                         const double top = values.front().get<double>();
                         const auto index = static_cast<std::size_t>(at * static_cast<double>(values.size() - 1));
                         sum += top > 0 ? values[index].get<double>() / top : 0;
                       }
                       line.points.push_back({at, sum / static_cast<double>(matrices.size())});
                     }
                   })}}));
  for (const char* method : {"whitened", "asvd", "plain"}) {
    std::vector<series> lines;
    bool several_seeds = false;
    // Rules have colours, and numbers of bits have dashes: the key has each of them once.
    const std::vector<int> all_bits = stored_bits(s);
    const bool several_bits = all_bits.size() > 1;
    std::set<std::size_t> named;
    for (std::size_t b = 0; b < all_bits.size(); ++b)
      for (const size_curve& c : size_curves(s, method, all_bits[b])) {
        const std::string name =
            s.configurations[c.configuration].label + (several_bits ? "" : bits_label(s, all_bits[b]));
        series line{named.insert(c.configuration).second ? name : "", {}, b, c.configuration};
        if (c.configuration >= 10) line.dash += all_bits.size();
        for (const auto& p : c.points) {
          line.points.push_back({p.bytes, p.loss.median, p.loss.least, p.loss.greatest});
          several_seeds = several_seeds || p.loss.count > 1;
        }
        lines.push_back(std::move(line));
      }
    for (series& line : lines) line.bars = several_seeds;
    for (std::size_t b = 0; several_bits && !lines.empty() && b < all_bits.size(); ++b)
      lines.push_back({std::to_string(all_bits[b]) + " bits", {}, b, 0, false, true});
    f.add(std::string("size_") + method,
          std::string("Validation loss against the bytes of the file, compressed by the method <em>") + method +
              "</em>" + (several_seeds ? "; median, least and greatest over the seeds." : "."),
          svg_plot(std::string("set xlabel 'bytes of the file'\nset format x '%.1s%cB'\n") +
                       (in_bits_per_byte(s) ? "set ylabel 'bits per byte'\n" : loss),
                   {{"", std::move(lines)}}));
  }

  const auto timed = [&](const char* name, const char* caption, const char* label, const char* more,
                         const std::function<double(const json&)>& q) {
    f.add(name, caption, svg_plot(tokens + "set ylabel '" + label + "'\n" + more + "\n", over_time(s, q), 3), true);
  };
  timed("stable_rank", "Stable rank over tokens, mean over the layers, per kind of layer.", "stable rank", "",
        [](const json& w) { return field(w, "stable_rank"); });
  timed("spectra", "The median singular value over the largest, over tokens: how flat the spectrum is.",
        "median / largest", "", [](const json& w) {
          const auto at = w.find("singular_values");
          return at != w.end() && at->front().get<double>() > 0 ? at->at(5).get<double>() / at->front().get<double>()
                                                                : NAN;
        });
  f.add(
      "norm_factors",
      "The spectral norm and its two factors over tokens, median over the hidden matrices: the greatest row norm, and "
      "the coherence of the rows.",
      svg_plot(tokens,
               {{"spectral norm", medians(s, [](const json& w) { return field(w, "spectral_norm"); })},
                {"greatest row norm", medians(s, greatest_row)},
                {"coherence of rows", medians(s, [](const json& w) { return field(w, "coherence"); })}},
               3),
      true);
  timed("spectral_norm", "Spectral norm over tokens. It is the product of the next two.", "spectral norm",
        "set yrange [0:*]", [](const json& w) { return field(w, "spectral_norm"); });
  timed("row_magnitude", "Greatest row norm over tokens: the magnitude factor of the spectral norm.",
        "greatest row norm", "set yrange [0:*]", greatest_row);
  timed("row_coherence",
        "Coherence of the rows over tokens: 1 for orthogonal rows, the square root of their number for parallel ones.",
        "coherence of rows", "", [](const json& w) { return field(w, "coherence"); });
  timed("row_norms", "Mean row norm over tokens.", "mean row norm", "set yrange [0:*]",
        [](const json& w) { return w.contains("row_norms") ? w.at("row_norms").at(1).get<double>() : NAN; });
  timed("rate_shape",
        "Shape &nu; of the generalised Gaussian that the weights look like, over tokens: 2 Gauss, 1 Laplace.",
        "shape of the weights", "", [](const json& w) { return field(w, "rate_shape"); });
  timed("update_to_weight", "Norm of the update over norm of the weight, over tokens.", "update / weight",
        "set logscale y", [](const json& w) {
          const double x = field(w, "update_to_weight");
          return x > 1e-7 ? x : NAN;  // the first step of layers whose gradient is still zero
        });
  f.add("attention_logits",
        "Largest logit of attention over tokens, of all heads and layers: the greatest of each of at most 200 spans of "
        "steps. Of runs with QK-clip.",
        svg_plot(tokens + "set ylabel 'largest logit'\nset logscale y\n", {{"", each(s, largest_logits)}}));
  return f.text();
}

std::string settings_text(const json& settings) {
  std::string text;
  for (const auto& [name, value] : settings.items())
    text += (text.empty() ? "" : ", ") + name + " " + (value.is_string() ? value.get<std::string>() : value.dump());
  return text;
}

}  // namespace

std::string page_of(const summary& s, const std::string& folder) {
  std::ostringstream page;
  page << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>small_gpt: optimizers "
          "compared</title>\n<style>"
       << style << "</style></head><body>\n<h1>Optimizers compared on a small GPT</h1>\n"
       << lead(s) << answer_table(s);
  const run_record& any = s.runs.front().record;
  const auto& shape = any.settings;
  page << "<p>" << html(shape.architecture) << " architecture, " << shape.layers << " layers, " << shape.heads
       << " heads, width " << shape.width << ", context " << shape.context;
  if (any.header.contains("parameters")) page << ", " << any.header.at("parameters") << " parameters";
  page << "; " << shape.batch * shape.context << " tokens per step of <code>"
       << html(std::filesystem::path(shape.data).filename().string()) << "</code>; "
       << count_of(static_cast<double>(s.runs.size()), "run", "runs") << ". " << html(any.header.value("processor", ""))
       << ", " << any.header.value("threads", 0) << " threads.</p>\n";
  page << "<h2>Plots</h2>\n<div class=\"plots\">\n"
       << plots(s, folder) << "</div>\n"
       << rate_table(s) << compression_table(s);

  page << "<h2>Every "
          "run</h2>\n<table><tr><th>folder</th><th>rule</th><th>rate</th><th>seed</th><th>nats per token</th><th>bits "
          "per "
          "byte</th><th>steps</th><th>seconds</th><th>tokens/s</th><th>skipped steps</th></tr>\n";
  for (const auto& c : s.configurations)
    for (const auto& rate : c.rates)
      for (const std::size_t i : rate.runs) {
        const auto& r = s.runs[i].record;
        page << "<tr><td>" << html(std::filesystem::path(r.folder).filename().string()) << "</td><td class=\"text\">"
             << html(c.label) << "</td><td>" << matopt::detail::text(r.settings.lr) << "</td><td>" << r.settings.seed
             << "</td>";
        if (s.runs[i].diverged())
          page << "<td colspan=\"2\" class=\"text\">diverged at step " << r.diverged_at << "</td>";
        else
          page << "<td>" << fixed(r.validations.back().loss, 4) << "</td><td>"
               << fixed(r.validations.back().bits_per_byte, 4) << "</td>";
        page << "<td>" << r.last_step().step << "</td><td>" << fixed(s.runs[i].seconds(), 1) << "</td><td>"
             << fixed(r.last_step().tokens_per_second, 0) << "</td><td>" << r.skipped.size() << "</td></tr>\n";
      }
  page << "</table>\n<h2>Settings in effect</h2>\n<p>Of all runs: " << html(settings_text(s.common)) << ".</p>\n";
  for (const auto& c : s.configurations) {
    const auto& r = s.runs[c.example].record;
    json more = r.effective;
    more.erase("data");
    page << "<details><summary>" << html(c.label) << " at " << matopt::detail::text(r.settings.lr) << ", seed "
         << r.settings.seed << "</summary><pre>" << html(more.dump(1, ' ', false, json::error_handler_t::replace));
    for (const char* key : {"version", "started", "command"})
      if (r.header.contains(key)) page << '\n' << key << ": " << html(r.header.at(key).get<std::string>());
    page << "</pre></details>\n";
  }
  page << "</body></html>\n";
  return page.str();
}

}  // namespace small_gpt
