#include "trainer.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <matopt/policy/schedule/learning_rate.hpp>
#include <matopt/state_io.hpp>

#include "progress.hpp"
#include "stop_signals.hpp"

namespace small_gpt {

namespace {

using matopt::bad_file;
using nlohmann::json;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

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

// A run goes on only with the settings that it ran with so far: those of the file are compared with what this program
// makes of them.
void check_settings(const matopt::tensor_file& file, const run_settings& settings) {
  const auto at = file.metadata.find("small_gpt.effective");
  if (at == file.metadata.end()) {
    std::fprintf(stderr,
                 "note: the checkpoint is of an earlier version, and does not tell its settings and text in full\n");
    return;
  }
  const json stored = json::parse(at->second, nullptr, false);
  if (!stored.is_object()) throw bad_file("small_gpt.effective in the checkpoint is malformed");
  if (const std::string text = differences(stored, effective_settings(settings)); !text.empty())
    throw bad_file("the checkpoint's settings are not those that its run had:" + text);
}

}  // namespace

trainer::trainer(const run_settings& settings, matopt::eigen_backend& cpu, run_folder folder)
    : cpu_(&cpu), folder_(std::move(folder)) {
  small_gpt::validate(settings);
  const run_settings s = resolved(settings);
  rule_settings(s), other_settings(s);  // a misspelt rule is reported before a long text is read
  const std::string text = read_file(s.data);
  if (text.empty()) throw matopt::error("\"" + s.data + "\" is empty; a text to learn from is needed");
  model_ = std::make_unique<trained_model>(
      s, s.vocabulary == "byte" ? vocabulary::bytes() : vocabulary::characters(text), cpu.pool());
  model_->data.emplace(text, model_->words, s.context, s.train_fraction);
  model_->learned_from = digest_of(text);
  prepare();
  folder_.open();
  folder_.log(
      {{"settings", to_checked_json(s)}, {"parameters", model_->model.weights().size()}, {"threads", cpu.threads()}});
}

trainer::trainer(const std::string& checkpoint, const std::string& data, matopt::eigen_backend& cpu, run_folder folder)
    : cpu_(&cpu), folder_(std::move(folder)) {
  const matopt::tensor_file file = matopt::tensor_file::load(checkpoint);
  model_ = load_model(file, text_source::same(data), cpu.pool());
  check_settings(file, model_->settings);
  check_position(file);
  prepare();
  matopt::restore_state(*groups_, file);
  restore_previous(file);
  folder_.open(checkpoint);
  folder_.log({{"resumed", checkpoint}, {"step", step_}});
}

void trainer::check_position(const matopt::tensor_file& file) {
  const std::string text = metadata(file, "small_gpt.position"), steps = metadata(file, "optimizer.steps");
  const json position = json::parse(text, nullptr, false);
  const auto whole = [&](const char* key) {
    return position.is_object() && position.contains(key) && position.at(key).is_number();
  };
  if (!whole("step") || !whole("mean") || !position.at("step").is_number_integer() ||
      !std::isfinite(position.at("mean").get<double>()))
    throw bad_file("small_gpt.position in the checkpoint is malformed: " + text);
  const json& step = position.at("step");
  if (const json last = model_->settings.iterations; step < 0 || step > last)
    throw bad_file("the step in small_gpt.position is " + step.dump() + "; legal: 0 to " + last.dump());
  if (steps != step.dump())
    throw bad_file("the checkpoint's two counts of steps differ: small_gpt.position says " + step.dump() +
                   ", optimizer.steps " + steps);
  step_ = step.get<int>();
  mean_ = smoothed_loss(position.at("mean").get<double>());
}

// The optimizer, once the model stands.
void trainer::prepare() {
  const run_settings& s = model_->settings;
  groups_ = std::make_unique<matopt::param_groups<matopt::eigen_backend>>(
      rules().make(s.rule, *cpu_, rule_settings(s)), s.lr, rules().make("adamw", *cpu_, other_settings(s)), s.other_lr);
  // Every weight that the loss depends on is kept, not just those that the rule moves: the two gradients are to differ
  // by the last step and by nothing else.
  gpt<float>& model = model_->model;
  if (groups_->needs_reference(matopt::role::hidden) || groups_->needs_reference(matopt::role::vector)) {
    reference_.assign(model.weights().size(), 0.0F);
    previous_.assign(model.weights().begin(), model.weights().end());
  }
  for (const auto& p : model.parameters()) {
    const auto w = matopt::row_major(p.value, p.rows, p.cols), g = matopt::row_major(p.gradient, p.rows, p.cols);
    if (reference_.empty())
      groups_->add(p.name, w, g, role_of(p.kind), {.row_blocks = p.row_blocks});
    else
      groups_->add(p.name, w, g,
                   matopt::row_major(reference_.data() + (p.gradient - model.gradients().data()), p.rows, p.cols),
                   role_of(p.kind), {.row_blocks = p.row_blocks});
  }
  groups_->finalize();
  const auto per_step = static_cast<std::size_t>(s.batch) * static_cast<std::size_t>(s.context);
  tokens_.resize(per_step), targets_.resize(per_step);
}

double trainer::rate_factor(int step) const {
  const run_settings& s = model_->settings;
  if (s.schedule == "constant") return matopt::constant_rate{s.warmup}.factor(step);
  if (s.schedule == "cosine") return matopt::cosine_rate{s.warmup, s.iterations, s.lr_floor}.factor(step);
  const auto decay = static_cast<index_t>(std::lround(s.decay_fraction * s.iterations));
  return matopt::warmup_stable_decay{s.warmup, s.iterations, decay, s.lr_floor}.factor(step);
}

// Of the batch that is loaded: the gradient, and the reference gradient where the rule takes one.
double trainer::loss_and_gradients() {
  gpt<float>& model = model_->model;
  const auto evaluate = [&] {
    return model.loss_and_gradient(cpu_->pool(), tokens_, targets_, model_->settings.batch);
  };
  if (reference_.empty()) return evaluate();
  const auto weights = model.weights();
  if (step_ > 0) {  // before that there is no last step, and the rule does not look at the reference
    std::swap_ranges(weights.begin(), weights.end(), previous_.begin());
    evaluate();
    std::swap_ranges(weights.begin(), weights.end(), previous_.begin());
    std::copy(model.gradients().begin(), model.gradients().end(), reference_.begin());
  }
  std::copy(weights.begin(), weights.end(), previous_.begin());  // the step to come leaves these
  return evaluate();
}

// The reference shrinks with the gradient: what the rule is after is their difference.
void trainer::clip_gradients() {
  const auto g = model_->model.gradients();
  const Eigen::Map<Eigen::VectorXf> all(g.data(), static_cast<Eigen::Index>(g.size()));
  const double norm = std::sqrt(all.cast<double>().squaredNorm());
  if (!(norm > model_->settings.clip)) return;
  const auto factor = static_cast<float>(model_->settings.clip / norm);
  Eigen::Map<Eigen::VectorXf>(g.data(), all.size()) *= factor;
  for (float& r : reference_) r *= factor;
}

void trainer::restore_previous(const matopt::tensor_file& file) {
  if (previous_.empty()) return;
  for (const auto& p : model_->model.parameters()) {
    const auto at = file.tensors.find("previous." + p.name);
    const auto bytes = static_cast<std::size_t>(p.rows * p.cols) * sizeof(float);
    if (at == file.tensors.end() || at->second.type != matopt::element_type::f32 || at->second.data.size() != bytes)
      throw bad_file("the checkpoint lacks the weights before its last step, \"previous." + p.name +
                     "\", which this rule needs");
    std::memcpy(previous_.data() + (p.value - model_->model.weights().data()), at->second.data.data(), bytes);
  }
}

// A checkpoint is good if the next step will find no divergence in it; only such a one takes the place of the last.
void trainer::save(train_result& result) {
  const run_settings& s = model_->settings;
  gpt<float>& model = model_->model;
  model_->text().batch(s.seed, static_cast<std::uint64_t>(step_), tokens_, targets_);
  smoothed_loss next = mean_;
  next.add(model.loss(cpu_->pool(), tokens_, targets_, s.batch));
  if (!model_->finite()) {
    result.why = "weights are not finite";
  } else if (const double loss = next.after(step_ + 1); shows_divergence(loss, model_->words.size())) {
    result.why = divergence_of("smoothed loss", loss, model_->words.size());
  }
  if (!result.why.empty()) return;

  matopt::tensor_file file;
  store_model(*model_, file);
  matopt::store_state(*groups_, file);
  if (!previous_.empty())
    for (const auto& p : model.parameters())
      store_tensor(file, "previous." + p.name, previous_.data() + (p.value - model.weights().data()), p.rows, p.cols);
  file.metadata["small_gpt.effective"] = effective_settings(s).dump();
  file.metadata["small_gpt.position"] = json{{"step", step_}, {"mean", mean_.raw()}}.dump();
  file.save(checkpoint_path());
  result.saved = step_;
}

train_result trainer::run() {
  const stop_signals signals;
  train_result result;
  const int first = step_;
  try {
    train(result);
    if (result.why.empty()) save(result);
  } catch (const bad_file&) {  // of the log, perhaps: the checkpoint may still be possible
    if (result.why.empty()) try {
        save(result);
      } catch (const matopt::error&) {
      }
    throw;
  }
  result.step = step_, result.steps = step_ - first;
  if (result.seconds > 0)
    result.tokens_per_second = result.steps * static_cast<double>(tokens_per_step()) / result.seconds;
  if (!result.why.empty()) {
    result.end = outcome::diverged;
    folder_.log({{"step", step_}, {"diverged", result.why}});
  } else if (step_ < model_->settings.iterations || !result.validation || result.validation->step != step_) {
    result.end = outcome::stopped;
    folder_.log({{"step", step_}, {"stopped", stop_signals::name_of(stop_signals::received())}});
  }
  return result;
}

void trainer::train(train_result& result) {
  const run_settings& s = model_->settings;
  progress bar(s.iterations, s.eval_interval);
  const int first = step_;
  double in_optimizer = 0;

  while (step_ < s.iterations && stop_signals::received() == 0) {
    const auto start = std::chrono::steady_clock::now();
    model_->text().batch(s.seed, static_cast<std::uint64_t>(step_), tokens_, targets_);
    const double loss = loss_and_gradients();
    mean_.add(loss);
    const double smoothed = mean_.after(step_ + 1);
    if (shows_divergence(smoothed, model_->words.size())) {
      result.why = divergence_of(std::isfinite(loss) ? "smoothed loss" : "loss", std::isfinite(loss) ? smoothed : loss,
                                 model_->words.size());
      return;
    }
    if (s.clip > 0) clip_gradients();
    const auto before = std::chrono::steady_clock::now();
    const double factor = rate_factor(step_);
    groups_->step(factor);
    in_optimizer += seconds_since(before);
    result.seconds += seconds_since(start);
    ++step_;

    const double rate = (step_ - first) * static_cast<double>(tokens_per_step()) / result.seconds;
    result.optimizer_share = in_optimizer / result.seconds;
    result.train_curve.emplace_back(step_ * static_cast<double>(tokens_per_step()), smoothed);
    char text[160];
    std::snprintf(text, sizeof text, "loss %.4f  smoothed %.4f  lr %.2e  %.0f tokens/s  optimizer %.1f %%", loss,
                  smoothed, s.lr * factor, rate, 100 * result.optimizer_share);
    bar.show(step_, text);
    folder_.log({{"step", step_},
                 {"loss", loss},
                 {"smoothed", smoothed},
                 {"lr", s.lr * factor},
                 {"tokens_per_second", rate},
                 {"optimizer_share", result.optimizer_share}});
    if (const auto status = groups_->poll_status(); !status) {
      folder_.log({{"step", step_}, {"skipped", status.parameters}});
      bar.clear();
      std::fprintf(stderr, "step %d skipped: gradients of %zu parameters are not finite\n", step_,
                   status.parameters.size());
      if (++skipped_ == most_skipped_steps) {
        result.why = std::to_string(skipped_) + " steps in a row were skipped, as their gradients were not finite";
        return;
      }
    } else {
      skipped_ = 0;
    }
    if (step_ % s.eval_interval == 0 || step_ == s.iterations) {
      bar.clear();
      evaluate(result);
    }
    if (result.why.empty() && step_ % s.checkpoint_interval == 0 && step_ < s.iterations) save(result);
    if (!result.why.empty()) return;
  }
  if (step_ == s.iterations && !result.validation) evaluate(result);  // resumed at its end
}

// Nothing is told of an evaluation that a signal broke off.
void trainer::evaluate(train_result& result) {
  const auto stopped = [] { return stop_signals::received() != 0; };
  const double loss = model_->validation_loss(cpu_->pool(), model_->settings.eval_windows, stopped);
  if (std::isnan(loss) && stopped()) return;
  if (shows_divergence(loss, model_->words.size())) {
    result.why = divergence_of("validation loss", loss, model_->words.size());
    return;
  }
  const double bits = model_->text().validation_bits_per_byte(loss);
  result.validation = {step_, loss, bits};
  result.validation_curve.emplace_back(step_ * static_cast<double>(tokens_per_step()), loss);
  folder_.log({{"step", step_}, {"validation", loss}, {"bits_per_byte", bits}});
  std::fprintf(stderr, "step %d  validation %.4f nats, %.4f bits per byte\n", step_, loss, bits);
}

}  // namespace small_gpt
