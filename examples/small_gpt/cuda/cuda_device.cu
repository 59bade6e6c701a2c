#include "cuda_device.cuh"

#include <algorithm>
#include <cstring>
#include <limits>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/cuda/on_device.cuh>
#include <matopt/published_rules.hpp>
#include <matopt/state_io.hpp>
#include <matopt/step_observer.hpp>
#include <string>

#include "training_step.cuh"

namespace MATOPT_NAMESPACE {  // compiled by rules.cu
using small_gpt_rules = rule_registry<cuda_backend, types<float>>;
extern template void add_muon_rules(small_gpt_rules&);
extern template void add_normalized_rules(small_gpt_rules&);
extern template void add_adaptive_rules(small_gpt_rules&);
extern template void add_estimator_rules(small_gpt_rules&);
extern template void add_baseline_rules(small_gpt_rules&);
extern template void add_constrained_rules(small_gpt_rules&);
extern template void add_eigenbasis_rules(small_gpt_rules&);
}  // namespace MATOPT_NAMESPACE

namespace small_gpt {

void add_compositions(cuda_rule_book&);  // compositions.cu

// Of trained_model.hpp, which brings Eigen in; that is compiled for another processor, perhaps.
void store_tensor(matopt::tensor_file&, const std::string&, const float*, matopt::index_t, matopt::index_t);

cuda_rule_book& cuda_rules() {
  static cuda_rule_book book = [] {
    cuda_rule_book b;
    matopt::add_muon_rules(b), matopt::add_normalized_rules(b), matopt::add_adaptive_rules(b);
    matopt::add_estimator_rules(b), matopt::add_baseline_rules(b), matopt::add_constrained_rules(b);
    matopt::add_eigenbasis_rules(b), add_compositions(b);
    return b;
  }();
  return book;
}

namespace {

using matopt::cuda::check;
using matopt::cuda::on_device;

struct stream_owner {
  cudaStream_t stream = nullptr;
  stream_owner() { check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "create a stream"); }
  stream_owner(const stream_owner&) = delete;
  stream_owner& operator=(const stream_owner&) = delete;
  ~stream_owner() { cudaStreamDestroy(stream); }
};

// How many sequences go through the model at once, unless the settings say it: equal parts of the batch of up to 32768
// tokens, which keep a GPU busy, if they fit into its memory.
template <class T>
index_t micro_batch_of(const run_settings& s, const gpt_config& config) {
  if (s.micro_batch > 0) return std::min(s.micro_batch, s.batch);
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "ask for the memory");
  const double of_weights = 30.0 * static_cast<double>(gpt_layout(config).size());  // with gradients and state
  const double fits = (0.8 * static_cast<double>(total) - of_weights) / gpu::gpu_gpt<T>::bytes_per_sequence(config);
  const double most = std::clamp(std::min(fits, 32768.0 / config.context), 1.0, static_cast<double>(s.batch));
  const index_t batch = s.batch, parts = (batch + static_cast<index_t>(most) - 1) / static_cast<index_t>(most);
  return (batch + parts - 1) / parts;
}

template <class T>
class cuda_device : public device {
 public:
  cuda_device(const run_settings& s, const gpt_config& config, std::span<float> weights)
      : host_(weights),
        qk_clip_(s.qk_clip),
        gpu_(stream_.stream),
        model_(config, micro_batch_of<T>(s, config), stream_.stream),
        groups_(make(s.rule, rule_settings(s), s.clip), s.lr, make("adamw", other_settings(s), s.clip), s.other_lr),
        step_(model_, groups_, gpu_, s.batch),
        recorded_(step_) {
    if (groups_.needs_reference(matopt::role::hidden) || groups_.needs_reference(matopt::role::vector))
      step_.take_reference();
    gpu::add_parameters(model_, groups_, step_.reference());
    upload();  // finalize() reads the weights for rules that keep something of them
    groups_.finalize();
    if (s.qk_clip > 0) step_.clip_logits(s.qk_clip);
  }

  step_report train_step(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                         double factor) override {
    const on_device here(gpu_.device());
    step_.put(tokens, targets);
    try {
      recorded_.step(factor);
    } catch (const matopt::bad_value& why) {
      throw refused_rate(why.what());
    }
    step_report report;
    report.loss = step_.loss();
    report.optimizer_seconds = step_.optimizer_seconds();
    report.gradient_norm = groups_.gradient_norm();
    report.attention_logits = step_.attention_logits();
    // A rule that keeps something of the weights learns of what was scaled.
    const auto heads = static_cast<std::size_t>(model_.config().heads);
    for (const std::string& name : clipped_tensors(report.attention_logits, heads, qk_clip_)) groups_.resync(name);
    if (const auto status = groups_.poll_status(); !status) report.skipped = status.parameters;
    return report;
  }
  double loss(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, index_t sequences) override {
    const on_device here(gpu_.device());
    return step_.evaluate(tokens, targets, sequences);
  }

