// What cases compute without a backend.
#include <algorithm>
#include <matopt/policy/orthogonalizer/coefficient_report.hpp>

#include "backend.hpp"
#include "matrices.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

double relative(double ours, double theirs) {
  const double off = std::abs(ours - theirs) / (theirs != 0 ? std::abs(theirs) : 1);
  return std::isnan(off) ? std::numeric_limits<double>::infinity() : off;
}

void report(settings_reader& s, const json& c, outcome& out) {
  out.on_cpu = true;
  const double lo = s.number("lo", 1e-3), hi = s.number("hi", 1), limit = s.number("limit", 1.5);
  if (!s.has("table")) throw error("\"table\" is missing");
  const matrix<double> table = matrix_of<double>("table", s.raw("table"));
  s.finish();
  if (table.cols < 2 || table.cols > 5)
    throw bad_value("table", std::to_string(table.cols) + " columns", "2 to 5, the coefficients of x, x^3, ..., x^9");
  std::vector<odd_polynomial> rows;
  for (index_t i = 0; i < table.rows; ++i) {
    double k[5] = {};
    for (index_t j = 0; j < table.cols; ++j) k[j] = table.data[static_cast<std::size_t>(i * table.cols + j)];
    rows.push_back({k[0], k[1], k[2], k[3], k[4]});
  }
  const coefficient_report r = report_coefficients(rows, lo, hi, limit);
  json steps = json::array();
  for (const auto& each : r.steps) steps.push_back(json::array({each.low, each.high}));
  if (c.contains("ok")) {
    const json& theirs = member(c, "steps");
    double error =
        std::max(relative(r.sup, member(c, "sup").get<double>()), relative(r.slope, member(c, "slope").get<double>()));
    const bool agree = theirs.size() == steps.size() && c.at("ok").get<bool>() == r.ok;
    for (std::size_t i = 0; agree && i < steps.size(); ++i)
      for (std::size_t j = 0; j < 2; ++j)
        error = std::max(error, relative(steps[i][j].get<double>(), theirs[i][j].get<double>()));
    out.error = agree ? error : std::numeric_limits<double>::infinity();
  }
  out.computed["steps"] = steps, out.computed["sup"] = r.sup, out.computed["slope"] = r.slope;
  out.computed["ok"] = r.ok;
}

}  // namespace

template <class B, class T>
void add_functions(rule_table<B, T>& table) {
  table.compute("coefficient_report", [](B&, settings_reader& s, const json& c, outcome& out) { report(s, c, out); });
}

REPLAY_INSTANTIATE_RULES(add_functions);

}  // namespace replay
