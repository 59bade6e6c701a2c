// Plots for the report's page, drawn by gnuplot.
#pragma once
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace small_gpt {

// One curve of a plot: its name and its points.
struct series {
  std::string name;
  std::vector<std::pair<double, double>> points;
  bool dashed = false;
  std::size_t color = 0;
};

// Throws an error that names the package if gnuplot cannot be run; called before the training begins.
void require_gnuplot();

// Runs gnuplot on `commands` and the series as data blocks; returns the picture as an <img> element.
std::string plot(const std::string& commands, const std::vector<series>& all);

}  // namespace small_gpt
