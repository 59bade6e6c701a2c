#include "plot.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "files.hpp"

namespace small_gpt {

namespace {

// An empty file with a name of its own, for as long as this lives.
class temporary_file {
 public:
  temporary_file() : path_((std::filesystem::temp_directory_path() / "small_gpt-XXXXXX").string()) {
    const int descriptor = ::mkstemp(path_.data());
    if (descriptor < 0) throw matopt::bad_file("cannot write \"" + path_ + "\": " + std::strerror(errno));
    ::close(descriptor);
  }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

void require_gnuplot() {
  std::FILE* pipe = ::popen("gnuplot --version >/dev/null 2>&1", "r");
  if (!pipe || ::pclose(pipe) != 0)
    throw matopt::error("compare draws its plots with gnuplot, which cannot be run; Debian package: gnuplot-nox");
}

std::string plot(const std::string& commands, const std::vector<series>& given) {
  std::vector<series> all;  // those with a point: gnuplot stops at a plot of nothing
  for (series line : given) {
    std::erase_if(line.points, [](const auto& p) { return !std::isfinite(p.first) || !std::isfinite(p.second); });
    if (!line.points.empty()) all.push_back(std::move(line));
  }
  if (all.empty()) return "<p>There is nothing to plot.</p>";
  const temporary_file picture;
  std::ostringstream script;
  script
      << "set terminal svg size 620,400 font 'sans-serif,13' background '#ffffff'\nset output '" << picture.path()
      << "'\n"
      << "set grid lc '#dddddd'\nset border lc '#888888'\nset key outside bottom center horizontal noenhanced\nset "
         "tics nomirror\nset tics font ',11'\n"
      << "array color[8] = ['#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#17becf', '#8c564b', '#7f7f7f']\n";
  for (std::size_t i = 0; i < all.size(); ++i) {
    script << "$d" << i << " << EOD\n";
    for (const auto& [x, y] : all[i].points) script << x << ' ' << y << '\n';
    script << "EOD\n";
  }
  script << commands << "\nplot ";
  for (std::size_t i = 0; i < all.size(); ++i)
    script << (i ? ", " : "") << "$d" << i << " with "
           << (all[i].points.size() > 12 ? "lines" : "linespoints pt 7 ps 0.5") << " lw 2 dt "
           << (all[i].dashed ? 2 : 1) << " lc rgb color[" << all[i].color % 8 + 1 << "] title '" << all[i].name << "'";
  script << '\n';

  std::FILE* pipe = ::popen("gnuplot 2>&1 >/dev/null", "w");
  if (!pipe) throw matopt::error("cannot run gnuplot");
  std::fputs(script.str().c_str(), pipe);
  if (::pclose(pipe) != 0) throw matopt::error("gnuplot failed on a plot of the report");
  const std::string svg = read_file(picture.path());

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
