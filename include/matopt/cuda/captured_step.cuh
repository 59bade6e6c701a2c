// captured_step: steps an optimizer through CUDA graphs.
//
//   matopt::cuda::captured_step fast(opt);
//   fast.step(lr);                         as opt.step(lr), but the launches are recorded once and replayed
//
// begin_step() hands over what changes from step to step (learning rate, step number, gradient scale); enqueue() is
// recorded once for every combination of ranks and phase that occurs, so NuMuon's shrinking rank asks for a new
// recording now and then (its rank_multiple makes that rare). The first step of a combination runs without a graph, to
// load kernels; the second one records. After rebind(), leave_out() or resync() nothing needs to be recorded anew:
// gradients are reached through tables, and who takes part is said by words in memory. After finalize() everything is,
// because the memory is a different one. Where a setting of a rule has changed, by set() or a schedule, the step is recorded once
// more and the graph brought up to date: that costs the host what an eager step costs it, and the device nothing. Rates
// ("lr" among them) are numbers of the step, and cost nothing. Needs a stream of its own, not the default one. The
// optimizer must outlive this. Errors: bad_value for the default stream; cuda_error.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/index.hpp"
#include "error.cuh"
#include "on_device.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class Optimizer>
class captured_step {
 public:
  static constexpr std::size_t most_recordings = 16;

  explicit captured_step(Optimizer& opt) : opt_(&opt), stream_(opt.backend().stream()) {
    if (stream_ == nullptr || stream_ == cudaStreamLegacy || stream_ == cudaStreamPerThread)
      throw bad_value("stream of captured_step", "the default stream", "a stream made by cudaStreamCreate");
    if (opt.backend().may_wait())
      throw bad_value("backend of captured_step",
                      "one whose decompositions are done by a library that waits for the device",
                      "a backend without a library, or eager steps");
    refuse_checks();
  }
  captured_step(const captured_step&) = delete;
  captured_step& operator=(const captured_step&) = delete;
  ~captured_step() { drop_recordings(); }

  // The arguments are those of the optimizer's begin_step().
  template <class... A>
  void step(A... numbers) {
    const on_device here(opt_->backend().device());
    refuse_checks();
    opt_->begin_step(numbers...);
    if (opt_->plan_number() != plan_number_) {  // what is recorded points to memory that is gone
      drop_recordings();
      plan_number_ = opt_->plan_number();
    }
    auto r = std::find_if(recordings_.begin(), recordings_.end(),
                          [&](const recording& x) { return x.ranks == opt_->ranks() && x.phase == opt_->phase(); });
    if (r == recordings_.end()) {
      ++combinations_;
      if (recordings_.size() == most_recordings) {  // ranks that have passed do not come back
        if (recordings_.front().exec) check(cudaGraphExecDestroy(recordings_.front().exec), "drop a graph");
        recordings_.erase(recordings_.begin());
      }
      recordings_.push_back({opt_->ranks(), opt_->phase()});
      return opt_->enqueue();
    }
    if (!r->exec || r->settings_number != opt_->settings_number()) record(*r);
    check(cudaGraphLaunch(r->exec, stream_), "launch a graph");
  }

  // Combinations of ranks and phase met so far.
  index_t combinations() const { return combinations_; }
  // The nodes (kernels, copies) of each graph that is kept.
  std::vector<index_t> nodes() const {
    std::vector<index_t> out;
    for (const auto& r : recordings_)
      if (r.exec) out.push_back(r.nodes);
    return out;
  }

 private:
  struct recording {
    std::vector<index_t> ranks;
    index_t phase;
    cudaGraphExec_t exec = nullptr;
    std::uint64_t settings_number = 0;
    index_t nodes = 0;
  };

  // A group with check_copies may have been added since the last step.
  void refuse_checks() const {
    if constexpr (requires { opt_->checks_copies(); })
      if (opt_->checks_copies()) throw bad_value("check_copies of captured_step", "set", "not set, or eager steps");
  }
  void drop_recordings() noexcept {
    for (auto& r : recordings_)
      if (r.exec) cudaGraphExecDestroy(r.exec);
    recordings_.clear();
  }
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
    if (status == cudaSuccess) status = instantiate(r, graph);
    cudaGraphDestroy(graph);
    check(status, "record a step");
    r.nodes = static_cast<index_t>(count), r.settings_number = opt_->settings_number();
  }

  // Other values in the launches of a graph are taken over by it; other launches make it anew.
  static cudaError_t instantiate(recording& r, cudaGraph_t graph) {
    if (r.exec) {
      cudaGraphExecUpdateResultInfo info{};
      if (cudaGraphExecUpdate(r.exec, graph, &info) == cudaSuccess) return cudaSuccess;
      (void)cudaGetLastError();
      const cudaError_t dropped = cudaGraphExecDestroy(std::exchange(r.exec, nullptr));
      if (dropped != cudaSuccess) return dropped;
    }
    return cudaGraphInstantiate(&r.exec, graph, 0);
  }

  Optimizer* opt_;
  cudaStream_t stream_;
  std::uint64_t plan_number_ = 0;
  std::vector<recording> recordings_;
  index_t combinations_ = 0;
};

}  // namespace MATOPT_NAMESPACE::cuda
