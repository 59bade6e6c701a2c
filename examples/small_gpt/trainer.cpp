#include "trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <matopt/policy/schedule/learning_rate.hpp>
#include <matopt/state_io.hpp>

#include "progress.hpp"

namespace small_gpt {

namespace {

using matopt::bad_value;
using matopt::index_t;
using nlohmann::json;

volatile std::sig_atomic_t stop_flag = 0;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check(const char* name, double value, matopt::range legal) {
  if (!legal.contains(value)) throw bad_value(name, matopt::detail::text(value), matopt::detail::text(legal));
}
template <class... Legal>
void check_name(const char* name, const std::string& value, const Legal&... legal) {
  if (((value != legal) && ...)) {
    std::string list;
    ((list += (list.empty() ? "" : ", ") + std::string(legal)), ...);
    throw bad_value(name, '"' + value + '"', "one of " + list);
  }
}

void validate(const run_settings& s) {
  check_name("--vocabulary", s.vocabulary, "character", "byte");
  check_name("--arch", s.architecture, "nanogpt", "modern");
  check_name("--schedule", s.schedule, "wsd", "cosine", "constant");
  const matopt::range positive{.low = 1}, not_negative{.low = 0};
  check("--batch", s.batch, positive);
  check("--iterations", s.iterations, positive);
  check("--shards", s.shards, {.low = 1, .high = 1024});
  check("--eval-interval", s.eval_interval, positive);
  check("--checkpoint-interval", s.checkpoint_interval, positive);
  check("--eval-windows", s.eval_windows, not_negative);
  check("--warmup", s.warmup, {.low = -1});
  check("--lr", s.lr, not_negative);
  check("--other-lr", s.other_lr, not_negative);
  check("--clip", s.clip, not_negative);
  check("--lr-floor", s.lr_floor, {.low = 0, .high = 1});
  check("--decay-fraction", s.decay_fraction, {.low = 0, .high = 1});
}

gpt_config shape_of(const run_settings& s, int vocabulary) {
  return {s.architecture == "nanogpt" ? architecture::nanogpt : architecture::modern,
          s.layers,
          s.heads,
          s.width,
          s.context,
          vocabulary};
}

std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto u = static_cast<unsigned char>(c);
    out += "0123456789abcdef"[u >> 4U];
    out += "0123456789abcdef"[u & 15U];
  }
  return out;
}
std::string unhex(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    out += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  return out;
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

std::string metadata(const matopt::tensor_file& file, const char* key) {
  const auto at = file.metadata.find(key);
  if (at == file.metadata.end())
    throw matopt::bad_file("the file is no checkpoint of small_gpt: it has no \"" + std::string(key) + '"');
  return at->second;
}

}  // namespace

void request_stop() { stop_flag = 1; }
bool stop_requested() { return stop_flag != 0; }

trained_model::trained_model(const run_settings& s, vocabulary v, const matopt::thread_pool& pool)
    : settings(s), words(std::move(v)), model(shape_of(s, words.size()), pool, s.seed, s.shards) {}

const dataset& trained_model::text() const {
  if (!data) throw matopt::error("no text to measure on: give --data");
  return *data;
}

double trained_model::validation_loss(matopt::thread_pool& pool, int windows) {
  return small_gpt::validation_loss(model, pool, text(), windows);
}

void store_model(trained_model& m, matopt::tensor_file& file) {
  for (const auto& p : m.model.parameters()) {
    auto& t = file.tensors["model." + p.name];
    t = {matopt::element_type::f32,
         {p.rows, p.cols},
         std::vector<std::byte>(static_cast<std::size_t>(p.rows * p.cols) * sizeof(float))};
    std::memcpy(t.data.data(), p.value, t.data.size());
  }
  file.metadata["small_gpt.settings"] = json(m.settings).dump();
  std::string symbols;
  for (const auto& s : m.words.symbols()) symbols += hex(s) + ' ';
  file.metadata["small_gpt.vocabulary"] = symbols;
}

