// Plots for the report's page, drawn by gnuplot as SVG that needs no network.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace small_gpt {

struct plot_point {
  double x, y;
  double low = 0, high = 0;  // of an error bar, if the series has them
};

// One curve of a plot: its name, which is in the key unless it is empty, and its points.
struct series {
  std::string name;
  std::vector<plot_point> points;
  std::size_t dash = 0;  // 0: a solid line; then dashed, dotted, ...
  std::size_t color = 0;
  bool bars = false;    // error bars from low to high
  bool sample = false;  // no curve: an entry of the key that shows what a dash means
};

struct panel {
  std::string title;
  std::vector<series> curves;
};

// Throws an error that names the package if gnuplot cannot be run; called before the work begins.
void require_gnuplot();

// The panels beside and below each other, `columns` of them in a row, under one key; gnuplot's `commands` come before.
// Empty if there is no point to plot.
std::string svg_plot(const std::string& commands, const std::vector<panel>& panels, std::size_t columns = 1);

// The picture as an <img> element that holds it.
std::string image(const std::string& svg);

}  // namespace small_gpt
