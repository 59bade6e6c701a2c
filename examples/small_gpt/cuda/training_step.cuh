// One step of training on the GPU: the gradient of a batch, part by part; the optimizer; and the weights that the next
// products read. It has the members that matopt::cuda::captured_step asks of an optimizer, so that all of it becomes
// one CUDA graph.
//
//   training_step step(model, groups, gpu, batch);
//   matopt::cuda::captured_step recorded(step);
//   step.put(tokens, targets);      the batch
//   recorded.step(factor);          returns at once; the host may put() the next batch
//   step.loss();                    of the batch, at the weights before the step; waits for it
#pragma once
#include <cstdint>
#include <matopt/cuda.cuh>
#include <matopt/param_groups.hpp>
#include <matopt/qk_clip.hpp>
#include <span>
#include <vector>

#include "../logit_clipping.hpp"
#include "batch_upload.cuh"
#include "device_stopwatch.cuh"
#include "gpu_gpt.cuh"

namespace small_gpt::gpu {

template <class T>
class training_step {
 public:
  using groups_type = matopt::param_groups<matopt::cuda_backend>;

  // Batches of `batch` sequences. All of these must outlive the step, and be on the backend's stream.
  training_step(gpu_gpt<T>& model, groups_type& groups, matopt::cuda_backend& gpu, index_t batch)
      : model_(&model),
        groups_(&groups),
        gpu_(&gpu),
        batch_(batch),
        upload_(model.config(), batch, model.most_sequences(), gpu.stream()),
        losses_(batch * model.config().context, gpu.stream()),
        loss_(1, gpu.stream()) {}

  // For rules that estimate from two gradients: each step first makes the gradient of its batch at the weights before
  // the last step, too, as reference(). Call it before the parameters are added.
  void take_reference() {
    previous_ = device_array<float>(model_->weights().size(), gpu_->stream());
    reference_ = device_array<float>(model_->weights().size(), gpu_->stream());
  }
  // With QK-clip: after the optimizer has moved the weights, rows of heads are scaled whose logits in the batch were
  // above the threshold. The maxima stay on the device.
  void clip_logits(double threshold) {
    model_->measure_attention_logits();
    clips_ = qk_clips<matopt::qk_clip<matopt::cuda_backend>>(
        *gpu_, model_->config(), threshold, model_->weights().data(), model_->largest_attention_logits().data());
  }
  // The largest logits of the last batch, [layers, heads]; empty without QK-clip. Waits.
  std::vector<float> attention_logits() {
    const device_array<float>& of = model_->largest_attention_logits();
    std::vector<float> values(static_cast<std::size_t>(of.size()));
    if (!values.empty()) gpu_->download(values.data(), of.data(), of.bytes());
    return values;
  }
  // Both are empty without take_reference(). The first step wants the weights themselves as the previous ones.
  const device_array<float>& previous() const { return previous_; }
  const device_array<float>& reference() const { return reference_; }

  void put(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets) {
    upload_.put(tokens, targets, batch_);
  }
  double loss() {
    double value = 0;
    gpu_->download(&value, loss_.data(), sizeof value);
    return value;
  }
  // Of the last step that is over, as after loss(): how long the device was at the optimizer. It is taken by two events
  // in the stream, for which nothing waits.
  double optimizer_seconds() const { return optimizer_time_.seconds(); }
  // The gradient alone.
  void enqueue_gradient() {
    model_->begin_attention_logits();
    const double rows = static_cast<double>(losses_.size());
    upload_.for_parts(batch_, [&](const batch_part& part, index_t row) {
      model_->loss_and_gradient(part, static_cast<float>(1 / rows), row == 0, losses_.data() + row);
    });
    mean_loss(gpu_->stream(), losses_.data(), losses_.size(), 1 / rows, loss_.data());
  }
  // Mean loss of any number of sequences; nothing is kept of it.
  double evaluate(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, index_t sequences) {
    const index_t context = model_->config().context;
    double sum = 0;
    for (index_t first = 0; first < sequences; first += batch_) {
      const index_t count = std::min(batch_, sequences - first);
      const auto piece = [&](std::span<const std::int32_t> all) {
        return all.subspan(static_cast<std::size_t>(first * context), static_cast<std::size_t>(count * context));
      };
      upload_.put(piece(tokens), piece(targets), count);
      upload_.for_parts(count, [&](const batch_part& part, index_t row) { model_->loss(part, losses_.data() + row); });
      mean_loss(gpu_->stream(), losses_.data(), count * context, 1.0 / static_cast<double>(count * context),
                loss_.data());
      sum += loss() * static_cast<double>(count);
    }
    return sum / static_cast<double>(sequences);
  }

  // --- what captured_step asks for ---
  matopt::cuda_backend& backend() { return *gpu_; }
  void begin_step(double factor = 1) { groups_->begin_step(factor); }
  void enqueue() {
    if (previous_.size() > 0) enqueue_reference();
    enqueue_gradient();
    optimizer_time_.begin(gpu_->stream());
    groups_->enqueue();
    for (auto& clip : clips_) clip();
    optimizer_time_.end(gpu_->stream());
    model_->refresh_weights();
  }
  const std::vector<index_t>& ranks() const { return groups_->ranks(); }
  index_t phase() const { return groups_->phase(); }
  std::uint64_t plan_number() const { return groups_->plan_number(); }
  std::uint64_t settings_number() const { return groups_->settings_number(); }

 private:
  void enqueue_reference() {
    const auto swap_weights = [&] {
      exchange(gpu_->stream(), model_->weights().data(), previous_.data(), previous_.size());
      model_->refresh_weights();
    };
    swap_weights();
    enqueue_gradient();
    copy(model_->gradients(), reference_);
    swap_weights();
    copy(model_->weights(), previous_);  // the step to come leaves these
  }
  void copy(const device_array<float>& from, const device_array<float>& to) {
    matopt::cuda::check(cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDeviceToDevice, gpu_->stream()),
                        "copy");
  }

  gpu_gpt<T>* model_;
  groups_type* groups_;
  matopt::cuda_backend* gpu_;
  index_t batch_;
  batch_upload upload_;
  device_stopwatch optimizer_time_;
  device_array<float> losses_;
  device_array<double> loss_;
  device_array<float> previous_, reference_;
  std::vector<matopt::qk_clip<matopt::cuda_backend>> clips_;  // of each layer, with QK-clip
};

// Gives every tensor of the model to the optimizer; with the reference gradients, if there are any.
template <class T>
void add_parameters(const gpu_gpt<T>& model, matopt::param_groups<matopt::cuda_backend>& groups,
                    const device_array<float>& reference = {}) {
  const auto role_of = [](tensor_role r) {
    return r == tensor_role::hidden      ? matopt::role::hidden
           : r == tensor_role::embedding ? matopt::role::embedding
           : r == tensor_role::head      ? matopt::role::head
                                         : matopt::role::vector;
  };
  for (const parameter<float>& p : model.parameters()) {
    const auto w = matopt::row_major(p.value, p.rows, p.cols);
    const auto g = matopt::row_major<const float>(p.gradient, p.rows, p.cols);
    if (reference.size() == 0) {
      groups.add(p.name, w, g, role_of(p.kind), {.row_blocks = p.row_blocks});
    } else {
      const float* r = reference.data() + (p.gradient - model.gradients().data());
      groups.add(p.name, w, g, matopt::row_major(r, p.rows, p.cols), role_of(p.kind), {.row_blocks = p.row_blocks});
    }
  }
}

}  // namespace small_gpt::gpu
