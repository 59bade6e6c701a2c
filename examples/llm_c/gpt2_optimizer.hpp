// The optimizer of an llm.c trainer, in the place of its update function: a matrix rule for the matrices of the layers,
// AdamW for everything else. Backend: matopt::eigen_backend for buffers of the host, matopt::cuda_backend for buffers
// of a device.
#pragma once
#include <matopt/adamw.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/state_io.hpp>
#include <memory>
#include <optional>
#include <string>

#include "gpt2_memory.hpp"

namespace llm_c {

template <class Backend>
class gpt2_optimizer {
  using groups = matopt::param_groups<Backend>;

 public:
  // `matrices`: the rule of the hidden matrices. Both rates are those at the schedule's top.
  template <class Rule>
  gpt2_optimizer(Backend& backend, const gpt2_shape& shape, Rule matrices, double matrix_lr, double other_lr,
                 double decay)
      : shape_(shape), opt_(backend, {.scales_gradient = true}) {
    opt_.add_group("matrices", matrices, matrix_lr);
    opt_.add_group(
        "others", matopt::adamw{.momentum = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}, .constraint = {.decay = decay}},
        other_lr);
  }

  // One step. `factor` is the schedule's, 1 at its top; `gradient_scale` clips: 1, or the bound over the norm.
  // The first call is the first that sees the gradients' buffer, which llm.c allocates in its first backward pass.
  void update(float* params, const float* grads, double factor, double gradient_scale = 1) {
    if (!bound_) bind(params, grads);
    opt_.step(factor, gradient_scale);
  }

  // In llm.c's order: the weights are written and read by the trainer, the state by these two, before there are
  // gradients.
  void save(const std::string& path) const { matopt::save_state(opt_, path); }
  void load(const std::string& path) { saved_ = matopt::tensor_file::load(path); }

  std::string table() const { return opt_.table(); }
  matopt::step_status poll_status() { return opt_.poll_status(); }
  index_t steps() const { return opt_.steps(); }

 private:
  void bind(float* params, const float* grads) {
    for (const tensor& t : tensors(shape_)) {
      const auto w = matopt::row_major(params + t.offset, t.rows, t.cols, t.layers);
      const auto g = matopt::row_major(grads + t.offset, t.rows, t.cols, t.layers);
      matopt::parameter_options options;
      if (t.blocks > 1) options.row_blocks.assign(static_cast<std::size_t>(t.blocks), t.rows / t.blocks);
      if (t.kind == matopt::role::vector) options.decay = 0;
      opt_.add(t.name, w, g, t.kind == matopt::role::hidden ? "matrices" : "others", options);
    }
    opt_.finalize();
    if (saved_) matopt::restore_state(opt_, *saved_);
    saved_.reset();
    bound_ = true;
  }

  gpt2_shape shape_;
  groups opt_;
  bool bound_ = false;
  std::optional<matopt::tensor_file> saved_;
};

}  // namespace llm_c
