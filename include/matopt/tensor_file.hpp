// tensor_file: named tensors and text in a safetensors file (github.com/huggingface/safetensors), read and written
// whole.
//
//   tensor_file f;
//   f.tensors["w"] = {element_type::f32, {2, 3}, bytes};     f.metadata["note"] = "any text in UTF-8";
//   f.save("f.safetensors");                                 f = tensor_file::load("f.safetensors");
//
// save() replaces a file as a whole or not at all (io/atomic_file.hpp), and writes a checksum of every tensor and of
// every piece of metadata (io/checksums.hpp). load() verifies them; a file without any is another program's, or of
// matopt 0.1, and `note` then says that it could not be verified. Everything that safetensors does not allow is
// refused: names that occur twice, holes, overlaps and bytes behind the tensors, headers above 100 MB; memory is
// bounded by a multiple of the file's size. Types F32, F64, BF16, F16, I8, U8, F8_E4M3. Needs nlohmann_json. Errors:
// bad_file, naming the file and what is wrong with it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/extent.hpp"
#include "core/types.hpp"
#include "core/utf8.hpp"
#include "io/atomic_file.hpp"
#include "io/checksums.hpp"
#include "io/regular_file.hpp"

namespace MATOPT_NAMESPACE {

class tensor_file {
 public:
  struct tensor {
    element_type type = element_type::f32;
    std::vector<index_t> shape;
    std::vector<std::byte> data;  // dense, row-major, little-endian
  };

  std::map<std::string, tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string note{};  // set by load(): what it could not verify; empty if it verified everything

  static constexpr std::uint64_t largest_header = 100'000'000;  // bytes; what other readers take

  void save(const std::string& path) const {
    using nlohmann::json;
    check_saveable(path);
    detail::checksums sums;
    for (const auto& [key, text] : metadata) sums.metadata[key] = detail::checksums::of(text);
    json header = json::object();
    std::size_t offset = 0;
    for (const auto& [name, t] : tensors) {
      header[name] = {
          {"dtype", name_of(t.type)}, {"shape", t.shape}, {"data_offsets", {offset, offset + t.data.size()}}};
      offset += t.data.size();
      sums.tensors[name] = detail::checksums::of(t.type, t.shape, t.data);
    }
    std::map<std::string, std::string> with_sums = metadata;
    sums.store(with_sums);
    header[metadata_key] = with_sums;
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = text.size();
    if (length > largest_header)
      throw bad_file("cannot write \"" + path + "\": a header of " + std::to_string(length) + " bytes; legal: up to " +
                     std::to_string(largest_header));

    atomic_file out(path);
    out.write(&length, sizeof length);
    out.write(text.data(), text.size());
    for (const auto& [name, t] : tensors) out.write(t.data.data(), t.data.size());
    out.commit();
  }

  static tensor_file load(const std::string& path) {
    const regular_file in(path);
    try {
      return read(in);
    } catch (const broken& e) {
      throw bad_file("\"" + path + "\" is not a whole safetensors file: " + e.what());
    } catch (const std::bad_alloc&) {
      throw bad_file("cannot read \"" + path + "\": its " + std::to_string(in.size()) +
                     " bytes do not fit into memory");
    } catch (const std::length_error&) {
      throw bad_file("cannot read \"" + path + "\": its " + std::to_string(in.size()) +
                     " bytes do not fit into memory");
    }
  }

 private:
  static constexpr const char* metadata_key = "__metadata__";
  static constexpr int deepest_header = 16;  // levels of brackets; three are used

  struct broken : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  struct place {  // of a tensor, in bytes behind the header
    std::uint64_t begin, end;
    std::string name;
    bool operator<(const place& other) const { return std::tie(begin, end) < std::tie(other.begin, other.end); }
  };

  static tensor_file read(const regular_file& in) {
    unsigned char length_bytes[8];
    if (in.size() < 8) throw broken("it is shorter than its 8-byte length field");
    in.read(0, length_bytes, 8);
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8U | length_bytes[i];
    if (length > in.size() - 8 || length > largest_header)
      throw broken("a header of " + std::to_string(length) + " bytes in a file of " + std::to_string(in.size()) +
                   "; legal: up to " + std::to_string(largest_header) + " bytes");
    std::string text(length, '\0');
    in.read(8, text.data(), text.size());

    tensor_file file;
    std::vector<place> places = file.read_header(text);
    std::sort(places.begin(), places.end());
    std::uint64_t at = 0;
    for (const place& p : places) {
      if (p.begin != at)
        throw broken(quoted(p.name) + (p.begin < at ? " overlaps another tensor" : " leaves a hole before it"));
      at = p.end;
    }
    if (const std::uint64_t body = in.size() - 8 - length; at != body)
      throw broken("tensors of " + std::to_string(at) + " bytes in " + std::to_string(body) +
                   (at < body ? " bytes behind the header" : " bytes; it is cut off"));

    const auto sums = detail::checksums::take<broken>(file.metadata);
    if (!sums) file.note = "the file has no checksums, so its contents are not verified";
    if (sums) verify(sums->metadata, file.metadata, "metadata", [](const auto& t) { return detail::checksums::of(t); });
    for (const place& p : places) {
      auto& data = file.tensors.at(p.name).data;
      data.resize(p.end - p.begin);
      in.read(8 + length + p.begin, data.data(), data.size());
    }
    if (sums)
      verify(sums->tensors, file.tensors, "tensor",
             [](const tensor& t) { return detail::checksums::of(t.type, t.shape, t.data); });
    return file;
  }

