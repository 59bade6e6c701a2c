#include "plot.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "files.hpp"
#include "temporary_file.hpp"
#include "utf8.hpp"

namespace small_gpt {

void require_gnuplot() {
  std::FILE* pipe = ::popen("gnuplot --version >/dev/null 2>&1", "r");
  if (!pipe || ::pclose(pipe) != 0)
    throw matopt::error("the report draws its plots with gnuplot, which cannot be run; Debian package: gnuplot-nox");
}

namespace {

// A string of gnuplot.
std::string in_quotes(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? "''" : std::string(1, c);
  return out + "'";
}

std::vector<std::string> letters_of(const std::string& text) {
  std::vector<std::string> letters;
  for (std::size_t at = 0, n = 0; at < text.size(); at += n)
    letters.push_back(text.substr(at, n = character_length(text, at)));
  return letters;
}

// To so many letters at most: what is left out is in the middle, for names may begin alike or end alike.
std::string shortened(const std::string& text, std::size_t most) {
  const auto letters = letters_of(text);
  if (letters.size() <= most) return text;
  std::string out;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    if (i == most / 2) out += "\xe2\x80\xa6";  // an ellipsis
    if (i < most / 2 || i >= letters.size() - (most - most / 2 - 1)) out += letters[i];
  }
  return out;
}

std::string line_of(const series& s) {
  const std::string color = s.sample ? "'#000000'" : "color[" + std::to_string(s.color % 10 + 1) + "]";
  return " lw 2 dt " + std::to_string(s.dash % 5 + 1) + " lc rgb " + color;
}

std::string style_of(const series& s) {
  return (s.sample               ? "lines"
          : s.bars               ? "yerrorlines pt 7 ps 0.5"
          : s.points.size() > 12 ? "lines"
                                 : "linespoints pt 7 ps 0.5") +
         line_of(s);
}

// Commands that give an axis a range where all values on it are equal: gnuplot widens such a range itself, with a warning.
// Otherwise what the plot asked for stays.
std::string range_of_one_value(const char* axis, const std::vector<double>& values, bool logarithmic) {
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  if (*least != *greatest) return {};
  const double at = *least, half = at == 0 ? 1 : std::abs(at) / 2;
  if (logarithmic && !(at > 0)) return {};  // nothing to draw on such an axis
  std::ostringstream out;
  out << "set " << axis << "range [" << at - half << ':' << at + half << "]\n";
  return out.str();
}

// Of the points as gnuplot reads them, which are rounded.
std::string ranges(const std::string& commands, const panel& p) {
  std::vector<double> x, y;
  const auto read = [](double value) {
    std::ostringstream text;
    text << value;
    return std::strtod(text.str().c_str(), nullptr);
  };
  for (const series& s : p.curves)
    for (const auto& at : s.points) {
      x.push_back(read(at.x)), y.push_back(read(at.y));
      if (s.bars) y.push_back(read(at.low)), y.push_back(read(at.high));
    }
  std::erase_if(y, [](double value) { return !std::isfinite(value); });
  const auto has = [&](const char* text) { return commands.find(text) != std::string::npos; };
  return range_of_one_value("x", x, has("logscale x")) + (has("yrange [0:1]") || (has("yrange [0:*]") && y.front() != 0)
                                                              ? ""
                                                              : range_of_one_value("y", y, has("logscale y")));
}

}  // namespace

