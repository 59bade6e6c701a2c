// The device that is the processor itself: it works on the host's model in place.
#pragma once
#include <matopt/eigen.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/qk_clip.hpp>
#include <memory>
#include <vector>

#include "device.hpp"
#include "trained_model.hpp"

namespace MATOPT_NAMESPACE {
template <class Optimizer>
class step_observer;
}

namespace small_gpt {

class cpu_device : public device {
 public:
  using groups_type = matopt::param_groups<matopt::eigen_backend>;

  // The optimizer is that of the model's settings; both have to outlive this.
  cpu_device(trained_model& model, matopt::eigen_backend& cpu);
  ~cpu_device() override;

  step_report train_step(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                         double factor) override;
  double loss(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
              matopt::index_t sequences) override;
  void observe_next_step() override;
  std::vector<matrix_step> observed() override;
  void download() override {}
  void upload() override {}
  void store(matopt::tensor_file& file) override;
  void restore(const matopt::tensor_file& file, bool other_settings) override;
  std::string table() const override { return groups_.table(); }
  std::string signature() const override { return groups_.signature(); }
  std::size_t state_bytes() const override { return groups_.memory().state_bytes; }
  std::size_t scratch_bytes() const override { return groups_.memory().scratch_bytes; }

 private:
  double loss_and_gradients(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets);
  double clip_gradients();
  void clip_logits(step_report& report);

  trained_model* model_;
  matopt::eigen_backend* cpu_;
  groups_type groups_;
  std::vector<matopt::qk_clip<matopt::eigen_backend>> clips_;  // of each layer, with QK-clip
  std::unique_ptr<matopt::step_observer<groups_type>> observer_;
  // Only for a rule that estimates from two gradients: the weights before the last step, and the batch's gradient
  // there.
  std::vector<float> previous_, reference_;
  bool has_stepped_ = false;
};

}  // namespace small_gpt
