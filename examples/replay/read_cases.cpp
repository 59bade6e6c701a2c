// The cases of a golden file.
#include <fstream>
#include <matopt/core/error.hpp>

#include "case.hpp"

namespace replay {

using matopt::bad_file, matopt::bad_value;
using nlohmann::json;

namespace {

constexpr int deepest = 100;  // brackets; a case has six. What works on a value later goes into it recursively

}  // namespace

std::string label_of(const json& c) {
  for (const char* key : {"label", "rule"})
    if (c.is_object() && c.contains(key) && c.at(key).is_string()) return c.at(key).get<std::string>();
  return "?";
}

std::vector<json> read_cases(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw bad_file(path + ": cannot be read");
  json file;
  try {
    file = json::parse(in, [&](int depth, json::parse_event_t, const json&) {
      if (depth > deepest) throw bad_file(path + ": nested in more than " + std::to_string(deepest) + " brackets");
      return true;
    });
  } catch (const json::exception& e) {  // a syntax error, or a number too large for a double
    throw bad_file(path + ": " + std::string(e.what()).substr(0, 300));
  }
  if (!file.is_object() || !file.contains("cases") || !file.at("cases").is_array())
    throw bad_file(path + ": has no list \"cases\"");
  if (file.contains("format") && file.at("format") != 1)
    throw bad_value("format of " + path, file.at("format").dump(), "1");
  return file.at("cases").get<std::vector<json>>();
}

}  // namespace replay