std::string svg_plot(const std::string& commands, const std::vector<panel>& given, std::size_t columns) {
  std::vector<panel> panels;  // with points that can be drawn: gnuplot stops at a plot of nothing
  for (const panel& p : given) {
    panel drawn{p.title, {}};
    for (series line : p.curves) {
      std::erase_if(line.points, [](const auto& at) { return !std::isfinite(at.x) || !std::isfinite(at.y); });
      if (!line.points.empty() || line.sample) drawn.curves.push_back(std::move(line));
    }
    if (!drawn.curves.empty()) panels.push_back(std::move(drawn));
  }
  if (panels.empty()) return {};
  columns = std::min(columns, panels.size());
  const std::size_t rows = (panels.size() + columns - 1) / columns;
  // The key of several panels is a row of its own below them.
  std::vector<const series*> key;
  for (const panel& p : panels)
    for (const series& s : p.curves)
      if (!s.name.empty() &&
          std::none_of(key.begin(), key.end(), [&](const series* known) { return known->name == s.name; }))
        key.push_back(&s);
  const bool several = panels.size() > 1;
  // As many columns as have room for the longest name beside the margins: gnuplot counts ten points for a letter, or a
  // little less.
  const std::size_t width = several ? 410 * columns : 620, most_letters = (width - 80) / 10;
  std::size_t longest = 1;
  for (const series* s : key) longest = std::max(longest, std::min(letters_of(s->name).size(), most_letters));
  const std::size_t key_columns = std::clamp<std::size_t>((width - 80) / (10 * longest + 40), 1, 4);
  const std::size_t key_rows = (key.size() + key_columns - 1) / key_columns;
  const std::size_t key_height = several ? 30 + 18 * key_rows : 0,
                    height = (several ? 265 * rows : 370 + 20 * key_rows) + key_height;

  const temporary_file picture;
  std::ostringstream script;
  script << "set terminal svg size " << width << ',' << height
         << " font 'sans-serif,13' background '#ffffff'\nset output " << in_quotes(picture.path())
         << "\nset grid lc '#cccccc' lw 0.7\nset border 3 lc '#666666'\nset tics nomirror font ',11'\nset key outside "
            "bottom "
            "center horizontal noenhanced maxcols "
         << key_columns << '\n'
         << "array color[10] = ['#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#17becf', '#8c564b', "
            "'#e377c2', '#7f7f7f', '#bcbd22']\n";
  std::size_t block = 0;
  for (const panel& p : panels)
    for (const series& s : p.curves) {
      script << "$d" << block++ << " << EOD\n";
      for (const auto& at : s.points) {
        script << at.x << ' ' << at.y;
        if (s.bars) script << ' ' << at.low << ' ' << at.high;
        script << '\n';
      }
      script << "EOD\n";
    }
  const double below = static_cast<double>(key_height) / static_cast<double>(height);
  if (several) script << "set multiplot\nunset key\n";
  block = 0;
  for (std::size_t i = 0; i < panels.size(); ++i) {
    if (several) {
      const double w = 1.0 / static_cast<double>(columns), h = (1 - below) / static_cast<double>(rows);
      script << "set size " << w << ',' << h << "\nset origin " << static_cast<double>(i % columns) * w << ','
             << 1 - static_cast<double>(i / columns + 1) * h << '\n';
    }
    script << "set xrange [*:*]\nset yrange [*:*]\n"
           << commands << '\n'
           << ranges(commands, panels[i]) << "set title " << in_quotes(panels[i].title) << " noenhanced\nplot ";
    for (std::size_t c = 0; c < panels[i].curves.size(); ++c) {
      const series& s = panels[i].curves[c];
      const std::string data = "$d" + std::to_string(block++);
      script << (c ? ", " : "") << (s.sample ? "NaN" : data) << " with " << style_of(s)
             << (s.name.empty() || several ? " notitle" : " title " + in_quotes(shortened(s.name, most_letters)));
    }
    script << '\n';
  }
  if (several && !key.empty()) {
    script << "set size 1," << below
           << "\nset origin 0,0\nunset title\nunset tics\nunset border\nunset xlabel\nunset "
              "ylabel\nunset grid\nunset logscale\nset xrange [0:1]\nset yrange [0:1]\nset lmargin 0\nset rmargin 0\n"
              "set tmargin 0\nset bmargin 0\nset key inside center center horizontal noenhanced maxcols "
           << key_columns << "\nplot ";
    bool first = true;
    for (const series* s : key) {
      script << (first ? "" : ", ") << "NaN with lines" << line_of(*s) << " title "
             << in_quotes(shortened(s->name, most_letters));
      first = false;
    }
    script << '\n';
  }
  if (several) script << "unset multiplot\n";

  std::FILE* pipe = ::popen("gnuplot 2>&1 >/dev/null | head -c 2000 >&2", "w");
  if (!pipe) throw matopt::error("cannot run gnuplot");
  std::fputs(script.str().c_str(), pipe);
  ::pclose(pipe);
  std::string svg = read_file(picture.path());
  if (svg.find("</svg>") == std::string::npos) throw matopt::error("gnuplot failed on a plot of the report");
  return svg;
}

std::string image(const std::string& svg) {
  if (svg.empty()) return "<p>There is nothing to plot.</p>";
  std::string out = "<img alt=\"plot\" src=\"data:image/svg+xml,";
  for (const char c : svg) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) || std::string("-_.~ =:/;,()").find(c) != std::string::npos) {
      out += c;
    } else {
      char code[8];
      std::snprintf(code, sizeof code, "%%%02X", u);
      out += code;
    }
  }
  return out + "\">";
}

}  // namespace small_gpt