std::unique_ptr<trained_model> load_model(const matopt::tensor_file& file, const std::string& data,
                                          const matopt::thread_pool& pool) {
  const json stored = json::parse(metadata(file, "small_gpt.settings"), nullptr, false);
  run_settings s;
  try {
    s = stored.get<run_settings>();
  } catch (const json::exception& e) {
    throw matopt::bad_file(std::string("the checkpoint's settings are malformed: ") + e.what());
  }
  validate(s);
  std::vector<std::string> symbols;
  std::istringstream list(metadata(file, "small_gpt.vocabulary"));
  for (std::string h; list >> h;) symbols.push_back(unhex(h));
  auto m = std::make_unique<trained_model>(
      s, vocabulary(std::move(symbols), s.vocabulary == "byte" ? vocabulary_kind::byte : vocabulary_kind::character),
      pool);

  std::string differences;
  for (const auto& p : m->model.parameters()) {
    const auto tensor = [&](const std::string& suffix, index_t rows, index_t cols) -> const float* {
      const auto at = file.tensors.find("model." + p.name + suffix);
      if (at == file.tensors.end()) return nullptr;
      const auto& t = at->second;
      if (t.type != matopt::element_type::f32 || t.shape.size() != 2 || (rows >= 0 && t.shape[0] != rows) ||
          (cols >= 0 && t.shape[1] != cols))
        return nullptr;
      return reinterpret_cast<const float*>(t.data.data());
    };
    const float* left = tensor(".left", p.rows, -1);
    if (const float* w = tensor("", p.rows, p.cols)) {
      std::copy_n(w, p.rows * p.cols, p.value);
    } else if (const index_t k = left ? file.tensors.at("model." + p.name + ".left").shape[1] : -1;
               left && tensor(".right", k, p.cols)) {
      using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
      Eigen::Map<matrix>(p.value, p.rows, p.cols).noalias() =
          Eigen::Map<const matrix>(left, p.rows, k) * Eigen::Map<const matrix>(tensor(".right", k, p.cols), k, p.cols);
    } else {
      differences += "\n  " + p.name + ": here F32 " + std::to_string(p.rows) + "x" + std::to_string(p.cols) +
                     ", file has none of that shape";
    }
  }
  if (!differences.empty()) throw matopt::bad_file("the checkpoint holds another model:" + differences);
  if (!data.empty()) m->settings.data = data;
  if (data != "-") m->data.emplace(read_file(m->settings.data), m->words, s.context, s.train_fraction);
  return m;
}

trainer::trainer(const run_settings& settings, matopt::eigen_backend& cpu, const std::string& folder)
    : cpu_(&cpu), folder_(folder) {
  validate(settings);
  run_settings s = settings;
  if (s.warmup < 0) s.warmup = s.iterations / 50;
  if (s.lr <= 0) s.lr = default_rate(s.rule);
  if (s.other_lr <= 0) s.other_lr = s.rule == "adamw" ? s.lr : default_rate("adamw");
  const std::string text = read_file(s.data);
  if (text.empty()) throw matopt::error("\"" + s.data + "\" is empty; a text to learn from is needed");
  model_ = std::make_unique<trained_model>(
      s, s.vocabulary == "byte" ? vocabulary::bytes() : vocabulary::characters(text), cpu.pool());
  model_->data.emplace(text, model_->words, s.context, s.train_fraction);
  prepare();
  log({{"settings", s}, {"parameters", model_->model.weights().size()}, {"threads", cpu.threads()}});
}

trainer::trainer(const std::string& checkpoint, const std::string& data, matopt::eigen_backend& cpu,
                 const std::string& folder)
    : cpu_(&cpu), folder_(folder) {
  const matopt::tensor_file file = matopt::tensor_file::load(checkpoint);
  model_ = load_model(file, data, cpu.pool());
  prepare();
  matopt::restore_state(*groups_, file);
  restore_previous(file);
  try {
    const json position = json::parse(metadata(file, "small_gpt.position"));
    step_ = position.at("step").get<int>();
    mean_ = position.at("mean").get<double>();
  } catch (const json::exception& e) {
    throw matopt::bad_file("the position in \"" + checkpoint + "\" is malformed: " + e.what());
  }
  log({{"resumed", checkpoint}, {"step", step_}});
}

