// buffer: zeroed memory of the current device that is freed with its owner, in whichever thread.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <string>
#include <utility>

#include "error.cuh"

namespace MATOPT_NAMESPACE::cuda {

class buffer {
 public:
  buffer() = default;
  buffer(std::size_t bytes, cudaStream_t stream) {
    if (bytes == 0) return;
    check(cudaGetDevice(&device_), "allocate");
    void* p = nullptr;
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // running out of memory is not sticky
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw out_of_memory(std::string("CUDA: allocate: ") + cudaGetErrorString(status) + ": " + std::to_string(bytes) +
                          " bytes asked for, " + std::to_string(free) + " of " + std::to_string(total) + " free");
    }
    check(status, "allocate");
    data_ = static_cast<std::byte*>(p);
    try {
      check(cudaMemsetAsync(data_, 0, bytes, stream), "allocate");
    } catch (...) {
      cudaFree(data_);
      throw;
    }
  }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), device_(other.device_) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_), std::swap(device_, other.device_);
    return *this;
  }
  ~buffer() {
    if (!data_) return;
    int current = device_;  // on_device throws, which this must not
    cudaGetDevice(&current);
    if (current != device_) cudaSetDevice(device_);
    cudaFree(data_);  // waits for work that uses the memory
    if (current != device_) cudaSetDevice(current);
  }

  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  int device_ = 0;
};

}  // namespace MATOPT_NAMESPACE::cuda
