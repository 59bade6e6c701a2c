// A model, its gradients and its optimizer, wherever they are. The trainer decides what happens when; the device does
// the arithmetic: forward, backward, step, evaluate.
#pragma once
#include <cstdint>
#include <functional>
#include <matopt/core/index.hpp>
#include <matopt/tensor_file.hpp>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpt_config.hpp"
#include "run_settings.hpp"

namespace small_gpt {

// One training step.
struct step_report {
  double loss = 0;                      // mean cross entropy of the batch at the weights before the step, in nats
  double gradient_norm = 0;             // of all gradients together, before clipping
  std::vector<float> attention_logits;  // with QK-clip: the largest ones of the batch, [layers, heads]
  double optimizer_seconds = 0;         // part of the step's time
  std::vector<std::string> skipped;     // parameters whose gradients were not finite: then nothing but QK-clip changed
};

// The optimizer makes no step with this rate.
struct refused_rate : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What one step did to one matrix, as matopt::step_observer tells it.
struct matrix_step {
  std::string name;  // of a fused tensor "layer0.qkv" the blocks are "layer0.qkv.0", ".1" and ".2"
  double weight_norm = 0, update_to_weight = 0, gradient_norm = 0, cosine = 0;
};

class device {
 public:
  virtual ~device() = default;

  // Forward, backward, clipping, and a step with every rate times `factor`. The spans hold batch * context tokens.
  virtual step_report train_step(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                 double factor) = 0;
  // Mean cross entropy in nats of that many sequences.
  virtual double loss(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                      matopt::index_t sequences) = 0;

  // Between the two calls lies one step. Costs nothing in other steps.
  virtual void observe_next_step() = 0;
  virtual std::vector<matrix_step> observed() = 0;

  // Brings the weights into the host's model, whose layout is that of gpt_layout.
  virtual void download() = 0;
  // The other way.
  virtual void upload() = 0;
  // The optimizer's state, and what else a step takes from the one before.
  virtual void store(matopt::tensor_file& file) = 0;
  // The weights have been put into the host's model before. `other_settings`: those of the rule may differ.
  virtual void restore(const matopt::tensor_file& file, bool other_settings) = 0;

  virtual std::string table() const = 0;      // which parameter has which rule
  virtual std::string signature() const = 0;  // of the rules
  virtual std::size_t state_bytes() const = 0;
  virtual std::size_t scratch_bytes() const = 0;
};

// Makes the device "cuda" or "cuda:N" of a model with these weights, which stay the host's copy: download() writes
// there. Empty unless a program sets it before run(), as the one that is compiled with nvcc does.
using device_maker =
    std::function<std::unique_ptr<device>(const run_settings&, const gpt_config&, std::span<float> weights)>;
device_maker& cuda_device_maker();

}  // namespace small_gpt
