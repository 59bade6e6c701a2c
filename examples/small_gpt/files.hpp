// Files named by the user: what may be read, what may be written, and how a name goes into JSON.
#pragma once
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "matopt/core/error.hpp"
#include "matopt/io/atomic_file.hpp"

namespace small_gpt {

// "a folder", "a FIFO", ...: what a path is, if it is there and no regular file; else nothing.
inline std::string other_than_file(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0 || S_ISREG(s.st_mode)) return {};
  return S_ISDIR(s.st_mode)    ? "a folder"
         : S_ISFIFO(s.st_mode) ? "a FIFO"
         : S_ISSOCK(s.st_mode) ? "a socket"
                               : "a device";
}

// A regular file as a whole. `advice` ends the error of one that cannot be read.
inline std::string read_file(const std::string& path, const std::string& advice = "") {
  const auto fail = [&](const std::string& why) {
    return matopt::bad_file("cannot read \"" + path + "\": " + why + advice);
  };
  if (const std::string kind = other_than_file(path); !kind.empty())
    throw fail("it is " + kind + "; a text file is needed");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw fail(std::strerror(errno));
  const auto size = file.tellg();
  if (size < 0) throw fail(std::strerror(errno));
  std::string text(static_cast<std::size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(text.data(), size))
    throw fail("it ended, or failed, after " + std::to_string(file.gcount()) + " bytes");
  return text;
}

// Throws if a file could not be put at `path`: better now than after the work.
inline void require_writable_file(const std::string& option, const std::string& path) {
  const auto fail = [&](const std::string& why) {
    return matopt::bad_file("cannot write " + option + " \"" + path + "\": " + why);
  };
  if (path.empty()) throw fail("the name is empty");
  if (const std::string kind = other_than_file(path); !kind.empty()) throw fail("it is " + kind);
  const auto folder = std::filesystem::path(path).parent_path();
  if (::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0)
    throw fail("its folder: " + std::string(std::strerror(errno)));
}

// Writes a whole file, or throws and leaves what was there.
inline void write_file(const std::string& path, std::string_view text) {
  matopt::atomic_file out(path);
  out.write(text.data(), text.size());
  out.commit();
}

// Tells one text from another: its length and its FNV-1a hash of 64 bits. Not meant to withstand an attack.
inline std::string digest_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  std::string out = "fnv1a64 ";
  for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[(hash >> shift) & 15U];
  return out + ", " + std::to_string(text.size()) + " bytes";
}

// Two hexadecimal digits per byte, for bytes that JSON cannot hold.
inline std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto u = static_cast<unsigned char>(c);
    out += "0123456789abcdef"[u >> 4U];
    out += "0123456789abcdef"[u & 15U];
  }
  return out;
}
inline std::string unhex(std::string_view text) {
  const auto digit = [&](char c) {
    const auto at = std::string_view("0123456789abcdef").find(c);
    if (at == std::string_view::npos || text.size() % 2 != 0)
      throw matopt::bad_file('"' + std::string(text) + "\" is not a row of bytes in hexadecimal");
    return static_cast<unsigned>(at);
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const unsigned high = digit(text[i]);
    out += static_cast<char>(high << 4U | digit(i + 1 < text.size() ? text[i + 1] : '?'));
  }
  return out;
}

}  // namespace small_gpt
