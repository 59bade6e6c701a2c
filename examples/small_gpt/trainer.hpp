// One training run: model, data, optimizer and log, from the first step or from a checkpoint.
#pragma once
#include <fstream>
#include <matopt/eigen.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/tensor_file.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data.hpp"
#include "model.hpp"
#include "rules.hpp"
#include "run_settings.hpp"

namespace small_gpt {

extern template class gpt<float>;  // compiled once, in model.cpp

// A model with its vocabulary, and the text that it learns from or is measured on.
struct trained_model {
  run_settings settings;
  vocabulary words;
  gpt<float> model;
  std::optional<dataset> data;

  trained_model(const run_settings& s, vocabulary v, const matopt::thread_pool& pool);
  const dataset& text() const;  // error if there is none
  // Mean cross entropy on the first `windows` windows of the validation text (0: all), in nats per token.
  double validation_loss(matopt::thread_pool& pool, int windows);
};

struct train_result {
  double validation_loss = 0, bits_per_byte = 0, seconds = 0, optimizer_share = 0, tokens_per_second = 0;
  int steps = 0;
  bool interrupted = false;
  std::vector<std::pair<double, double>> train_curve, validation_curve;  // (tokens, nats per token)
};

class trainer {
 public:
  // A fresh run. `folder` gets log.jsonl and checkpoint.safetensors.
  trainer(const run_settings& settings, matopt::eigen_backend& cpu, const std::string& folder);
  // Continues the run that wrote `checkpoint`, bit for bit; `data` replaces the path of the text if it is not empty.
  trainer(const std::string& checkpoint, const std::string& data, matopt::eigen_backend& cpu,
          const std::string& folder);

  // Trains to the last iteration, or until a stop is requested, and leaves a checkpoint.
  train_result run();

  trained_model& model() { return *model_; }
  const matopt::param_groups<optimizer, optimizer>& groups() const { return *groups_; }
  std::string checkpoint_path() const { return folder_ + "/checkpoint.safetensors"; }

 private:
  void prepare();
  double rate_factor(int step) const;
  double loss_and_gradients();
  void clip_gradients();
  void save();
  void restore_previous(const matopt::tensor_file& file);
  void log(const nlohmann::json& line);

  matopt::eigen_backend* cpu_;
  std::string folder_;
  std::unique_ptr<trained_model> model_;
  std::unique_ptr<matopt::param_groups<optimizer, optimizer>> groups_;
  std::ofstream log_;
  std::vector<std::int32_t> tokens_, targets_;  // the batch
  // Only for a rule that estimates from two gradients: the weights before the last step, and the batch's gradient
  // there.
  std::vector<float> previous_, reference_;
  int step_ = 0;
  double mean_ = 0;  // of the losses, weighted towards the recent ones
};

// Ends a running trainer::run() after its current step; safe in a signal handler.
void request_stop();
bool stop_requested();

// The model of a checkpoint; factored tensors ("name.left", "name.right") are multiplied out. `data` as in trainer; "-"
// for none.
std::unique_ptr<trained_model> load_model(const matopt::tensor_file& file, const std::string& data,
                                          const matopt::thread_pool& pool);
// Weights, settings and vocabulary.
void store_model(trained_model& m, matopt::tensor_file& file);

}  // namespace small_gpt
