// How long the device takes from one place of a stream to another: two events, which may be part of a CUDA graph.
#pragma once
#include <cuda_runtime.h>

#include <matopt/cuda/error.cuh>

namespace small_gpt::gpu {

class device_stopwatch {
 public:
  device_stopwatch() {
    matopt::cuda::check(cudaEventCreate(&begin_), "create an event");
    if (const cudaError_t status = cudaEventCreate(&end_); status != cudaSuccess) {
      cudaEventDestroy(begin_);
      matopt::cuda::check(status, "create an event");
    }
  }
  device_stopwatch(const device_stopwatch&) = delete;
  device_stopwatch& operator=(const device_stopwatch&) = delete;
  ~device_stopwatch() { cudaEventDestroy(begin_), cudaEventDestroy(end_); }

  void begin(cudaStream_t stream) { record(begin_, stream); }
  void end(cudaStream_t stream) { record(end_, stream); }

  // Between the last two marks, which the device must have passed.
  double seconds() const {
    float milliseconds = 0;
    matopt::cuda::check(cudaEventElapsedTime(&milliseconds, begin_, end_), "read the time between two events");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  // While a stream is recorded, an event has to be named as one that is read outside of the graph.
  static void record(cudaEvent_t event, cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    matopt::cuda::check(cudaStreamIsCapturing(stream, &status), "ask whether a stream is recorded");
    const bool recorded = status == cudaStreamCaptureStatusActive;
    matopt::cuda::check(
        cudaEventRecordWithFlags(event, stream, recorded ? cudaEventRecordExternal : cudaEventRecordDefault),
        "record an event");
  }

  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace small_gpt::gpu
