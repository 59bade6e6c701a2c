// What the benchmark programs' command lines have beside Google Benchmark's own options.
//
//   --quick            a selection that takes a minute or two (the default)
//   --all              everything
//   --threads=N        of the CPU backend; 0, the default, asks for one per core
//   --pin              on the CPU: the main thread has one core, all others, also the peers', the rest (Linux)
//   --most-seconds=S   leave out what is expected to take longer than this for one run (default 1; with --all 30)
#pragma once
#include <string>

namespace bench {

struct options {
  bool all = false, pin = false;
  int threads = 0;
  double most_seconds = 0;
};

inline options& chosen() {
  static options o;
  return o;
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
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  if (o.most_seconds <= 0) o.most_seconds = o.all ? 30 : 1;
}

}  // namespace bench
