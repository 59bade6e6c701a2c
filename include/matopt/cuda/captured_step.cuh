// captured_step: steps an optimizer through CUDA graphs.
//
//   matopt::cuda::captured_step fast(opt);
//   fast.step(lr);                         as opt.step(lr), but the launches are recorded once and replayed
//
// begin_step() hands over what changes from step to step (learning rate, step number, gradient scale); enqueue() is
// recorded once for every combination of ranks and phase that occurs, so NuMuon's shrinking rank asks for a new
// recording now and then (its rank_multiple makes that rare). The first step of a combination runs without a graph, to
// load kernels; the second one records. After rebind() nothing needs to be recorded anew: gradients are reached through
// tables. Needs a stream of its own, not the default one. The optimizer must outlive this. Errors: bad_value for the
// default stream; cuda_error.
#pragma once
#include <map>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/index.hpp"
#include "error.cuh"

namespace matopt::cuda {

template <class Optimizer>
class captured_step {
 public:
  explicit captured_step(Optimizer& opt) : opt_(&opt), stream_(opt.backend().stream()) {
    if (stream_ == nullptr || stream_ == cudaStreamLegacy || stream_ == cudaStreamPerThread)
      throw bad_value("stream of captured_step", "the default stream", "a stream made by cudaStreamCreate");
  }
  captured_step(const captured_step&) = delete;
  captured_step& operator=(const captured_step&) = delete;
  ~captured_step() {
    for (auto& [key, graph] : graphs_)
      if (graph.exec) cudaGraphExecDestroy(graph.exec);
  }

  // The arguments are those of the optimizer's begin_step().
  template <class... A>
  void step(A... numbers) {
    opt_->begin_step(numbers...);
    recording& r = graphs_[{opt_->ranks(), opt_->phase()}];
    if (!r.exec) {
      if (!std::exchange(r.warm, true)) return opt_->enqueue();
      record(r);
    }
    check(cudaGraphLaunch(r.exec, stream_), "launch a graph");
  }

  // Recordings made so far, and the kernels and other nodes of the last one launched or made.
  index_t recordings() const { return recordings_; }
  index_t nodes() const { return nodes_; }

 private:
  struct recording {
    bool warm = false;
    cudaGraphExec_t exec = nullptr;
  };

  void record(recording& r) {
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "record a step");
    cudaGraph_t graph = nullptr;
    try {
      opt_->enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "record a step");
    std::size_t count = 0;
    cudaError_t status = cudaGraphGetNodes(graph, nullptr, &count);
    if (status == cudaSuccess) status = cudaGraphInstantiate(&r.exec, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "record a step");
    nodes_ = static_cast<index_t>(count);
    ++recordings_;
  }

  Optimizer* opt_;
  cudaStream_t stream_;
  std::map<std::pair<std::vector<index_t>, index_t>, recording> graphs_;
  index_t recordings_ = 0, nodes_ = 0;
};

}  // namespace matopt::cuda
