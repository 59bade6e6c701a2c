#include "trainer.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <limits>
#include <matopt/policy/schedule/learning_rate.hpp>
#include <matopt/version.hpp>
#include <tuple>

#include "command_line.hpp"
#include "cpu_device.hpp"
#include "logit_clipping.hpp"
#include "measurements.hpp"
#include "processor.hpp"
#include "progress.hpp"
#include "run_record.hpp"
#include "stop_signals.hpp"

namespace small_gpt {

namespace {

using matopt::bad_file;
using nlohmann::json;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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
  json stored = json::parse(at->second, nullptr, false);
  if (!stored.is_object()) throw bad_file("small_gpt.effective in the checkpoint is malformed");
  add_later_settings(stored);
  if (const std::string text = differences(stored, effective_settings(settings)); !text.empty())
    throw bad_file("the checkpoint's settings are not those that its run had:" + text);
}

// Between the settings of a log, by its first line, and those of the checkpoint beside it.
std::string differences_of(const json& header, const run_settings& settings) {
  json logged = header.is_object() ? header.value("effective", json()) : json();
  if (!logged.is_object()) return {};  // an old one
  add_later_settings(logged);
  return differences(logged, effective_settings(settings));
}

// A training goes on from its checkpoint, not from a model alone.
void require_training(const matopt::tensor_file& file, const std::string& path) {
  metadata(file, "small_gpt.settings");
  for (const char* key : {"small_gpt.position", "optimizer.steps"})
    if (!file.metadata.contains(key))
      throw bad_file(
          "\"" + path +
          "\" holds a model, as `export` and `compress --save` write it, and no training to go on with: it has no \"" +
          key + '"');
}

}  // namespace

device_maker& cuda_device_maker() {
  static device_maker maker;
  return maker;
}

trainer::trainer(const run_settings& settings, matopt::eigen_backend& cpu, run_folder folder,
                 const std::set<std::string>& given)
    : cpu_(&cpu), folder_(std::move(folder)) {
  small_gpt::validate(settings);
  run_settings s = resolved(settings);
  rule_settings(s), other_settings(s);  // a misspelt rule is reported before a long text is read
  source_of_tokens source(s.data);
  vocabulary words = source.fresh_vocabulary(s);
  source.settle_vocabulary(s, words, given);
  model_ = std::make_unique<trained_model>(s, std::move(words), cpu.pool());
  model_->data.emplace(source.data(model_->words, s));
  model_->learned_from = source.digest;
  prepare();
  folder_.open();
  begin_log(json::object());
}

trainer::trainer(const std::string& checkpoint, const std::string& data, matopt::eigen_backend& cpu, run_folder folder)
    : cpu_(&cpu), folder_(std::move(folder)) {
  const matopt::tensor_file file = matopt::tensor_file::load(checkpoint);
  require_training(file, checkpoint);
  model_ = load_model(file, text_source::same(data), cpu.pool());
  check_settings(file, model_->settings);
  check_position(file);
  prepare();
  device_->restore(file, false);
  folder_.open(checkpoint);
  auto before = folder_.times_at(step_);
  if (!before) before = run_folder((std::filesystem::path(checkpoint).parent_path() / ".").string()).times_at(step_);
  if (before) std::tie(seconds_before_, elapsed_before_) = *before;
  json header = folder_.header();
  if (const std::string text = differences_of(header, model_->settings); !text.empty()) {
    // --force emptied the log of this run, for another one that then ended before its first checkpoint.
    folder_.begin_anew("is of another run than the checkpoint:" + text);
    header = {};
  }
  if (header.is_null()) begin_log(json::object());  // also into another folder than the checkpoint's
  folder_.log({{"resumed", checkpoint}, {"step", step_}});
}

