// The name of this machine's processor, for logs and reports.
#pragma once
#include <fstream>
#include <string>

namespace small_gpt {

inline std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

}  // namespace small_gpt