  void observe_next_step() override {
    const on_device here(gpu_.device());
    if (!observer_) observer_ = std::make_unique<matopt::step_observer<groups_type>>(groups_);
    observer_->before();
  }
  std::vector<matrix_step> observed() override {
    const on_device here(gpu_.device());
    std::vector<matrix_step> out;
    for (const auto& o : observer_->after())
      out.push_back({o.name, o.weight_norm, o.update_to_weight, o.gradient_norm, o.cosine});
    return out;
  }

  void download() override {
    const on_device here(gpu_.device());
    gpu_.download(host_.data(), model_.weights().data(), model_.weights().bytes());
  }
  void upload() final {
    const on_device here(gpu_.device());
    gpu_.upload(model_.weights().data(), host_.data(), model_.weights().bytes());
    if (step_.previous().size() > 0) gpu_.upload(step_.previous().data(), host_.data(), model_.weights().bytes());
    model_.refresh_weights();
  }
  void store(matopt::tensor_file& file) override {
    const on_device here(gpu_.device());
    matopt::store_state(groups_, file);
    const gpu::device_array<float>& previous = step_.previous();
    if (previous.size() == 0) return;
    std::vector<float> values(static_cast<std::size_t>(previous.size()));
    gpu_.download(values.data(), previous.data(), previous.bytes());
    for (const auto& t : model_.layout().tensors)
      store_tensor(file, "previous." + t.name, values.data() + t.offset, t.rows, t.cols);
  }
  void restore(const matopt::tensor_file& file, bool other_settings) override {
    const on_device here(gpu_.device());
    upload();
    matopt::restore_options options;
    options.other_settings = other_settings;
    matopt::restore_state(groups_, file, options);
    const gpu::device_array<float>& previous = step_.previous();
    if (previous.size() == 0) return;
    for (const auto& t : model_.layout().tensors) {
      const auto at = file.tensors.find("previous." + t.name);
      const auto bytes = static_cast<std::size_t>(t.rows * t.cols) * sizeof(float);
      if (at == file.tensors.end() || at->second.type != matopt::element_type::f32 || at->second.data.size() != bytes)
        throw matopt::bad_file("the checkpoint lacks the weights before its last step, \"previous." + t.name +
                               "\", which this rule needs");
      gpu_.upload(previous.data() + t.offset, at->second.data.data(), bytes);
    }
  }

  std::string table() const override { return groups_.table(); }
  std::string signature() const override { return groups_.signature(); }
  std::size_t state_bytes() const override { return groups_.memory().state_bytes; }
  std::size_t scratch_bytes() const override { return groups_.memory().scratch_bytes; }

 private:
  using groups_type = matopt::param_groups<matopt::cuda_backend>;

  // Without a bound the norm of the gradients is measured only.
  auto make(const std::string& rule, const std::vector<matopt::setting>& settings, double clip) {
    matopt::optimizer_options options;
    options.max_norm = clip > 0 ? clip : std::numeric_limits<double>::infinity();
    return cuda_rules().make(rule, gpu_, settings, options);
  }

  std::span<float> host_;
  double qk_clip_;
  stream_owner stream_;
  matopt::cuda_backend gpu_;
  gpu::gpu_gpt<T> model_;
  groups_type groups_;
  gpu::training_step<T> step_;
  matopt::cuda::captured_step<gpu::training_step<T>> recorded_;
  std::unique_ptr<matopt::step_observer<groups_type>> observer_;
};

}  // namespace

std::unique_ptr<device> make_cuda_device(const run_settings& s, const gpt_config& config, std::span<float> weights) {
  const auto colon = s.device.find(':');
  const int number = colon == std::string::npos ? 0 : std::stoi(s.device.substr(colon + 1));
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && number >= count)
    throw matopt::bad_value("--device", s.device, "cuda:0 to cuda:" + std::to_string(count - 1));
  (void)cudaGetLastError();  // without a GPU the backend says what is missing
  if (count == 0) matopt::cuda_backend{};
  const on_device here(number);
  if (s.precision == "float") return std::make_unique<cuda_device<float>>(s, config, weights);
  return std::make_unique<cuda_device<matopt::bfloat16>>(s, config, weights);
}

}  // namespace small_gpt
