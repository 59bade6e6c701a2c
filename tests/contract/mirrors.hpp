// mirrors<B>: arrays of the host, each with a copy in the memory of a backend that has memory of its own.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include <matopt/core/view.hpp>

namespace matopt::test {

// Whether a backend's memory is another than the host's; specialised beside the backends of which it is true.
template <class B>
inline constexpr bool has_own_memory = false;

template <class B>
class mirrors {
 public:
  explicit mirrors(B& backend) : backend_(backend) {}

  void track(void* p, std::size_t bytes) {
    arrays_.push_back({static_cast<std::byte*>(p), bytes, backend_.uncounted(bytes)});
  }
  // The view of the copy.
  template <class T>
  view<T> there(view<T> v) const {
    for (const auto& a : arrays_) {
      const std::ptrdiff_t at = reinterpret_cast<const std::byte*>(v.data) - a.host;
      if (at < 0 || at >= static_cast<std::ptrdiff_t>(a.bytes)) continue;
      v.data = reinterpret_cast<T*>(a.copy.data() + at);
      return v;
    }
    throw std::logic_error("a view of an array that is not tracked");
  }
  // The host's arrays go up, unless the copies are newer.
  void upload() {
    if (newer_) return;
    for (auto& a : arrays_) backend_.upload(a.copy.data(), a.host, a.bytes);
  }
  // A step was asked for: the copies are newer.
  void changed() { newer_ = true; }
  void download() {
    if (!newer_) return;
    for (auto& a : arrays_) backend_.download(a.host, a.copy.data(), a.bytes);
    newer_ = false;
  }

 private:
  struct array {
    std::byte* host;
    std::size_t bytes;
    mutable typename B::buffer copy;  // data() is not const
  };
  B& backend_;
  std::vector<array> arrays_{};
  bool newer_ = false;
};

}  // namespace matopt::test
