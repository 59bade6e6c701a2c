#include "toml.hpp"

#include "files.hpp"
#ifdef SMALL_GPT_TOML
#include <toml++/toml.h>
#endif

namespace small_gpt {

#ifdef SMALL_GPT_TOML

namespace {

nlohmann::json as_json(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    auto out = nlohmann::json::object();
    for (const auto& [key, value] : *table) out[std::string(key.str())] = as_json(value);
    return out;
  }
  if (const auto* array = node.as_array()) {
    auto out = nlohmann::json::array();
    for (const auto& value : *array) out.push_back(as_json(value));
    return out;
  }
  if (const auto* text = node.as_string()) {
    if (text->get().find('\0') != std::string::npos)
      throw matopt::bad_file("line " + std::to_string(node.source().begin.line) +
                             ": a text with a NUL character, which no name of a file has");
    return text->get();
  }
  if (const auto* whole = node.as_integer()) return whole->get();
  if (const auto* number = node.as_floating_point()) return number->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  throw matopt::bad_file("line " + std::to_string(node.source().begin.line) + ": dates and times mean nothing here");
}

}  // namespace

nlohmann::json read_toml(const std::string& path) {
  const std::string text = read_file(path);
  try {
    return as_json(toml::parse(text, path));
  } catch (const toml::parse_error& e) {
    const auto& at = e.source().begin;
    throw matopt::bad_file("\"" + path + "\", line " + std::to_string(at.line) + ", column " +
                           std::to_string(at.column) + ": " + std::string(e.description()));
  } catch (const matopt::bad_file& e) {
    throw matopt::bad_file("\"" + path + "\", " + e.what());
  }
}

#else

nlohmann::json read_toml(const std::string& path) {
  throw matopt::error(
      "cannot read \"" + path +
      "\": this small_gpt was built without toml++, and has no sweeps; Debian package: libtomlplusplus-dev");
}

#endif

}  // namespace small_gpt