trainer::trainer(const branch& from, matopt::eigen_backend& cpu, run_folder folder)
    : cpu_(&cpu), folder_(std::move(folder)) {
  const matopt::tensor_file file = matopt::tensor_file::load(from.checkpoint);
  require_training(file, from.checkpoint);
  model_ = load_model(file, text_source::named(from.settings.data), cpu.pool());
  const run_settings old = model_->settings;
  model_->settings.iterations = std::numeric_limits<int>::max();
  check_position(file);
  small_gpt::validate(from.settings);
  const std::string data = model_->settings.data;
  model_->settings = resolved(from.settings);
  model_->settings.data = data;
  if (!from.settings.data.empty()) model_->learned_from = source_of_tokens(data).digest;
  const run_settings& s = model_->settings;
  if (step_ >= s.iterations)
    throw matopt::bad_value("--iterations", std::to_string(s.iterations),
                            "more than the steps of the checkpoint, " + std::to_string(step_));
  const bool same_rule = s.rule == old.rule;
  if (!same_rule) first_step_ = step_;
  prepare();
  if (same_rule) device_->restore(file, true);
  folder_.open();
  begin_log({{"branched_from", from.checkpoint},
             {"at_step", step_},
             {"optimizer", same_rule ? "with its state" : "fresh: the rule is another one"}});
}

// The first line of a log: what was asked, what that comes to, and where it ran.
void trainer::begin_log(json more) {
  const run_settings& s = model_->settings;
  char now[32] = "";
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  if (::gmtime_r(&time, &utc)) std::strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
  more.update({{"settings", to_checked_json(s)},
               {"effective", effective_settings(s)},
               {"rules", device_->signature()},
               {"parameters", model_->model.weights().size()},
               {"vocabulary", model_->words.size()},
               {"threads", cpu_->threads()},
               {"processor", processor()},
               {"version", std::to_string(MATOPT_VERSION_MAJOR) + "." + std::to_string(MATOPT_VERSION_MINOR) + "." +
                               std::to_string(MATOPT_VERSION_PATCH)},
               {"text", model_->learned_from},
               {"started", now},
               {"command", command_line()}});
  folder_.log(more);
}

double trainer::elapsed() const { return elapsed_before_ + seconds_since(start_); }

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
  const json first = position.value("first", json(0));
  if (!first.is_number_integer() || first < 0 || first > step)
    throw bad_file("small_gpt.position in the checkpoint is malformed: " + text);
  first_step_ = first.get<int>();
  if (steps != std::to_string(step.get<int>() - first_step_))
    throw bad_file("the checkpoint's two counts of steps differ: small_gpt.position says " + step.dump() +
                   ", optimizer.steps " + steps);
  step_ = step.get<int>();
  mean_ = smoothed_loss(position.at("mean").get<double>());
}

// The optimizer, once the model stands.
void trainer::prepare() {
  const run_settings& s = model_->settings;
  if (s.device == "cpu") {
    device_ = std::make_unique<cpu_device>(*model_, *cpu_);
  } else {
    if (!cuda_device_maker())
      throw matopt::bad_value("--device", s.device, "cpu: this program was built without the CUDA trainer");
    device_ = cuda_device_maker()(s, model_->model.config(), model_->model.weights());
  }
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

// A checkpoint is good if the next step will find no divergence in it; only such a one takes the place of the last.
void trainer::save(train_result& result) {
  const run_settings& s = model_->settings;
  device_->download();
  model_->text().batch(s.seed, static_cast<std::uint64_t>(step_), tokens_, targets_);
  smoothed_loss next = mean_;
  next.add(device_->loss(tokens_, targets_, s.batch));
  if (!model_->finite()) {
    result.why = "weights are not finite";
  } else if (const double loss = next.after(step_ + 1); shows_divergence(loss, model_->words.size())) {
    result.why = divergence_of("smoothed loss", loss, model_->words.size());
  }
  if (!result.why.empty()) return;

  matopt::tensor_file file;
  store_model(*model_, file);
  device_->store(file);
  file.metadata["small_gpt.effective"] = effective_settings(s).dump();
  json position{{"step", step_}, {"mean", mean_.raw()}};
  if (first_step_ > 0) position["first"] = first_step_;
  file.metadata["small_gpt.position"] = position.dump();
  file.save(checkpoint_path());
  result.saved = step_;
  if (s.checkpoints != "last") folder_.keep_checkpoint(step_);
  if (s.checkpoints == "thinned") folder_.thin_checkpoints(step_, s.checkpoint_interval);
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
  } else {
    folder_.log({{"step", step_}, {"done", true}});
  }
  write_csv(run_record::read(folder_.path()));
  return result;
}

