// branches: launches that a recorded step leaves out while the guards of all matrices are raised. In a graph they are
// the body of a conditional node, for which a kernel before it looks at the guards; skipped, they cost one launch in
// all. Outside of a capture, and where toolkit or driver are older than 12.4, they are launched like any others, and
// each returns at once for matrices with a raised guard.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cuda_runtime.h>

#include <array>
#include <utility>

#include "../core/backend.hpp"
#include "error.cuh"

namespace MATOPT_NAMESPACE::cuda {

#if CUDART_VERSION >= 12040
// (A template, because nvcc ignores that a kernel is inline, and warns.)
template <class Handle>
__global__ void __launch_bounds__(32) set_condition(Handle handle, const status_word* guards, index_t count) {
  bool any = false;
  for (index_t i = static_cast<index_t>(threadIdx.x); i < count; i += 32) any |= guards[i] == 0;
  any = __any_sync(~0U, any);
  if (threadIdx.x == 0) cudaGraphSetConditional(handle, any ? 1 : 0);
}
#endif

class branches {
 public:
  branches() {
    for (cudaStream_t& s : streams_) check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "create a stream");
  }
  branches(const branches&) = delete;
  branches& operator=(const branches&) = delete;
  ~branches() {
    for (const cudaStream_t s : streams_)
      if (s) cudaStreamDestroy(s);
  }

  // Calls launches(), which launches on `stream`: on another one in a graph, and `stream` then is that while it runs.
  template <class Launches>
  void run(cudaStream_t& stream, const status_word* guards, index_t count, const Launches& launches) {
    const cudaGraph_t body = begin(stream, guards, count);
    if (!body) return launches();
    const cudaStream_t outside = std::exchange(stream, streams_[depth_++]);
    const auto leave = [&] {
      cudaGraph_t ended = nullptr;  // `body`, which belongs to the node
      const cudaError_t status = cudaStreamEndCapture(stream, &ended);
      stream = outside, --depth_;
      return status;
    };
    try {
      launches();
    } catch (...) {
      leave();
      throw;
    }
    check(leave(), "record a branch");
  }

 private:
  // The body of a new node after what `stream` has recorded, where streams_[depth_] records from now on; or null.
  cudaGraph_t begin([[maybe_unused]] cudaStream_t stream, [[maybe_unused]] const status_word* guards,
                    [[maybe_unused]] index_t count) {
#if CUDART_VERSION >= 12040
    if (depth_ == streams_.size() || stream == nullptr || stream == cudaStreamLegacy) return nullptr;
    captured now;
    if (now.look(stream) != cudaSuccess) return cudaGetLastError(), nullptr;
    if (now.status != cudaStreamCaptureStatusActive) return nullptr;
    cudaGraphConditionalHandle handle{};
    if (cudaGraphConditionalHandleCreate(&handle, now.graph, 0, 0) != cudaSuccess) return cudaGetLastError(), nullptr;
    set_condition<<<1, 32, 0, stream>>>(handle, guards, count);
    check_launch("record a branch");
    check(now.look(stream), "record a branch");
    cudaGraphNodeParams p{};
    p.type = cudaGraphNodeTypeConditional;
    p.conditional.handle = handle, p.conditional.type = cudaGraphCondTypeIf, p.conditional.size = 1;
    cudaGraphNode_t node{};
    check(now.add(node, p), "record a branch");
    check(continue_after(stream, node), "record a branch");
    const cudaGraph_t body = p.conditional.phGraph_out[0];
    check(cudaStreamBeginCaptureToGraph(streams_[depth_], body, nullptr, nullptr, 0, cudaStreamCaptureModeThreadLocal),
          "record a branch");
    return body;
#else
    return nullptr;
#endif
  }

#if CUDART_VERSION >= 12040
  // What a stream is recording. (The calls lost the numbers of their versions in CUDA 13.)
  struct captured {
    cudaStreamCaptureStatus status{};
    cudaGraph_t graph{};
    const cudaGraphNode_t* last{};
    const cudaGraphEdgeData* edges{};
    std::size_t count = 0;

    cudaError_t look(cudaStream_t stream) {
#if CUDART_VERSION >= 13000
      return cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, &last, &edges, &count);
#else
      return cudaStreamGetCaptureInfo_v3(stream, &status, nullptr, &graph, &last, &edges, &count);
#endif
    }
    cudaError_t add(cudaGraphNode_t& node, cudaGraphNodeParams& p) const {
#if CUDART_VERSION >= 13000
      return cudaGraphAddNode(&node, graph, last, edges, count, &p);
#else
      return cudaGraphAddNode_v2(&node, graph, last, edges, count, &p);
#endif
    }
  };
  static cudaError_t continue_after(cudaStream_t stream, cudaGraphNode_t node) {
#if CUDART_VERSION >= 13000
    return cudaStreamUpdateCaptureDependencies(stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies);
#else
    return cudaStreamUpdateCaptureDependencies_v2(stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies);
#endif
  }
#endif

  std::array<cudaStream_t, 2> streams_{};  // one for each depth
  std::size_t depth_ = 0;
};

}  // namespace MATOPT_NAMESPACE::cuda
