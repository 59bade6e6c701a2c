// One training run: model, data, optimizer and log, from the first step or from a checkpoint.
#pragma once
#include <matopt/eigen.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/tensor_file.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "divergence.hpp"
#include "rules.hpp"
#include "run_folder.hpp"
#include "trained_model.hpp"

namespace small_gpt {

enum class outcome { done, stopped, diverged };

struct evaluation {
  int step;
  double loss, bits_per_byte;  // on the validation text: nats per token, and the same per byte
};

struct train_result {
  outcome end = outcome::done;
  std::string why;                       // it diverged
  std::optional<evaluation> validation;  // the last one of this process
  int step = 0, steps = 0;               // where it ended, and how many were made by this process
  std::optional<int> saved;              // the step of the checkpoint that this process left
  double seconds = 0, optimizer_share = 0, tokens_per_second = 0;
  std::vector<std::pair<double, double>> train_curve, validation_curve;  // (tokens, nats per token)
};

class trainer {
 public:
  // A fresh run. The folder is opened last, when nothing can be wrong with the rest.
  trainer(const run_settings& settings, matopt::eigen_backend& cpu, run_folder folder);
  // Continues the run that wrote `checkpoint`, bit for bit; `data` replaces the path of the text if it is not empty.
  trainer(const std::string& checkpoint, const std::string& data, matopt::eigen_backend& cpu, run_folder folder);

  // Trains to the last iteration, until a signal asks to stop (stop_signals.hpp), or until the run diverges
  // (divergence.hpp). Leaves a checkpoint, but never one of a run that diverged: the last good one stays.
  train_result run();

  trained_model& model() { return *model_; }
  const matopt::param_groups<matopt::eigen_backend>& groups() const { return *groups_; }
  std::string checkpoint_path() const { return folder_.checkpoint_path(); }

 private:
  void prepare();
  void check_position(const matopt::tensor_file& file);
  double rate_factor(int step) const;
  double loss_and_gradients();
  void clip_gradients();
  void train(train_result& result);
  void evaluate(train_result& result);
  void save(train_result& result);
  void restore_previous(const matopt::tensor_file& file);
  std::size_t tokens_per_step() const { return tokens_.size(); }

  matopt::eigen_backend* cpu_;
  run_folder folder_;
  std::unique_ptr<trained_model> model_;
  std::unique_ptr<matopt::param_groups<matopt::eigen_backend>> groups_;
  std::vector<std::int32_t> tokens_, targets_;  // the batch
  // Only for a rule that estimates from two gradients: the weights before the last step, and the batch's gradient
  // there.
  std::vector<float> previous_, reference_;
  int step_ = 0;
  int skipped_ = 0;  // steps in a row, up to now
  smoothed_loss mean_;
};

}  // namespace small_gpt
