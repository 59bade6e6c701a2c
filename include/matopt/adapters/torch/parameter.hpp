// torch_parameter: a tensor that a torch_optimizer steps, and what is kept of it from step to step; torch_step_tensors:
// the memory that one step reads and writes, which is the tensor's own wherever that will do.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/where.h>
#include <c10/core/InferenceMode.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shard.hpp"

namespace MATOPT_NAMESPACE::detail {

// Both are undefined for a tensor that takes no part.
struct torch_step_tensors {
  at::Tensor weight, gradient;  // the gradient is undefined if there is none
};

class torch_parameter {
 public:
  torch_parameter(at::Tensor t, std::string called, std::size_t in_group, bool is_stacked, bool keeps_master)
      : tensor(std::move(t)),
        name(std::move(called)),
        group(in_group),
        stacked(is_stacked),
        wants_master(keeps_master) {}

  at::Tensor tensor;
  std::string name;
  std::size_t group;
  bool stacked, wants_master;
  torch_shard* shard = nullptr;  // of which it is a part; null until it takes part
  at::Tensor master{};           // the weight in the compute type, if it is kept
  at::Tensor reference{};        // the second gradient, for rules that estimate from two
  bool reference_is_new = false, has_stepped = false;

  bool has_elements() const { return tensor.numel() > 0; }
  at::ScalarType compute_type() const { return compute_type_of(name, tensor); }
  const at::Tensor& gradient() const { return tensor.grad(); }

  // Decides, once, by what strides the optimizer sees it.
  void lay_out() {
    const at::IntArrayRef sizes = tensor.sizes();
    sizes_ = sizes.vec(), device_ = tensor.device(), type_ = compute_type();
    const bool own = tensor.scalar_type() == type_ && matrix_of(sizes, tensor.strides(), stacked).has_value();
    weight_strides_ = own ? tensor.strides().vec() : dense_strides(sizes);
    gradient_strides_ = own && tensor.is_non_overlapping_and_dense() ? weight_strides_ : dense_strides(sizes);
    master = reference = at::Tensor();
    make_master();
    version_ = version();
    reference_is_new = has_stepped = false;
  }
  torch_matrix weight_matrix() const { return *matrix_of(sizes_, weight_strides_, stacked); }
  torch_matrix gradient_matrix() const { return *matrix_of(sizes_, gradient_strides_, stacked); }
  at::Tensor empty_gradient() const { return empty(gradient_strides_); }

  // The gradient in a form that the optimizer can read, or undefined. Throws bad_value for one that cannot belong to
  // the tensor.
  at::Tensor readable(const at::Tensor& g, const char* kind) const {
    if (!g.defined()) return {};
    const std::string what = std::string(kind) + " of \"" + name + '"';
    if (g.layout() != at::kStrided) throw bad_value(what, "sparse", "a dense tensor");
    if (!at::isFloatingType(g.scalar_type()))
      throw bad_value(what, std::string("of type ") + at::toString(g.scalar_type()), "of real numbers");
    if (g.sizes() != tensor.sizes())
      throw bad_value(what, "of shape " + text(g.sizes()), text(tensor.sizes()) + ", that of the parameter");
    if (g.device() != tensor.device())
      throw bad_value(what, "on " + g.device().str(), "on " + tensor.device().str() + ", where the parameter is");
    if (g.scalar_type() == type_ && !g.is_neg() && same_strides(sizes_, g.strides(), gradient_strides_))
      return g.detach();
    return empty_gradient().copy_(g);
  }
  torch_step_tensors for_step() {
    if (tensor.sizes() != sizes_)
      throw bad_value("shape of \"" + name + '"', text(tensor.sizes()), text(sizes_) + ", as in the steps before");
    if (tensor.device() != device_)
      throw bad_value("device of \"" + name + '"', tensor.device().str(),
                      device_.str() + ", as in the steps before; move a model before its optimizer has stepped");
    if (compute_type() != type_)
      throw bad_value("type of \"" + name + '"', at::toString(tensor.scalar_type()),
                      std::string("one that is computed in ") + at::toString(type_) + ", as in the steps before");
    make_master();
    return {weight(), readable(gradient(), "gradient")};
  }
  // Somebody else has written the tensor since the last step, as far as PyTorch knows.
  bool was_written() const { return version() != version_; }
  // What was written replaces the master, but for entries that are only its rounding.
  void take_written() {
    if (master.defined()) master.copy_(at::where(master.to(tensor.scalar_type()).eq(tensor), master, tensor.to(type_)));
  }
  // After the step: `used` is what for_step() gave.
  void write_back(const torch_step_tensors& used) {
    if (!used.weight.is_alias_of(tensor))
      tensor.copy_(used.weight);
    else if (!tensor.is_inference())
      tensor.unsafeGetTensorImpl()->bump_version();  // so that autograd sees the write
    version_ = version();
    has_stepped = true, reference_is_new = false;
  }
  void set_reference(const at::Tensor& g) {
    const at::Tensor usable = readable(g, "reference gradient");
    if (!usable.defined()) throw bad_value("reference gradient of \"" + name + '"', "undefined", "a tensor");
    reference.copy_(usable);
    reference_is_new = true;
  }

 private:
  // Of a tensor of 16 bits, which it may have become since the last step.
  void make_master() {
    if (wants_master && !master.defined() && tensor.scalar_type() != type_)
      master = empty(weight_strides_).copy_(tensor);
  }
  // What is kept has to be writable after an inference mode, too.
  at::Tensor empty(const std::vector<int64_t>& strides) const {
    const c10::InferenceMode off(false);
    return at::empty_strided(sizes_, strides, at::TensorOptions().dtype(type_).device(device_));
  }
  at::Tensor weight() const {
    if (master.defined()) return master;
    if (tensor.scalar_type() == type_ && !tensor.is_neg() && same_strides(sizes_, tensor.strides(), weight_strides_))
      return tensor.detach();
    return empty(weight_strides_).copy_(tensor);
  }
  // Changes with every write that PyTorch knows of, and with another memory.
  std::pair<const void*, std::uint32_t> version() const {
    const auto& counter = tensor.unsafeGetTensorImpl()->version_counter();
    return {tensor.data_ptr(), counter.enabled() ? counter.current_version() : 0};
  }

  std::vector<int64_t> sizes_, weight_strides_, gradient_strides_;
  at::Device device_ = at::kCPU;
  at::ScalarType type_ = at::kFloat;
  std::pair<const void*, std::uint32_t> version_{};
};

}  // namespace MATOPT_NAMESPACE::detail