// The optimizer and the log, once the model stands.
void trainer::prepare() {
  const run_settings& s = model_->settings;
  std::error_code failure;
  std::filesystem::create_directories(folder_, failure);
  if (failure) throw matopt::bad_file("cannot make the folder \"" + folder_ + "\": " + failure.message());
  log_.open(folder_ + "/log.jsonl", std::ios::app);
  if (!log_) throw matopt::bad_file("cannot write \"" + folder_ + "/log.jsonl\": " + std::strerror(errno));

  auto hidden = parse_settings(s.set), other = parse_settings(s.set_other);
  rules().settings(s.rule);  // an unknown rule is reported before its settings
  fit_rank_schedule(s.rule, hidden, s.iterations);
  other.insert(other.begin(), {"beta2", "0.95"});
  groups_ = std::make_unique<matopt::param_groups<optimizer, optimizer>>(
      rules().make(s.rule, *cpu_, hidden), s.lr, rules().make("adamw", *cpu_, other), s.other_lr);
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

void trainer::log(const json& line) {
  log_ << line.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  if (!log_) throw matopt::bad_file("cannot write \"" + folder_ + "/log.jsonl\": is the disk full?");
}

void trainer::restore_previous(const matopt::tensor_file& file) {
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

void trainer::save() {
  matopt::tensor_file file;
  store_model(*model_, file);
  matopt::store_state(*groups_, file);
  for (const auto& p : model_->model.parameters())
    if (!previous_.empty()) {
      auto& t = file.tensors["previous." + p.name];
      t = {matopt::element_type::f32,
           {p.rows, p.cols},
           std::vector<std::byte>(static_cast<std::size_t>(p.rows * p.cols) * sizeof(float))};
      std::memcpy(t.data.data(), previous_.data() + (p.value - model_->model.weights().data()), t.data.size());
    }
  file.metadata["small_gpt.position"] = json{{"step", step_}, {"mean", mean_}}.dump();
  file.save(checkpoint_path());
}

train_result trainer::run() {
  const run_settings& s = model_->settings;
  train_result result;
  progress bar(s.iterations, s.eval_interval);
  const auto per_step = static_cast<std::size_t>(s.batch) * static_cast<std::size_t>(s.context);
  double in_steps = 0, in_optimizer = 0;
  const int first = step_;

  const auto validate_now = [&] {
    const double loss = model_->validation_loss(cpu_->pool(), s.eval_windows);
    const double bits = model_->text().validation_bits_per_byte(loss);
    result.validation_loss = loss, result.bits_per_byte = bits;
    result.validation_curve.emplace_back(static_cast<double>(step_) * static_cast<double>(per_step), loss);
    log({{"step", step_}, {"validation", loss}, {"bits_per_byte", bits}});
    bar.clear();
    std::fprintf(stderr, "step %d  validation %.4f nats, %.4f bits per byte\n", step_, loss, bits);
  };

  while (step_ < s.iterations && !stop_requested()) {
    const auto start = std::chrono::steady_clock::now();
    model_->text().batch(s.seed, static_cast<std::uint64_t>(step_), tokens_, targets_);
    const double loss = loss_and_gradients();
    if (s.clip > 0) clip_gradients();
    const auto before = std::chrono::steady_clock::now();
    const double factor = rate_factor(step_);
    groups_->step(factor);
    in_optimizer += seconds_since(before);
    in_steps += seconds_since(start);
    mean_ = 0.95 * mean_ + 0.05 * loss;
    ++step_;
    const double smoothed = mean_ / (1 - std::pow(0.95, step_));

    const double rate = static_cast<double>(step_ - first) * static_cast<double>(per_step) / in_steps;
    const double share = in_optimizer / in_steps;
    result.train_curve.emplace_back(static_cast<double>(step_) * static_cast<double>(per_step), smoothed);
    char text[160];
    std::snprintf(text, sizeof text, "loss %.4f  smoothed %.4f  lr %.2e  %.0f tokens/s  optimizer %.1f %%", loss,
                  smoothed, s.lr * factor, rate, 100 * share);
    bar.show(step_, text);
    log({{"step", step_},
         {"loss", loss},
         {"smoothed", smoothed},
         {"lr", s.lr * factor},
         {"tokens_per_second", rate},
         {"optimizer_share", share}});
    if (const auto status = groups_->poll_status(); !status) {
      log({{"step", step_}, {"skipped", status.parameters}});
      bar.clear();
      std::fprintf(stderr, "step %d skipped: gradients of %zu parameters are not finite\n", step_,
                   status.parameters.size());
    }
    if (step_ % s.eval_interval == 0 || step_ == s.iterations) validate_now();
    if (step_ % s.checkpoint_interval == 0 && step_ < s.iterations) save();
  }
  result.interrupted = step_ < s.iterations;
  if (result.validation_curve.empty() && !result.interrupted) validate_now();  // resumed at its end
  save();
  result.steps = step_ - first;
  result.seconds = in_steps;
  if (in_steps > 0) {
    result.optimizer_share = in_optimizer / in_steps;
    result.tokens_per_second = static_cast<double>(result.steps) * static_cast<double>(per_step) / in_steps;
  }
  return result;
}

}  // namespace small_gpt
