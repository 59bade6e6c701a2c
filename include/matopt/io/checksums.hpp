// The checksums of a tensor_file, kept in its metadata under two keys:
//
//   matopt.format_version   "1"
//   matopt.crc32c           {"metadata": {"<key>": "<8 hex digits>", ...},
//                            "tensors": {"<name>": "<8 hex digits>", ...}}
//
// That of a piece of metadata is the CRC-32C of its text. That of a tensor is the CRC-32C of its type and shape as
// text, "F32[2,3]", followed by its data. The two keys are there together, and the table names everything in the file:
// a change of any bit that changes what the file says is noticed.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "../core/error.hpp"
#include "../core/index.hpp"
#include "../core/types.hpp"
#include "../core/utf8.hpp"
#include "crc32c.hpp"

namespace MATOPT_NAMESPACE::detail {

struct checksums {
  static constexpr const char* version_key = "matopt.format_version";
  static constexpr const char* table_key = "matopt.crc32c";
  static constexpr const char* version = "1";

  std::map<std::string, std::string> metadata, tensors;

  static bool reserves(const std::string& key) { return key == version_key || key == table_key; }

  static std::string of(const std::string& text) { return digits(crc32c(text.data(), text.size())); }
  static std::string of(element_type type, const std::vector<index_t>& shape, const std::vector<std::byte>& data) {
    std::string head(name_of(type));
    head += '[';
    for (const index_t n : shape) head += (head.back() == '[' ? "" : ",") + std::to_string(n);
    head += ']';
    return digits(crc32c(data.data(), data.size(), crc32c(head.data(), head.size())));
  }

  void store(std::map<std::string, std::string>& in) const {
    in[version_key] = version;
    in[table_key] = nlohmann::json{{"metadata", metadata}, {"tensors", tensors}}.dump();
  }
  // Takes them out of the metadata; none if the file has none. Throws what is wrong with them.
  template <class Broken>
  static std::optional<checksums> take(std::map<std::string, std::string>& from) {
    const auto version_at = from.find(version_key), table_at = from.find(table_key);
    if (version_at == from.end() && table_at == from.end()) return {};
    if (version_at == from.end()) throw Broken(std::string("it has checksums but no \"") + version_key + '"');
    if (version_at->second != version)
      throw Broken(std::string(version_key) + " is \"" + escaped(version_at->second) + "\"; legal: " + version);
    if (table_at == from.end()) throw Broken(std::string("its checksums, \"") + table_key + "\", are missing");
    checksums sums;
    try {
      const auto table = nlohmann::json::parse(table_at->second);
      table.at("metadata").get_to(sums.metadata);
      table.at("tensors").get_to(sums.tensors);
    } catch (const nlohmann::json::exception&) {
      throw Broken(std::string("its checksums, \"") + table_key + "\", are malformed");
    }
    from.erase(version_at), from.erase(table_at);
    return sums;
  }

 private:
  static std::string digits(std::uint32_t x) {
    std::string out;
    for (unsigned shift = 32; shift > 0; shift -= 4) out += "0123456789abcdef"[(x >> (shift - 4)) & 15U];
    return out;
  }
};

}  // namespace MATOPT_NAMESPACE::detail
