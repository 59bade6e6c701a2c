// Zeroed memory of the host that begins on a 256-byte boundary.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "../version.hpp"

namespace MATOPT_NAMESPACE::detail {

class host_buffer {
 public:
  host_buffer() = default;
  explicit host_buffer(std::size_t bytes) : memory_(bytes + 256) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
    start_ = memory_.data() + (256 - at % 256) % 256;
  }
  host_buffer(host_buffer&& other) noexcept
      : memory_(std::move(other.memory_)), start_(std::exchange(other.start_, nullptr)) {}
  host_buffer& operator=(host_buffer&& other) noexcept {
    memory_ = std::move(other.memory_);
    start_ = std::exchange(other.start_, nullptr);
    return *this;
  }
  std::byte* data() { return start_; }

 private:
  std::vector<std::byte> memory_;
  std::byte* start_ = nullptr;
};

}  // namespace MATOPT_NAMESPACE::detail
