// What the benchmark programs' command lines have beside Google Benchmark's own options.
//
//   --quick            a selection that takes a minute or two (the default)
//   --all              everything
//   --threads=N        of the CPU backend; 0, the default, asks for one per core
//   --pin              on the CPU: the main thread has one core, all others, also the peers', the rest (Linux)
//   --most-seconds=S   leave out what is expected to take longer than this for one run (default 1; with --all 30)
//   --shapes=LIST      of orthogonalizers_bench, in place of its own: matrices x rows x columns, such as
//                      48x768x768,1x4096x4096; --shapes LIST will do, too
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <matopt/core/error.hpp>
#include <string>
#include <vector>

namespace bench {

struct options {
  bool all = false, pin = false;
  int threads = 0;
  double most_seconds = 0;
  std::vector<std::array<std::int64_t, 3>> shapes;
};

inline options& chosen() {
  static options o;
  return o;
}

// "2x3x4,1x5x6"
inline std::vector<std::array<std::int64_t, 3>> parse_shapes(const std::string& list) {
  std::vector<std::array<std::int64_t, 3>> out;
  std::size_t at = 0;
  const auto number = [&](char end) {
    std::int64_t n = 0;
    for (; at < list.size() && list[at] >= '0' && list[at] <= '9' && n < 1000000; ++at) n = 10 * n + (list[at] - '0');
    const bool closed = at == list.size() ? end == ',' : list[at] == end;
    if (n < 1 || n > 1000000 || !closed)
      throw matopt::bad_value(
          "--shapes", '"' + list + '"',
          "matrices x rows x columns, each 1 to 1000000, with commas between: 48x768x768,1x4096x4096");
    ++at;
    return n;
  };
  while (at <= list.size()) {
    const std::int64_t batch = number('x'), rows = number('x'), cols = number(',');
    out.push_back({batch, rows, cols});
  }
  return out;
}

// Takes its options out of the command line.
inline void take_options(int& argc, char** argv) {
  options& o = chosen();
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--all")
      o.all = true;
    else if (argument == "--quick")
      o.all = false;
    else if (argument == "--pin")
      o.pin = true;
    else if (argument.starts_with("--threads="))
      o.threads = std::stoi(argument.substr(10));
    else if (argument.starts_with("--most-seconds="))
      o.most_seconds = std::stod(argument.substr(15));
    else if (argument.starts_with("--shapes="))
      o.shapes = parse_shapes(argument.substr(9));
    else if (argument == "--shapes")
      o.shapes = parse_shapes(++i < argc ? argv[i] : "");
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  if (o.most_seconds <= 0) o.most_seconds = o.all ? 30 : 1;
}

}  // namespace bench
