// torch_device<cuda_backend>: tensors in the memory of an NVIDIA GPU; for files that nvcc compiles.
//
// The work of an optimizer goes to the stream that was PyTorch's current one when its first parameter of the device
// came in. Under another current stream a step is ordered after what that stream has to do so far, and before what it
// gets later, by events; nobody waits on the host. Memory that a gradient gives back after the step is safe for that
// reason. The current device is as before afterwards.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

#include "../../cuda.cuh"
#include "shard.hpp"

namespace MATOPT_NAMESPACE {

template <>
struct torch_device<cuda_backend> {
  static constexpr at::DeviceType type = at::kCUDA;
  static std::unique_ptr<cuda_backend> make(at::Device device) {
    const c10::cuda::CUDAGuard guard(device);
    return std::make_unique<cuda_backend>(c10::cuda::getCurrentCUDAStream(device.index()).stream());
  }

  class turn {
   public:
    explicit turn(cuda_backend& backend)
        : backend_(backend),
          guard_(static_cast<c10::DeviceIndex>(backend.device())),
          current_(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(backend.device())).stream()) {
      if (current_ == backend_.stream()) return;
      cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "make an event");
      cuda::check(cudaEventRecord(event_, current_), "record an event");
      backend_.wait(event_);
    }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;
    ~turn() {
      if (!event_) return;
      // What fails here has failed before, and was reported there.
      if (cudaEventRecord(event_, backend_.stream()) == cudaSuccess) cudaStreamWaitEvent(current_, event_);
      cudaEventDestroy(event_);
    }

   private:
    cuda_backend& backend_;
    c10::cuda::CUDAGuard guard_;
    cudaStream_t current_;
    cudaEvent_t event_ = nullptr;
  };
};

}  // namespace MATOPT_NAMESPACE
