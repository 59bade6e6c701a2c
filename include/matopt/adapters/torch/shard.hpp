// torch_shard: the parameters of one device and one compute type, as an optimizer of the engine. A torch_optimizer has
// one for each pair that occurs, and knows them by this interface.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../../engine/rule_registry.hpp"
#include "../../param_groups.hpp"
#include "matrix.hpp"

namespace MATOPT_NAMESPACE {

// What a program says once for each backend that it uses: the kind of device, how a backend is made for one, and what
// has to stand around the work of an optimizer (`turn`). torch/cpu.hpp and torch/cuda.cuh have them.
template <class Backend>
struct torch_device;

class torch_shard {
 public:
  struct place {
    void* data = nullptr;
    detail::torch_matrix matrix{};
  };

  virtual ~torch_shard() = default;
  virtual bool knows_group(const std::string& label) const = 0;
  virtual void add_group(const std::string& label, const std::string& rule, const std::vector<setting>& settings,
                         double lr) = 0;
  virtual void set(const std::string& label, const std::string& name, const std::string& value) = 0;
  // `reference` for rules that need one.
  virtual void add(const std::string& name, place weight, place gradient, const place* reference,
                   const std::string& group) = 0;
  virtual void drop(const std::string& name) = 0;
  // Plans memory for what was added; nothing to do if there is no parameter.
  virtual void finalize() = 0;
  // Weights and gradients in the order of addition. Null: no gradient in this step.
  virtual void rebind(const std::vector<void*>& weights, const std::vector<void*>& gradients) = 0;
  virtual void resync(const std::string& name) = 0;
  virtual void step() = 0;

  virtual std::vector<state_tensor> state_tensors() const = 0;
  virtual void read_state(const state_tensor& t, void* host) const = 0;
  virtual void write_state(const state_tensor& t, const void* host) = 0;
  virtual void set_steps(index_t steps) = 0;
  virtual step_status poll_status() = 0;
};

namespace detail {

template <class Backend, class Types>
class typed_torch_shard final : public torch_shard {
  using T = typename Types::weight;
  using turn = typename torch_device<Backend>::turn;

 public:
  typed_torch_shard(std::shared_ptr<const rule_registry<Backend, Types>> rules, at::Device device,
                    const optimizer_options& options)
      : rules_(std::move(rules)), backend_(torch_device<Backend>::make(device)), groups_(*backend_, options) {}

  bool knows_group(const std::string& label) const override {
    return std::find(labels_.begin(), labels_.end(), label) != labels_.end();
  }
  void add_group(const std::string& label, const std::string& rule, const std::vector<setting>& settings,
                 double lr) override {
    groups_.add_group(label, rules_->rule(rule, settings), lr);
    labels_.push_back(label);
  }
  void set(const std::string& label, const std::string& name, const std::string& value) override {
    groups_.set(label, name, value);
  }
  void add(const std::string& name, place w, place g, const place* r, const std::string& group) override {
    const auto gradient = g.matrix.template at<const T>(g.data);
    if (r)
      groups_.add(name, w.matrix.template at<T>(w.data), gradient, r->matrix.template at<const T>(r->data), group);
    else
      groups_.add(name, w.matrix.template at<T>(w.data), gradient, group);
    changed_ = true;
  }
  void drop(const std::string& name) override {
    groups_.drop(name);
    changed_ = true;
  }
  void finalize() override {
    if (!changed_ || groups_.empty()) return;
    const turn here(*backend_);
    groups_.finalize();
    changed_ = false, planned_ = true;
  }
  void rebind(const std::vector<void*>& weights, const std::vector<void*>& gradients) override {
    const std::vector<T*> w = as<T*>(weights);
    const std::vector<const T*> g = as<const T*>(gradients);
    groups_.rebind(std::span<T* const>(w), std::span<const T* const>(g));
  }
  void resync(const std::string& name) override {
    const turn here(*backend_);
    groups_.resync(name);
  }
  void step() override {
    const turn here(*backend_);
    groups_.step();
  }
  std::vector<state_tensor> state_tensors() const override {
    return planned_ ? groups_.state_tensors() : std::vector<state_tensor>();
  }
  void read_state(const state_tensor& t, void* host) const override {
    const turn here(*backend_);
    groups_.read_state(t, host);
  }
  void write_state(const state_tensor& t, const void* host) override {
    const turn here(*backend_);
    groups_.write_state(t, host);
  }
  void set_steps(index_t steps) override { groups_.set_steps(steps); }
  step_status poll_status() override {
    const turn here(*backend_);
    return planned_ ? groups_.poll_status() : step_status{};
  }

 private:
  template <class P>
  static std::vector<P> as(const std::vector<void*>& all) {
    std::vector<P> out(all.size());
    std::transform(all.begin(), all.end(), out.begin(), [](void* p) { return static_cast<P>(p); });
    return out;
  }

  std::shared_ptr<const rule_registry<Backend, Types>> rules_;
  std::unique_ptr<Backend> backend_;
  param_groups<Backend, Types> groups_;
  std::vector<std::string> labels_;
  bool changed_ = false, planned_ = false;
};

}  // namespace detail

}  // namespace MATOPT_NAMESPACE
