// Addresses without memory behind them: for code that places and counts but touches nothing.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace bench {

class reserved {
 public:
  reserved() = default;
  explicit reserved(std::size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* const at = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("no addresses left for " + std::to_string(bytes) + " bytes");
    data_ = static_cast<std::byte*>(at);
  }
  reserved(reserved&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  reserved& operator=(reserved&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~reserved() {
    if (data_) munmap(data_, bytes_);
  }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace bench
