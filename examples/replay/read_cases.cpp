// The cases of a golden file.
#include <fstream>
#include <matopt/core/error.hpp>

#include "case.hpp"

namespace replay {

using matopt::bad_file, matopt::bad_value;
using nlohmann::json;

std::vector<json> read_cases(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw bad_file(path + ": cannot be read");
  json file;
  try {
    file = json::parse(in);
  } catch (const json::parse_error& e) {
    throw bad_file(path + ": " + e.what());
  }
  if (!file.is_object() || !file.contains("cases") || !file.at("cases").is_array())
    throw bad_file(path + ": has no list \"cases\"");
  if (file.contains("format") && file.at("format") != 1)
    throw bad_value("format of " + path, file.at("format").dump(), "1");
  return file.at("cases").get<std::vector<json>>();
}

}  // namespace replay
