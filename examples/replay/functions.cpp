// What cases compute that is neither a trajectory nor a direction.
#include <algorithm>
#include <cstdint>
#include <matopt/policy/orthogonalizer/coefficient_report.hpp>
#include <matopt/quantize.hpp>

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

// One row of numbers. Golden files have a matrix of one row as a list.
template <class T>
matrix<T> row_of(const std::string& name, const json& list) {
  return matrix_of<T>(name, list.is_array() && !list.empty() && list[0].is_array() ? list : json::array({list}));
}
// The number that golden files have for a code: the linear one itself, otherwise the place in the sorted table.
int number_of(std::uint8_t code, code_map map) {
  if (map == code_map::linear) return static_cast<std::int8_t>(code);
  if (map == code_map::dynamic) return code;
  return (code & 0x80) ? 126 - (code & 0x7f) : 126 + code;
}

// What the codes stand for, with these scales.
template <class T, class B>
matrix<T> values_of(B& backend, const block_format& format, const matrix<std::uint8_t>& codes,
                    const matrix<float>& scales) {
  placed_matrix<B, std::uint8_t> c(backend, codes);
  placed_matrix<B, float> s(backend, scales);
  placed_matrix<B, T> y(backend, {codes.rows, codes.cols, std::vector<T>(codes.data.size())});
  dequantize(backend, c.view(), s.view(), y.view(), format);
  const view<T> values = y.get();
  return {codes.rows, codes.cols, std::vector<T>(values.data, values.data + codes.data.size())};
}

template <class T, class B>
void quantize_blocks(B& backend, settings_reader& s, const json& c, outcome& out) {
  block_format format;
  const std::string map = s.word("map", "linear", {"linear", "dynamic", "e4m3"});
  format.map = map == "linear" ? code_map::linear : map == "dynamic" ? code_map::dynamic : code_map::e4m3;
  format.block = s.whole("block", 256, 1, index_t{1} << 40);
  s.finish();
  const matrix<T> x = row_of<T>("X", member(c, "X"));
  matrix<std::uint8_t> codes{1, x.cols, std::vector<std::uint8_t>(x.data.size())};
  const index_t blocks = format.blocks(x.cols);
  matrix<float> scales{1, blocks, std::vector<float>(static_cast<std::size_t>(blocks))};
  {
    placed_matrix<B, T> from(backend, x);
    placed_matrix<B, std::uint8_t> to(backend, codes);
    placed_matrix<B, float> by(backend, scales);
    quantize(backend, from.view(), to.view(), by.view(), format);
    const view<std::uint8_t> done = to.get();
    const view<float> largest = by.get();
    codes.data.assign(done.data, done.data + x.cols), scales.data.assign(largest.data, largest.data + blocks);
  }
  matrix<T> y = values_of<T>(backend, format, codes, scales);
  json numbers = json::array();
  for (const std::uint8_t code : codes.data) numbers.push_back(number_of(code, format.map));
  if (c.contains("Y")) {
    out.error = std::max(distance(y.view(), row_of<double>("Y", c.at("Y"))),
                         distance(scales.view(), row_of<double>("absmax", member(c, "absmax"))));
    if (numbers != member(c, "codes")) out.error = std::numeric_limits<double>::infinity();
  }
  out.computed["codes"] = numbers, out.computed["absmax"] = json_of(scales.view())[0];
  out.computed["Y"] = json_of(y.view())[0];
}

// The values of a map in their order, times `scale`.
template <class T, class B>
void table_of(B& backend, code_map map, float scale, settings_reader& s, const json& c, outcome& out) {
  s.finish();
  std::vector<std::uint8_t> codes;
  for (int n = 0; n < 256; ++n)
    if (map == code_map::dynamic || (n & 0x7f) != 0x7f) codes.push_back(static_cast<std::uint8_t>(n));
  if (map == code_map::e4m3) std::erase(codes, std::uint8_t{0x80});  // a second zero
  std::sort(codes.begin(), codes.end(), [&](auto a, auto b) { return number_of(a, map) < number_of(b, map); });
  const auto count = static_cast<index_t>(codes.size());
  matrix<T> y = values_of<T>(backend, {map, count}, {1, count, codes}, {1, 1, {scale}});
  if (c.contains("Y")) out.error = distance(y.view(), row_of<double>("Y", c.at("Y")));
  out.computed["Y"] = json_of(y.view())[0];
}

}  // namespace

template <class B, class T>
void add_functions(rule_table<B, T>& table) {
  table.compute("coefficient_report", [](B&, settings_reader& s, const json& c, outcome& out) { report(s, c, out); });
  table.compute("blockwise_quantize",
                [](B& b, settings_reader& s, const json& c, outcome& out) { quantize_blocks<T>(b, s, c, out); });
  table.compute("dynamic_code", [](B& b, settings_reader& s, const json& c, outcome& out) {
    table_of<T>(b, code_map::dynamic, 1, s, c, out);
  });
  table.compute("e4m3_code", [](B& b, settings_reader& s, const json& c, outcome& out) {
    table_of<T>(b, code_map::e4m3, 448, s, c, out);
  });
}

REPLAY_INSTANTIATE_RULES(add_functions);

}  // namespace replay
