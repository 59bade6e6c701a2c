// Host matrices and their copies on the device.
#pragma once
#include <matopt/cuda.cuh>

#include "../support/matrices.hpp"

namespace matopt::test {

// A stored<T> and a mirror of its memory on the GPU, with the same strides.
template <class T>
class on_device {
 public:
  on_device(cuda_backend& gpu, index_t rows, index_t cols, layout l = layout::row_major, index_t batch = 1)
      : gpu_(&gpu), host(rows, cols, l, batch), memory_(gpu.allocate(host.bytes())) {}

  view<T> v() {
    view<T> x = host.v();
    x.data = reinterpret_cast<T*>(memory_.data()) + (x.data - host.memory().data());
    return x;
  }
  view<const T> cv() { return v(); }
  void up() { gpu_->upload(memory_.data(), host.memory().data(), host.bytes()); }
  void down() { gpu_->download(host.memory().data(), memory_.data(), host.bytes()); }

 private:
  cuda_backend* gpu_;

 public:
  stored<T> host;

 private:
  cuda_backend::buffer memory_;
};

// A stream of its own for each test.
struct stream {
  cudaStream_t s = nullptr;
  stream() { cuda::check(cudaStreamCreate(&s), "create a stream"); }
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;
  ~stream() { cudaStreamDestroy(s); }
};

}  // namespace matopt::test
