// Zeroed memory of the host that begins on a 256-byte boundary, and on large pages where it is large.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstring>
#include <new>
#include <utility>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../version.hpp"

namespace MATOPT_NAMESPACE::detail {

class host_buffer {
 public:
  host_buffer() = default;
  explicit host_buffer(std::size_t bytes) : alignment_(bytes >= 4 * page ? page : 256) {
    start_ = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{alignment_}));
#if defined(MADV_HUGEPAGE)
    // A step streams through all of its state: with pages of 4 KiB it would look up an address every few dozen cycles.
    // Advice only: where the system has no large pages the memory is as good as any.
    if (alignment_ == page) (void)madvise(start_, bytes / page * page, MADV_HUGEPAGE);
#endif
    std::memset(start_, 0, bytes);
  }
  host_buffer(host_buffer&& other) noexcept
      : start_(std::exchange(other.start_, nullptr)), alignment_(other.alignment_) {}
  host_buffer& operator=(host_buffer&& other) noexcept {
    std::swap(start_, other.start_), std::swap(alignment_, other.alignment_);
    return *this;
  }
  ~host_buffer() {
    if (start_) ::operator delete (start_, std::align_val_t{alignment_});
  }
  std::byte* data() { return start_; }

 private:
  static constexpr std::size_t page = std::size_t{1} << 21;
  std::byte* start_ = nullptr;
  std::size_t alignment_ = 256;
};

}  // namespace MATOPT_NAMESPACE::detail
