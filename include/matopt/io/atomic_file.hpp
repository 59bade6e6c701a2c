// atomic_file: a file that takes another one's place as a whole, or not at all.
//
//   atomic_file out("run/state.safetensors");      out.write(data, bytes);      out.commit();
//
// What is written goes to a temporary file beside the target, which commit() flushes to the disk and renames over it;
// without commit(), and after any error, the target is as it was. A symbolic link stays and its file is replaced; the
// mode of the replaced file stays, and its owner as far as the process may set it. A hard link keeps the old contents.
//
// Temporary files are created exclusively, with a random name "<name>.tmp.<16 hex digits>", and locked (flock) as long
// as they are written, so threads, processes and containers never meet in one. One that a killed process left behind
// has no lock any more; the next atomic_file of the same target removes it. On a network file system this needs locks
// that hold across its hosts.
//
// Errors: bad_file, naming the path and the reason.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <system_error>

#include "../core/error.hpp"
#include "regular_file.hpp"

namespace MATOPT_NAMESPACE {

class atomic_file {
 public:
  explicit atomic_file(const std::string& path) : path_(path) {
    if (path.find('\0') != std::string::npos) throw bad_file("cannot write a file whose path holds a null character");
    target_ = behind_links(path);
    const auto slash = target_.rfind('/') + 1;  // 0 without one
    folder_ = slash == 0 ? "./" : target_.substr(0, slash);
    // A name may have 255 bytes.
    prefix_ = target_.substr(slash, 200) + ".tmp.";
    struct stat old {};
    const bool replaces = ::stat(target_.c_str(), &old) == 0;
    if (!replaces && errno != ENOENT) fail("write", errno);
    if (replaces && !S_ISREG(old.st_mode)) fail("write", std::string("it is ") + detail::kind_of_file(old.st_mode));
    if (replaces && ::faccessat(AT_FDCWD, target_.c_str(), W_OK, AT_EACCESS) != 0) fail("replace", errno);
    remove_abandoned();
    create(replaces ? 0600 : 0666);
    try {
      if (replaces) take_over(old);
    } catch (...) {
      discard();
      throw;
    }
  }
  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;
  ~atomic_file() { discard(); }

  void write(const void* data, std::size_t bytes) {
    const char* p = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t n = ::write(descriptor_, p, bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("write", n < 0 ? errno : ENOSPC);
      p += n, bytes -= static_cast<std::size_t>(n);
    }
  }

  void commit() {
    flush(descriptor_);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("rename", errno);
    temporary_.clear();
    // The folder's entry must reach the disk, too, if the file system can be asked for that.
    const int folder = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    const int failure = ::fsync(folder) == 0 ? 0 : errno;
    ::close(folder);
    if (failure == EIO || failure == ENOSPC || failure == EDQUOT) fail("flush the folder of", failure);
  }

 private:
  static constexpr std::size_t random_digits = 16;

  // Where the symbolic links of `path` lead, whether or not there is a file.
  std::string behind_links(std::filesystem::path path) const {
    std::error_code failure;
    for (int links = 0; std::filesystem::is_symlink(path, failure); ++links) {
      if (links == 40) fail("write", ELOOP);
      path = path.parent_path() / std::filesystem::read_symlink(path, failure);
      if (failure) fail("write", failure.value());
    }
    return path.string();
  }

  void create(mode_t mode) {
    std::random_device random;
    for (int attempt = 0; attempt < 100; ++attempt) {
      std::string digits;
      for (std::size_t i = 0; i < random_digits; ++i) digits += "0123456789abcdef"[random() % 16];
      temporary_ = folder_ + prefix_ + digits;
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
      if (descriptor_ < 0) {
        const int failure = errno;
        temporary_.clear();
        if (failure == EEXIST) continue;
        fail("write", failure);
      }
      // Between its creation and its lock somebody may have taken it for abandoned; then it is, and another one is
      // made.
      struct stat s {};
      const bool locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
      if (locked && ::fstat(descriptor_, &s) == 0 && s.st_nlink > 0) return;
      discard();
    }
    fail("write", "no temporary file can be made beside it");
  }

  // Mode and owner; the mode last, for another owner takes some of its bits away.
  void take_over(const struct stat& old) const {
    struct stat now {};
    bool same_owner = ::fstat(descriptor_, &now) == 0 && now.st_uid == old.st_uid && now.st_gid == old.st_gid;
    if (!same_owner) same_owner = ::fchown(descriptor_, old.st_uid, old.st_gid) == 0;
    const mode_t bits = same_owner ? 07777 : 0777;  // no set-user-id for somebody else
    if (::fchmod(descriptor_, old.st_mode & bits) != 0) fail("set the mode of", errno);
  }

  void remove_abandoned() const {
    std::error_code failure;
    for (std::filesystem::directory_iterator at(folder_, failure), end; !failure && at != end; at.increment(failure)) {
      const std::string name = at->path().filename().string();
      if (name.size() != prefix_.size() + random_digits || !name.starts_with(prefix_) ||
          name.find_first_not_of("0123456789abcdef", prefix_.size()) != std::string::npos)
        continue;
      const int left = ::open(at->path().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
      if (left < 0) continue;
      struct stat s {};
      // Whoever writes it holds the lock until it has its final name.
      if (::fstat(left, &s) == 0 && S_ISREG(s.st_mode) && ::flock(left, LOCK_EX | LOCK_NB) == 0)
        ::unlink(at->path().c_str());
      ::close(left);
    }
  }

  void flush(int descriptor) const {
    while (::fsync(descriptor) != 0)
      if (errno != EINTR) fail("flush", errno);
  }
  void discard() noexcept {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }
  [[noreturn]] void fail(const char* what, int code) const { fail(what, std::string(std::strerror(code))); }
  [[noreturn]] void fail(const char* what, const std::string& why) const {
    throw bad_file("cannot " + std::string(what) + " \"" + path_ + "\": " + why);
  }

  std::string path_, target_, folder_, prefix_, temporary_;
  int descriptor_ = -1;
};

}  // namespace MATOPT_NAMESPACE
