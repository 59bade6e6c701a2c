// regular_file: a file to read from at any place. A folder, a pipe or a device is refused and never waited for.
// Errors: bad_file, naming the path and the reason.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "../core/error.hpp"
#include "../version.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
inline const char* kind_of_file(mode_t mode) {
  return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
}
}  // namespace detail

class regular_file {
 public:
  explicit regular_file(const std::string& path) : path_(path) {
    if (path.find('\0') != std::string::npos) throw bad_file("cannot read a file whose path holds a null character");
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (descriptor_ < 0) fail(std::strerror(errno));
    struct stat s {};
    const bool known = ::fstat(descriptor_, &s) == 0;
    const std::string why = !known                ? std::strerror(errno)
                            : !S_ISREG(s.st_mode) ? std::string("it is ") + detail::kind_of_file(s.st_mode)
                                                  : std::string();
    if (!why.empty()) {
      ::close(descriptor_);
      fail(why);
    }
    size_ = static_cast<std::uint64_t>(s.st_size);
  }
  regular_file(const regular_file&) = delete;
  regular_file& operator=(const regular_file&) = delete;
  ~regular_file() { ::close(descriptor_); }

  std::uint64_t size() const { return size_; }
  void read(std::uint64_t from, void* to, std::size_t bytes) const {
    auto* p = static_cast<char*>(to);
    while (bytes > 0) {
      const ssize_t n = ::pread(descriptor_, p, bytes, static_cast<off_t>(from));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(std::strerror(errno));
      if (n == 0) fail("it became shorter while it was read");
      p += n, from += static_cast<std::uint64_t>(n), bytes -= static_cast<std::size_t>(n);
    }
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw bad_file("cannot read \"" + path_ + "\": " + why); }

  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace MATOPT_NAMESPACE
