#include "size_curves.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "analysis.hpp"

namespace small_gpt {

using nlohmann::json;

namespace {

// Within the range of the curve.
double at(const size_curve& c, double bytes) {
  const auto after = std::find_if(c.points.begin(), c.points.end(), [&](const auto& p) { return p.bytes >= bytes; });
  if (after == c.points.end()) return c.points.back().loss.median;
  if (after == c.points.begin() || after->bytes == bytes) return after->loss.median;
  const auto before = std::prev(after);
  const double part = (bytes - before->bytes) / (after->bytes - before->bytes);
  return before->loss.median + part * (after->loss.median - before->loss.median);
}

}  // namespace

bool in_bits_per_byte(const summary& s) {
  return std::all_of(s.runs.begin(), s.runs.end(),
                     [](const auto& r) { return r.diverged() || std::isfinite(r.record.bits_per_nat()); });
}

std::vector<int> stored_bits(const summary& s) {
  std::set<int, std::greater<>> found;
  for (const auto& r : s.runs)
    if (r.analysis.is_object())
      for (const json& e : r.analysis.value("compressed", json::array())) found.insert(bits_of(e));
  return {found.begin(), found.end()};
}

std::string bits_label(const summary& s, int bits) {
  return stored_bits(s) == std::vector{32} ? std::string() : ", " + std::to_string(bits) + " bits";
}

std::vector<size_curve> size_curves(const summary& s, const std::string& method, int bits) {
  const bool per_byte = in_bits_per_byte(s);
  std::vector<size_curve> curves;
  for (std::size_t i = 0; i < s.configurations.size(); ++i) {
    const auto& c = s.configurations[i];
    const json& example = s.runs[c.example].analysis;
    std::map<double, std::pair<std::vector<double>, std::vector<double>>> found;  // bytes and losses, by keep
    for (const std::size_t run : c.rates[c.best].runs) {
      const json& a = s.runs[run].analysis;
      if (s.runs[run].diverged() || !a.is_object() || !a.contains("compressed")) continue;
      if (!example.is_object() || a.at("keep") != example.at("keep")) continue;
      if (a.value("entropy", false) != example.value("entropy", false)) continue;
      const double unit = per_byte ? s.runs[run].record.bits_per_nat() : 1;
      const auto take = [&](double keep, double bytes, const json& loss) {
        if (!loss.is_number()) return;
        found[keep].first.push_back(bytes);
        found[keep].second.push_back(unit * loss.get<double>());
      };
      if (bits == 32) take(1, a.at("dense").at("bytes").get<double>(), a.at("dense").at("loss"));
      for (const json& e : a.at("compressed"))
        if (bits_of(e) == bits && (bits != 32 || e.at("keep") < 1))
          take(e.at("keep").get<double>(), bytes_of(e, method), e.value(method, json()));
    }
    size_curve curve{i, {}};
    for (const auto& [keep, values] : found)
      curve.points.push_back({summary::spread::of(values.first).median, keep, summary::spread::of(values.second)});
    std::sort(curve.points.begin(), curve.points.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    if (curve.points.size() > 1) curves.push_back(std::move(curve));
  }
  return curves;
}

std::vector<size_crossing> crossings(const std::vector<size_curve>& curves) {
  if (curves.size() < 2) return {};
  double least = 0, most = std::numeric_limits<double>::infinity();
  std::set<double, std::greater<>> sizes;
  for (const size_curve& c : curves) {
    least = std::max(least, c.points.front().bytes), most = std::min(most, c.points.back().bytes);
    for (const auto& p : c.points) sizes.insert(p.bytes);
  }
  // Between two sizes all curves are straight: of those that the leader meets there, the nearest one takes over.
  std::vector<size_crossing> found;
  const size_curve* leader = nullptr;
  double from = most;
  for (const double to : sizes) {
    if (to > most || to < least) continue;
    if (!leader)
      leader = &*std::min_element(curves.begin(), curves.end(),
                                  [&](const auto& a, const auto& b) { return at(a, to) < at(b, to); });
    for (;;) {
      const size_curve* next = nullptr;
      double where = to, steepest = 0;
      for (const size_curve& c : curves) {
        const double lead = at(c, from) - at(*leader, from), end = at(c, to) - at(*leader, to);
        if (&c == leader || !(end < 0)) continue;
        const double x = from + (to - from) * std::max(0.0, lead) / (std::max(0.0, lead) - end);
        if (!next || x > where || (x == where && end < steepest)) next = &c, where = x, steepest = end;
      }
      if (!next) break;
      found.push_back({leader->configuration, next->configuration, where});
      leader = next, from = where;
    }
    from = to;
  }
  return found;
}

}  // namespace small_gpt
