// tensor_file: named tensors and text in a safetensors file (github.com/huggingface/safetensors), read and written
// whole.
//
// Written atomically: to a temporary file beside the target, flushed to the disk, then renamed over it, so that a full
// disk or a crash leaves the previous file as it was. Read with every offset checked. Types F32, F64, BF16. Needs
// nlohmann_json. Errors: bad_file, naming the file and what is wrong with it.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/types.hpp"

namespace matopt {

class tensor_file {
 public:
  struct tensor {
    element_type type = element_type::f32;
    std::vector<index_t> shape;
    std::vector<std::byte> data;  // dense, row-major, little-endian
  };

  std::map<std::string, tensor> tensors;
  std::map<std::string, std::string> metadata;

  void save(const std::string& path) const {
    using nlohmann::json;
    json header = json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::size_t offset = 0;
    for (const auto& [name, t] : tensors) {
      header[name] = {
          {"dtype", name_of(t.type)}, {"shape", t.shape}, {"data_offsets", {offset, offset + t.data.size()}}};
      offset += t.data.size();
    }
    std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = text.size();

    const temporary out(path);
    out.write(&length, sizeof length);
    out.write(text.data(), text.size());
    for (const auto& [name, t] : tensors) out.write(t.data.data(), t.data.size());
    out.commit();
  }

  static tensor_file load(const std::string& path) {
    using nlohmann::json;
    const auto broken = [&](const std::string& why) {
      return bad_file("\"" + path + "\" is not a whole safetensors file: " + why);
    };
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    if (!in) throw bad_file("cannot read \"" + path + "\": " + std::strerror(errno));
    const auto end = in.tellg();
    if (end < 0) throw bad_file("cannot read \"" + path + "\": not a regular file");
    const auto size = static_cast<std::uint64_t>(end);
    in.seekg(0);
    std::uint64_t length = 0;
    if (size < 8 || !in.read(reinterpret_cast<char*>(&length), 8)) throw broken("shorter than its 8-byte length field");
    if (length > size - 8)
      throw broken("header of " + std::to_string(length) + " bytes in a file of " + std::to_string(size));
    std::string text(length, '\0');
    in.read(text.data(), static_cast<std::streamsize>(length));
    const json header = json::parse(text, nullptr, false);
    if (!header.is_object()) throw broken("its header is not JSON");

    const std::uint64_t body = size - 8 - length;
    tensor_file file;
    for (const auto& [name, entry] : header.items()) try {
        if (name == "__metadata__") {
          file.metadata = entry.get<std::map<std::string, std::string>>();
          continue;
        }
        tensor t{type_named(entry.at("dtype").get<std::string>()), entry.at("shape").get<std::vector<index_t>>(), {}};
        const auto begin = entry.at("data_offsets").at(0).get<std::uint64_t>(),
                   stop = entry.at("data_offsets").at(1).get<std::uint64_t>();
        std::uint64_t bytes = size_of(t.type);
        for (const index_t n : t.shape) {
          if (n < 0 || (n > 0 && bytes > body / static_cast<std::uint64_t>(n)))
            throw broken("shape of \"" + name + "\" is impossible");
          bytes *= static_cast<std::uint64_t>(n);
        }
        if (begin > stop || stop > body || stop - begin != bytes)
          throw broken("offsets of \"" + name + "\" do not fit");
        t.data.resize(bytes);
        in.seekg(static_cast<std::streamoff>(8 + length + begin));
        if (bytes > 0 && !in.read(reinterpret_cast<char*>(t.data.data()), static_cast<std::streamsize>(bytes)))
          throw broken("\"" + name + "\" is cut off");
        file.tensors.emplace(name, std::move(t));
      } catch (const json::exception&) {
        throw broken("entry \"" + name + "\" is malformed");
      }
    return file;
  }

 private:
  static element_type type_named(const std::string& name) {
    for (const element_type t : {element_type::f32, element_type::f64, element_type::bf16})
      if (name == name_of(t)) return t;
    throw bad_file("element type \"" + name + "\"; legal: F32, F64, BF16");
  }

  // A file beside `path` that takes its place on commit() and vanishes otherwise.
  class temporary {
   public:
    explicit temporary(const std::string& path) : path_(path), name_(path + ".tmp." + std::to_string(::getpid())) {
      descriptor_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
      if (descriptor_ < 0) fail("open");
    }
    temporary(const temporary&) = delete;
    temporary& operator=(const temporary&) = delete;
    ~temporary() {
      if (descriptor_ >= 0) ::close(descriptor_);
      if (!done_) ::unlink(name_.c_str());
    }
    void write(const void* data, std::size_t bytes) const {
      const char* p = static_cast<const char*>(data);
      while (bytes > 0) {
        const ssize_t n = ::write(descriptor_, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) fail("write");
        p += n, bytes -= static_cast<std::size_t>(n);
      }
    }
    void commit() const {
      if (::fsync(descriptor_) != 0) fail("flush");
      if (::rename(name_.c_str(), path_.c_str()) != 0) fail("rename");
      done_ = true;
      // The directory entry too must reach the disk; a file system that cannot do that has done what it can.
      const auto slash = path_.rfind('/');
      const int directory =
          ::open(slash == std::string::npos ? "." : path_.substr(0, slash + 1).c_str(), O_RDONLY | O_CLOEXEC);
      if (directory >= 0) {
        ::fsync(directory);
        ::close(directory);
      }
    }

   private:
    [[noreturn]] void fail(const char* what) const {
      const int code = errno;
      throw bad_file("cannot " + std::string(what) + " \"" + path_ + "\": " + std::strerror(code));
    }
    std::string path_, name_;
    int descriptor_ = -1;
    mutable bool done_ = false;
  };
};

}  // namespace matopt
