// One training run: model, data, optimizer and log, from the first step or from a checkpoint.
#pragma once
#include <chrono>
#include <matopt/eigen.hpp>
#include <matopt/tensor_file.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "device.hpp"
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
};

class trainer {
 public:
  // A fresh run. The folder is opened last, when nothing can be wrong with the rest. `given` names the settings that
  // the user gave, and that a folder of tokens must not contradict.
  trainer(const run_settings& settings, matopt::eigen_backend& cpu, run_folder folder,
          const std::set<std::string>& given = {});
  // Continues the run that wrote `checkpoint`, bit for bit; `data` replaces the path of the text if it is not empty.
  trainer(const std::string& checkpoint, const std::string& data, matopt::eigen_backend& cpu, run_folder folder);
  // A fresh run that begins with the weights of a checkpoint and at its step, with settings of its own: another rate,
  // rule, or length. The optimizer's state comes along if the rule is the same, and begins anew if it is not.
  struct branch {
    std::string checkpoint;
    run_settings settings;
  };
  trainer(const branch& from, matopt::eigen_backend& cpu, run_folder folder);

  // Trains to the last iteration, until a signal asks to stop (stop_signals.hpp), or until the run diverges
  // (divergence.hpp). Leaves a checkpoint, but never one of a run that diverged: the last good one stays.
  train_result run();

  trained_model& model() { return *model_; }
  const small_gpt::device& device() const { return *device_; }
  int step() const { return step_; }
  std::string checkpoint_path() const { return folder_.checkpoint_path(); }

 private:
  void prepare();
  void begin_log(nlohmann::json more);
  void check_position(const matopt::tensor_file& file);
  double rate_factor(int step) const;
  void train(train_result& result);
  void evaluate(train_result& result);
  void save(train_result& result);
  std::size_t tokens_per_step() const { return tokens_.size(); }
  double elapsed() const;

  matopt::eigen_backend* cpu_;
  run_folder folder_;
  std::unique_ptr<trained_model> model_;
  std::unique_ptr<small_gpt::device> device_;
  std::vector<std::int32_t> tokens_, targets_;  // the batch
  int step_ = 0;
  int first_step_ = 0;  // of the optimizer: above 0 in a branch that began with a fresh one
  int skipped_ = 0;     // steps in a row, up to now
  smoothed_loss mean_;
  double seconds_before_ = 0, elapsed_before_ = 0;  // of the processes that trained before this one
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace small_gpt