  // Entries of the header one by one, as they are parsed: the first that is wrong ends it.
  std::vector<place> read_header(const std::string& text) {
    using nlohmann::json;
    using event = json::parse_event_t;
    // The parser would skip a byte order mark, and take a null character for the end.
    if (text.empty() || text.front() != '{') throw broken("its header does not begin with {");
    if (text.find('\0') != std::string::npos) throw broken("its header holds a null character");
    std::vector<place> places;
    std::string name;
    std::set<std::string> names, keys;
    const auto take = [&](int depth, event what, json& parsed) {
      if (depth > deepest_header) throw broken("its header is nested too deeply");
      if (depth == 1 && what == event::key) {
        name = parsed.get<std::string>(), keys.clear();
        if (!names.insert(name).second) throw broken(quoted(name) + " occurs twice");
      } else if (depth == 2 && what == event::key) {
        if (!keys.insert(parsed.get<std::string>()).second) throw broken("entry " + quoted(name) + " has a key twice");
      } else if (depth == 1 && (what == event::object_end || what == event::array_end || what == event::value)) {
        read_entry(name, parsed, places);
        return false;  // it is not needed any more
      }
      return true;
    };
    try {
      if (!json::parse(text, take).is_object()) throw broken("its header is not an object");
    } catch (const json::parse_error& e) {
      throw broken("its header is not JSON at byte " + std::to_string(e.byte));
    } catch (const json::exception&) {
      throw broken("its header has a number too large");
    }
    return places;
  }

  void read_entry(const std::string& name, const nlohmann::json& entry, std::vector<place>& places) {
    const auto malformed = [&](const char* what) {
      return broken(std::string(what) + " of " + quoted(name) + " is malformed");
    };
    if (name == metadata_key) {
      if (entry.is_null()) return;
      if (!entry.is_object()) throw malformed("the entry");
      for (const auto& [key, text] : entry.items()) {
        if (!text.is_string()) throw broken("metadata " + quoted(key) + " is not text");
        metadata[key] = text.get<std::string>();
      }
      return;
    }
    const auto member = [&](const char* key, bool right) -> const nlohmann::json& {
      if (!right) throw malformed(key);
      return entry.at(key);
    };
    const auto is = [&](const char* key, bool (nlohmann::json::*kind)() const noexcept) {
      return entry.is_object() && entry.contains(key) && (entry.at(key).*kind)();
    };
    using json = nlohmann::json;
    const auto dtype = member("dtype", is("dtype", &json::is_string)).get<std::string>();
    const json& shape = member("shape", is("shape", &json::is_array));
    const json& offsets = member("data_offsets", is("data_offsets", &json::is_array));
    tensor t{type_named(name, dtype), {}, {}};
    index_t bytes = static_cast<index_t>(size_of(t.type));
    for (const auto& n : shape) {
      if (!n.is_number_unsigned() || n.get<std::uint64_t>() >= static_cast<std::uint64_t>(detail::largest_index))
        throw malformed("shape");
      t.shape.push_back(n.get<index_t>());
      bytes = detail::product(bytes, t.shape.back());
      if (bytes == detail::largest_index) throw broken("shape of " + quoted(name) + " is impossible");
    }
    if (offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      throw malformed("data_offsets");
    const auto begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
    if (begin > end || end - begin != static_cast<std::uint64_t>(bytes))
      throw broken("offsets of " + quoted(name) + " do not fit its shape");
    places.push_back({begin, end, name});
    tensors.emplace(name, std::move(t));
  }

  // Every entry has its checksum, and every checksum its entry.
  template <class Entries, class Sum>
  static void verify(const std::map<std::string, std::string>& sums, const Entries& entries, const char* what,
                     Sum sum) {
    for (const auto& [name, entry] : entries) {
      const auto at = sums.find(name);
      if (at == sums.end()) throw broken(std::string(what) + ' ' + quoted(name) + " has no checksum");
      if (at->second != sum(entry))
        throw broken(std::string(what) + ' ' + quoted(name) + " is damaged: its checksum is " + sum(entry) +
                     ", the file says " + quoted(at->second));
    }
    for (const auto& [name, unused] : sums)
      if (!entries.contains(name)) throw broken(std::string(what) + ' ' + quoted(name) + " is missing");
  }

  void check_saveable(const std::string& path) const {
    const auto refuse = [&](const std::string& why) { throw bad_file("cannot write \"" + path + "\": " + why); };
    const auto name = [&](const char* what, const std::string& text) {
      if (!detail::is_utf8(text)) refuse(std::string(what) + " \"" + detail::escaped(text) + "\" is not UTF-8");
    };
    for (const auto& [key, text] : metadata) {
      name("metadata key", key), name(("metadata " + key + ":").c_str(), text);
      if (detail::checksums::reserves(key)) refuse("metadata key \"" + key + "\" is written by save() itself");
    }
    for (const auto& [key, t] : tensors) {
      name("tensor name", key);
      if (key == metadata_key) refuse("no tensor may have the name \"" + key + '"');
      index_t bytes = static_cast<index_t>(size_of(t.type));
      for (const index_t n : t.shape) bytes = n < 0 ? detail::largest_index : detail::product(bytes, n);
      if (static_cast<std::size_t>(bytes) != t.data.size())
        refuse("tensor \"" + key + "\" has " + std::to_string(t.data.size()) + " bytes, its shape another number");
    }
  }

  static element_type type_named(const std::string& tensor, const std::string& name) {
    for (const element_type t : element_types)
      if (name == name_of(t)) return t;
    throw broken("element type of " + quoted(tensor) + " is " + quoted(name) +
                 "; legal: F32, F64, BF16, F16, I8, U8, F8_E4M3");
  }
  static std::string quoted(const std::string& text) { return '"' + detail::escaped(text) + '"'; }
};

}  // namespace MATOPT_NAMESPACE
