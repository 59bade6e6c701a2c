// Typed memory of the device.
#pragma once
#include <cstddef>
#include <matopt/core/index.hpp>
#include <matopt/cuda/buffer.cuh>

namespace small_gpt::gpu {

using matopt::index_t;

// Zeroed when it is made. As the library's buffer, it belongs to the device that is current then.
template <class T>
class device_array {
 public:
  device_array() = default;
  device_array(index_t size, cudaStream_t stream)
      : memory_(static_cast<std::size_t>(size) * sizeof(T), stream), size_(size) {}
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  index_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

 private:
  matopt::cuda::buffer memory_;
  index_t size_ = 0;
};

// Page-locked memory of the host, from and to which copies run beside kernels.
template <class T>
class pinned_array {
 public:
  explicit pinned_array(index_t size) : size_(size) {
    matopt::cuda::check(cudaMallocHost(&data_, static_cast<std::size_t>(size) * sizeof(T)), "allocate pinned memory");
  }
  pinned_array(const pinned_array&) = delete;
  pinned_array& operator=(const pinned_array&) = delete;
  ~pinned_array() { cudaFreeHost(data_); }
  T* data() const { return data_; }
  index_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

 private:
  T* data_ = nullptr;
  index_t size_;
};

}  // namespace small_gpt::gpu
