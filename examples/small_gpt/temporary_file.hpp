// An empty file with a name of its own, for as long as the object lives.
#pragma once
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

#include "matopt/core/error.hpp"

namespace small_gpt {

class temporary_file {
 public:
  temporary_file() {
    std::error_code failure;
    path_ = (std::filesystem::temp_directory_path(failure) / "small_gpt-XXXXXX").string();
    if (failure)
      throw matopt::bad_file("there is no folder for temporary files, which TMPDIR names, or /tmp: " +
                             failure.message());
    const int descriptor = ::mkstemp(path_.data());
    if (descriptor < 0) throw matopt::bad_file("cannot write \"" + path_ + "\": " + std::strerror(errno));
    ::close(descriptor);
  }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace small_gpt
