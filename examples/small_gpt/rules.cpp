#include "rules.hpp"

#include <map>
#include <matopt/eigen.hpp>

namespace small_gpt {

rule_book& rules() {
  static rule_book book = known_rules();
  return book;
}

double default_rate(const std::string& rule) {
  if (rule == "adamw") return 3e-3;
  if (rule == "muown" || rule.starts_with("numuown")) return 5e-3;
  if (rule == "numuon" || rule == "numuon_krylov") return 0.02;
  return rules().published_lr(rule);
}

std::string state_cost(const std::string& rule) {
  constexpr matopt::index_t rows = 67, cols = 41;
  std::vector<float> w(rows * cols), g(rows * cols), r(rows * cols);
  matopt::eigen_backend cpu(1);
  std::vector<matopt::setting> settings;
  fit_rank_schedule(rule, settings, 1);
  optimizer o = rules().make(rule, cpu, settings);
  const auto view_of = [](auto& x) { return matopt::row_major(x.data(), rows, cols); };
  o.add("w", view_of(w), view_of(g), view_of(r));
  o.finalize();
  std::map<std::string, int> kinds;
  for (const auto& t : o.state_tensors()) {
    const bool tall = t.rows == rows, wide = t.cols == cols;
    const std::size_t infix = t.name.find(matopt::absmax_infix);
    if (infix != t.name.npos) {
      ++kinds["4 block of " + t.name.substr(infix + matopt::absmax_infix.size())];
      continue;
    }
    ++kinds[holds_codes(t.type)                ? "1 parameter, in 8 bits"
            : tall && wide                     ? "1 parameter"
            : tall && t.cols == 1              ? "2 row"
            : wide && t.rows == 1              ? "3 column"
            : t.rows == 1 && t.cols == 1       ? "4 matrix"
            : t.rows == rows                   ? "5 m x m block"
            : t.rows == cols && t.cols == cols ? "6 n x n block"
                                               : "7 block"];
  }
  std::string text;
  for (const auto& [kind, count] : kinds) {
    const std::string name = kind.substr(2);
    text += (text.empty() ? "" : ", ") + std::to_string(count) + (kind[0] >= '5' ? " " + name : " per " + name);
  }
  return text.empty() ? "none" : text;
}

std::vector<matopt::setting> parse_settings(const std::vector<std::string>& set) {
  std::vector<matopt::setting> out;
  for (const auto& s : set) {
    const auto at = s.find('=');
    if (at == std::string::npos || at == 0) throw matopt::bad_value("--set", '"' + s + '"', "key=value");
    out.push_back({s.substr(0, at), s.substr(at + 1)});
  }
  return out;
}

void fit_rank_schedule(const std::string& rule, std::vector<matopt::setting>& settings, matopt::index_t iterations) {
  const auto& known = rules().settings(rule);
  const auto fit = [&](const char* name, matopt::index_t steps) {
    const auto named = [&](const matopt::setting& s) { return matopt::setting_name(s.name) == name; };
    if (std::any_of(known.begin(), known.end(), named) && std::none_of(settings.begin(), settings.end(), named))
      settings.push_back({name, std::to_string(steps)});
  };
  fit("rank_hold", iterations / 10);
  fit("rank_total", std::max<matopt::index_t>(1, iterations * 8 / 10));
}

}  // namespace small_gpt
