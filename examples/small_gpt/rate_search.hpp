// Looks for the rate with the least loss: by steps of a factor until the best rate has a worse one on both sides, then
// by golden sections of the wider side, on the logarithm of the rate. It keeps no state: the next rate is a function of
// the losses so far, so that a search continues wherever it was stopped.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>

namespace small_gpt {

struct rate_search {
  double start = 0;    // the first rate
  double step = 2;     // factor between the first rates
  double width = 1.4;  // the search ends when the best rate has a neighbour within this factor on both sides
  double low = 1e-38, high = 1e31;  // about what a float can hold

  // With three digits, as people write them.
  static double rounded(double rate) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", rate);
    return std::strtod(text, nullptr);
  }

  // `losses` by rate; infinity if the run diverged. Nothing if the search has ended.
  std::optional<double> next(const std::map<double, double>& losses) const {
    if (losses.empty()) return std::clamp(rounded(start), low, high);
    // Of equal losses the lowest rate: if all runs diverged, the search goes down.
    const auto best = std::min_element(losses.begin(), losses.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    const double rate = best->first;
    const bool hopeless = std::isinf(best->second);
    // Where a dozen runs have found no end, as when training changes nothing, there is none to be found.
    const auto outwards = [&](double to) {
      return losses.size() > 12 || losses.contains(to) ? std::nullopt : std::optional(to);
    };
    double below = 1, above = 1;  // the factors to the neighbours; 1: there is none, nor can there be one
    if (best != losses.begin())
      below = rate / std::prev(best)->first;
    else if (rate > low)
      return outwards(std::max(rounded(rate / step), low));
    if (hopeless) return {};
    if (std::next(best) != losses.end())
      above = std::next(best)->first / rate;
    else if (rate < high)
      return outwards(std::min(rounded(rate * step), high));
    if (std::max(below, above) <= width) return {};
    const double section = (3 - std::sqrt(5.0)) / 2;
    const double found = rounded(below > above ? rate * std::pow(below, -section) : rate * std::pow(above, section));
    return losses.contains(found) ? std::nullopt : std::optional(found);  // finer than three digits
  }
};

}  // namespace small_gpt