void trainer::train(train_result& result) {
  const run_settings& s = model_->settings;
  progress bar(s.iterations, s.eval_interval);
  const int first = step_;
  double in_optimizer = 0;

  while (step_ < s.iterations && stop_signals::received() == 0) {
    const bool measured =
        s.measure_interval > 0 && (step_ == 0 || (step_ + 1) % s.measure_interval == 0 || step_ + 1 == s.iterations);
    if (measured) device_->observe_next_step();
    const auto start = std::chrono::steady_clock::now();
    model_->text().batch(s.seed, static_cast<std::uint64_t>(step_), tokens_, targets_);
    const double factor = rate_factor(step_);
    step_report report;
    try {
      report = device_->train_step(tokens_, targets_, factor);
    } catch (const refused_rate& refused) {
      result.why = refused.what();
      return;
    }
    const double loss = report.loss;
    mean_.add(loss);
    const double smoothed = mean_.after(step_ + 1);
    if (shows_divergence(smoothed, model_->words.size())) {
      result.why = divergence_of(std::isfinite(loss) ? "smoothed loss" : "loss", std::isfinite(loss) ? smoothed : loss,
                                 model_->words.size());
      return;
    }
    in_optimizer += report.optimizer_seconds;
    result.seconds += seconds_since(start);
    ++step_;

    const double rate = (step_ - first) * static_cast<double>(tokens_per_step()) / result.seconds;
    result.optimizer_share = in_optimizer / result.seconds;
    const double passed = seconds_since(start_), left = passed / (step_ - first) * (s.iterations - step_);
    char text[240];
    std::snprintf(text, sizeof text, "loss %.4f  smoothed %.4f  lr %.2e  %.0f tokens/s  optimizer %.1f %%  %s, %s left",
                  loss, smoothed, s.lr * factor, rate, 100 * result.optimizer_share, duration(elapsed()).c_str(),
                  duration(left).c_str());
    bar.show(step_, text);
    json line{{"step", step_},
              {"loss", loss},
              {"smoothed", smoothed},
              {"lr", s.lr * factor},
              {"other_lr", s.other_lr * factor},
              {"gradient_norm", report.gradient_norm},
              {"seconds", seconds_before_ + result.seconds},
              {"elapsed", elapsed()},
              {"tokens_per_second", rate},
              {"optimizer_share", result.optimizer_share}};
    if (s.qk_clip > 0) {
      line["qk_max"] = largest_of(report.attention_logits);
      line["qk_clipped"] = heads_above(report.attention_logits, s.qk_clip);
    }
    folder_.log(line);
    if (measured) {
      device_->download();
      folder_.log({{"step", step_}, {"measurements", measurements(model_->model, *cpu_, device_->observed())}});
    }
    if (!report.skipped.empty()) {
      folder_.log({{"step", step_}, {"skipped", report.skipped}});
      bar.clear();
      std::fprintf(stderr, "step %d skipped: gradients of %zu parameters are not finite\n", step_,
                   report.skipped.size());
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
  const double loss = validation_loss(
      [&](auto tokens, auto targets, index_t windows) { return device_->loss(tokens, targets, windows); },
      model_->text(), model_->settings.eval_windows, 64, stopped);
  if (std::isnan(loss) && stopped()) return;
  if (shows_divergence(loss, model_->words.size())) {
    result.why = divergence_of("validation loss", loss, model_->words.size());
    return;
  }
  const double bits = model_->text().validation_bits_per_byte(loss);
  result.validation = {step_, loss, bits};
  folder_.log({{"step", step_}, {"validation", loss}, {"bits_per_byte", bits}});
  std::fprintf(stderr, "step %d  validation %.4f nats%s\n", step_, loss,
               bits_text(", %.4f bits per byte", bits).c_str());
}

}  // namespace small_gpt
