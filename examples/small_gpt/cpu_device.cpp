#include "cpu_device.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <matopt/state_io.hpp>
#include <matopt/step_observer.hpp>

#include "logit_clipping.hpp"
#include "rules.hpp"

namespace small_gpt {

namespace {

matopt::role role_of(tensor_role r) {
  switch (r) {
    case tensor_role::hidden:
      return matopt::role::hidden;
    case tensor_role::embedding:
      return matopt::role::embedding;
    case tensor_role::head:
      return matopt::role::head;
    case tensor_role::vector:
      break;
  }
  return matopt::role::vector;
}

}  // namespace

cpu_device::cpu_device(trained_model& m, matopt::eigen_backend& cpu)
    : model_(&m),
      cpu_(&cpu),
      groups_(rules().make(m.settings.rule, cpu, rule_settings(m.settings)), m.settings.lr,
              rules().make("adamw", cpu, other_settings(m.settings)), m.settings.other_lr) {
  // Every weight that the loss depends on is kept, not just those that the rule moves: the two gradients are to differ
  // by the last step and by nothing else.
  gpt<float>& model = m.model;
  if (groups_.needs_reference(matopt::role::hidden) || groups_.needs_reference(matopt::role::vector)) {
    reference_.assign(model.weights().size(), 0.0F);
    previous_.assign(model.weights().begin(), model.weights().end());
  }
  for (const auto& p : model.parameters()) {
    const auto w = matopt::row_major(p.value, p.rows, p.cols), g = matopt::row_major(p.gradient, p.rows, p.cols);
    if (reference_.empty())
      groups_.add(p.name, w, g, role_of(p.kind), {.row_blocks = p.row_blocks});
    else
      groups_.add(p.name, w, g,
                  matopt::row_major(reference_.data() + (p.gradient - model.gradients().data()), p.rows, p.cols),
                  role_of(p.kind), {.row_blocks = p.row_blocks});
  }
  groups_.finalize();

  if (m.settings.qk_clip > 0) {
    model.measure_attention_logits();
    clips_ = qk_clips<matopt::qk_clip<matopt::eigen_backend>>(
        cpu, model.config(), m.settings.qk_clip, model.weights().data(), model.largest_attention_logits().data());
  }
}
cpu_device::~cpu_device() = default;

// Of the batch: the gradient, and the reference gradient where the rule takes one.
double cpu_device::loss_and_gradients(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets) {
  gpt<float>& model = model_->model;
  const auto evaluate = [&] { return model.loss_and_gradient(cpu_->pool(), tokens, targets, model_->settings.batch); };
  if (reference_.empty()) return evaluate();
  const auto weights = model.weights();
  if (has_stepped_) {  // before that there is no last step, and the rule does not look at the reference
    std::swap_ranges(weights.begin(), weights.end(), previous_.begin());
    evaluate();
    std::swap_ranges(weights.begin(), weights.end(), previous_.begin());
    std::copy(model.gradients().begin(), model.gradients().end(), reference_.begin());
  }
  std::copy(weights.begin(), weights.end(), previous_.begin());  // the step to come leaves these
  return evaluate();
}

// Returns the norm before clipping. The reference shrinks with the gradient: what the rule is after is their
// difference.
double cpu_device::clip_gradients() {
  const auto g = model_->model.gradients();
  const double clip = model_->settings.clip;
  const Eigen::Map<Eigen::VectorXf> all(g.data(), static_cast<Eigen::Index>(g.size()));
  const double norm = std::sqrt(all.cast<double>().squaredNorm());
  if (clip > 0 && norm > clip) {
    const auto factor = static_cast<float>(clip / norm);
    Eigen::Map<Eigen::VectorXf>(g.data(), all.size()) *= factor;
    for (float& r : reference_) r *= factor;
  }
  return norm;
}

// A rule that keeps something of the weights learns of what was scaled.
void cpu_device::clip_logits(step_report& report) {
  if (clips_.empty()) return;
  for (auto& clip : clips_) clip();
  const auto largest = model_->model.largest_attention_logits();
  report.attention_logits.assign(largest.begin(), largest.end());
  const run_settings& s = model_->settings;
  for (const std::string& name : clipped_tensors(report.attention_logits, static_cast<std::size_t>(s.heads), s.qk_clip))
    groups_.resync(name);
}

step_report cpu_device::train_step(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                   double factor) {
  step_report report;
  report.loss = loss_and_gradients(tokens, targets);
  report.gradient_norm = clip_gradients();
  const auto before = std::chrono::steady_clock::now();
  try {
    groups_.step(factor);
  } catch (const matopt::bad_value& why) {
    throw refused_rate(why.what());
  }
  clip_logits(report);
  report.optimizer_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
  if (const auto status = groups_.poll_status(); !status) report.skipped = status.parameters;
  has_stepped_ = true;
  return report;
}

double cpu_device::loss(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                        matopt::index_t sequences) {
  return model_->model.loss(cpu_->pool(), tokens, targets, sequences);
}

void cpu_device::observe_next_step() {
  if (!observer_) observer_ = std::make_unique<matopt::step_observer<groups_type>>(groups_);
  observer_->before();
}

std::vector<matrix_step> cpu_device::observed() {
  std::vector<matrix_step> out;
  for (const auto& o : observer_->after())
    out.push_back({o.name, o.weight_norm, o.update_to_weight, o.gradient_norm, o.cosine});
  return out;
}

void cpu_device::store(matopt::tensor_file& file) {
  matopt::store_state(groups_, file);
  if (previous_.empty()) return;
  for (const auto& p : model_->model.parameters())
    store_tensor(file, "previous." + p.name, previous_.data() + (p.value - model_->model.weights().data()), p.rows,
                 p.cols);
}

void cpu_device::restore(const matopt::tensor_file& file, bool other_settings) {
  matopt::restore_options options;
  options.other_settings = other_settings;
  matopt::restore_state(groups_, file, options);
  has_stepped_ = metadata(file, "optimizer.steps") != "0";
  if (previous_.empty()) return;
  for (const auto& p : model_->model.parameters()) {
    const auto at = file.tensors.find("previous." + p.name);
    const auto bytes = static_cast<std::size_t>(p.rows * p.cols) * sizeof(float);
    if (at == file.tensors.end() || at->second.type != matopt::element_type::f32 || at->second.data.size() != bytes)
      throw matopt::bad_file("the checkpoint lacks the weights before its last step, \"previous." + p.name +
                             "\", which this rule needs");
    std::memcpy(previous_.data() + (p.value - model_->model.weights().data()), at->second.data.data(), bytes);
  }
}

}  // namespace small_gpt
