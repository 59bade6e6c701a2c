// Batches on their way to the GPU: page-locked memory that the host fills while the GPU is still at work on the batch
// before, and the memory of the device that it is copied to.
#pragma once
#include <algorithm>
#include <cstdint>
#include <matopt/core/error.hpp>
#include <span>
#include <string>
#include <vector>

#include "device_memory.cuh"
#include "gpu_gpt.cuh"

namespace small_gpt::gpu {

class batch_upload {
 public:
  // Up to `sequences` sequences, which go through the model `part` at a time.
  batch_upload(const gpt_config& config, index_t sequences, index_t part, cudaStream_t stream)
      : config_(config),
        capacity_(sequences),
        part_(part),
        stream_(stream),
        host_(3 * sequences * config.context),
        device_(3 * sequences * config.context, stream) {
    if (sequences < 1) throw matopt::bad_value("batch", std::to_string(sequences), "at least 1");
    if (part < 1) throw matopt::bad_value("micro_batch", std::to_string(part), "at least 1");
    matopt::cuda::check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "create an event");
  }
  batch_upload(const batch_upload&) = delete;
  batch_upload& operator=(const batch_upload&) = delete;
  ~batch_upload() { cudaEventDestroy(copied_); }

  index_t capacity() const { return capacity_; }

  // Work that is launched later sees this batch; work launched earlier still sees the one before. Returns once the
  // caller may change the spans.
  void put(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, index_t sequences) {
    if (sequences < 1 || sequences > capacity_)
      throw matopt::bad_value("batch", std::to_string(sequences), "1 to " + std::to_string(capacity_));
    const index_t rows = sequences * config_.context;
    check("tokens", tokens, rows), check("targets", targets, rows);
    matopt::cuda::check(cudaEventSynchronize(copied_), "wait for a copy");
    std::int32_t *to = host_.data(), *order = to + 2 * rows;
    std::copy(tokens.begin(), tokens.end(), to);
    std::copy(targets.begin(), targets.end(), to + rows);
    for (index_t first = 0; first < sequences; first += part_) {
      const index_t begin = first * config_.context, count = std::min(part_, sequences - first) * config_.context;
      sort_rows(to + begin, count, order + begin);
    }
    matopt::cuda::check(cudaMemcpyAsync(device_.data(), to, static_cast<std::size_t>(3 * rows) * sizeof(std::int32_t),
                                        cudaMemcpyHostToDevice, stream_),
                        "upload a batch");
    matopt::cuda::check(cudaEventRecord(copied_, stream_), "upload a batch");
  }

  // Calls f(part, number of its first row) for the parts of a batch of `sequences` sequences.
  template <class F>
  void for_parts(index_t sequences, F f) const {
    const index_t rows = sequences * config_.context;
    const std::int32_t* tokens = device_.data();
    for (index_t first = 0; first < sequences; first += part_) {
      const index_t row = first * config_.context;
      f(batch_part{tokens + row, tokens + rows + row, tokens + 2 * rows + row, std::min(part_, sequences - first)},
        row);
    }
  }

 private:
  void check(const char* name, std::span<const std::int32_t> ids, index_t rows) const {
    if (static_cast<index_t>(ids.size()) != rows)
      throw matopt::bad_value(std::string("size of ") + name, std::to_string(ids.size()),
                              "batch * context (" + std::to_string(rows) + ")");
    for (const std::int32_t id : ids)
      if (id < 0 || id >= config_.vocabulary)
        throw matopt::bad_value(std::string("an entry of ") + name, std::to_string(id),
                                "0 to vocabulary - 1 (" + std::to_string(config_.vocabulary - 1) + ")");
  }
  // The numbers of the rows, by token; rows of one token in their own order.
  void sort_rows(const std::int32_t* tokens, index_t rows, std::int32_t* order) {
    places_.assign(static_cast<std::size_t>(config_.vocabulary) + 1, 0);
    for (index_t r = 0; r < rows; ++r) ++places_[static_cast<std::size_t>(tokens[r]) + 1];
    for (std::size_t i = 1; i < places_.size(); ++i) places_[i] += places_[i - 1];
    for (index_t r = 0; r < rows; ++r)
      order[places_[static_cast<std::size_t>(tokens[r])]++] = static_cast<std::int32_t>(r);
  }

  gpt_config config_;
  index_t capacity_, part_;
  cudaStream_t stream_;
  pinned_array<std::int32_t> host_;
  device_array<std::int32_t> device_;
  cudaEvent_t copied_ = nullptr;
  std::vector<std::int32_t> places_;
};

}  // namespace small_gpt::gpu
