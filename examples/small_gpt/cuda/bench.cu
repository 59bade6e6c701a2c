// Speed of training on the GPU: tokens per second, the part of the card's own product rate that the model's arithmetic
// makes up, and the optimizer's part of a step.
//   small_gpt_cuda_bench [--arch modern|nanogpt] [--rule adamw|muon] [--precision bf16|float] [--layers 12] [--heads
//   12]
//                        [--width 768] [--context 1024] [--vocabulary 50304] [--batch 512] [--micro-batch 32]
//                        [--steps 5] [--recorded 1]
// The default shape is GPT-2's of 124M parameters with half a million tokens per step. One line of JSON comes out.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <matopt/adamw.hpp>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/muon.hpp>
#include <string>
#include <vector>

#include "training_step.cuh"

namespace {

using namespace small_gpt;
using matopt::bfloat16;
using matopt::cuda::check;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Median seconds of f() on the stream, of `times` runs after `warmup` others.
template <class F>
double seconds(cudaStream_t stream, int warmup, int times, F f) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "time"), check(cudaEventCreate(&end), "time");
  std::vector<double> taken;
  for (int i = -warmup; i < times; ++i) {
    check(cudaEventRecord(begin, stream), "time");
    f();
    check(cudaEventRecord(end, stream), "time");
    check(cudaEventSynchronize(end), "time");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "time");
    if (i >= 0) taken.push_back(ms / 1000.0);
  }
  cudaEventDestroy(begin), cudaEventDestroy(end);
  return median(taken);
}

// Operations per second of a product of 8192 x 8192 matrices in bfloat16, of random numbers.
class product_rate {
 public:
  explicit product_rate(cudaStream_t stream) : stream_(stream), products_(stream) {
    std::vector<bfloat16> values(static_cast<std::size_t>(n * n));
    random_stream random(1);
    for (bfloat16& v : values) v = bfloat16(static_cast<float>(random.uniform() - 0.5));
    for (auto* a : {&a_, &b_, &c_}) {
      *a = gpu::device_array<bfloat16>(n * n, stream);
      check(cudaMemcpyAsync(a->data(), values.data(), a->bytes(), cudaMemcpyHostToDevice, stream), "upload");
    }
  }
  double measure() {
    const matopt::view<const bfloat16> a = matopt::row_major<const bfloat16>(a_.data(), n, n),
                                       b = matopt::col_major<const bfloat16>(b_.data(), n, n);
    const matopt::view<bfloat16> c = matopt::col_major(c_.data(), n, n);
    const double taken = seconds(stream_, 5, 21, [&] { products_.run<bfloat16>(stream_, 1.0F, a, b, 0.0F, c, c); });
    return 2.0 * n * n * n / taken;
  }

 private:
  static constexpr matopt::index_t n = 8192;
  cudaStream_t stream_;
  matopt::cuda::products products_;
  gpu::device_array<bfloat16> a_, b_, c_;
};

template <class T>
void run(const gpt_config& config, const std::string& rule, index_t batch, index_t micro_batch, int steps,
         bool recorded) {
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "create a stream");
  matopt::cuda_backend backend(stream);
  product_rate product(stream);
  const double rate_before = product.measure();

  gpu::gpu_gpt<T> model(config, micro_batch, stream);
  const gpt_layout& layout = model.layout();
  std::vector<float> weights(static_cast<std::size_t>(layout.size()));
  layout.initialise(std::span<float>(weights), config.arch, 1);
  check(
      cudaMemcpyAsync(model.weights().data(), weights.data(), model.weights().bytes(), cudaMemcpyHostToDevice, stream),
      "upload");
  model.refresh_weights();
  using groups_type = matopt::param_groups<matopt::cuda_backend>;
  groups_type groups = rule == "muon" ? groups_type(backend, matopt::muon{}, 0.02, matopt::adamw{}, 3e-3)
                                      : groups_type(backend, matopt::adamw{}, 3e-3, matopt::adamw{}, 3e-3);
  gpu::add_parameters(model, groups);
  groups.finalize();

  gpu::training_step<T> step(model, groups, backend, batch);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(batch * config.context));
  random_stream random(1);
  for (auto& t : tokens) t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(config.vocabulary)));
  std::vector<std::int32_t> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(tokens.front());
  step.put(tokens, targets);

  matopt::cuda::captured_step whole(step);
  matopt::cuda::captured_step optimizer(groups);
  const double taken = seconds(stream, recorded ? 2 : 0, steps, [&] {
    if (recorded) return whole.step(1.0);
    step.begin_step(1.0);
    step.enqueue();
  });
  const double loss = step.loss();
  const double in_optimizer = recorded ? seconds(stream, 3, 11, [&] { optimizer.step(0.0); }) : 0;
  const double rate = std::max(rate_before, product.measure());
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "ask for the memory");
  const double per_step = static_cast<double>(batch) * config.context, per_second = per_step / taken;
  std::printf(
      "{\"arch\": \"%s\", \"rule\": \"%s\", \"precision\": \"%s\", \"parameters\": %lld, \"batch\": %lld, "
      "\"micro_batch\": %lld, \"ms_per_step\": %.3f, \"tokens_per_second\": %.0f, \"teraflops\": %.1f, "
      "\"bf16_product_teraflops\": %.1f, \"utilisation\": %.4f, \"optimizer_ms\": %.3f, "
      "\"optimizer_share\": %.4f, \"loss\": %.4f, \"gigabytes\": %.1f}\n",
      config.arch == architecture::modern ? "modern" : "nanogpt", rule.c_str(),
      std::is_same_v<T, float> ? "float" : "bf16", static_cast<long long>(layout.size()), static_cast<long long>(batch),
      static_cast<long long>(micro_batch), 1000 * taken, per_second, per_second * layout.flops_per_token(config) / 1e12,
      rate / 1e12, per_second * layout.flops_per_token(config) / rate, 1000 * in_optimizer, in_optimizer / taken, loss,
      static_cast<double>(total - free) / 1e9);
  check(cudaStreamSynchronize(stream), "synchronize");
}

int run(int argc, char** argv) {
  std::map<std::string, std::string> options{{"--arch", "modern"},  {"--rule", "adamw"},       {"--precision", "bf16"},
                                             {"--layers", "12"},    {"--heads", "12"},         {"--width", "768"},
                                             {"--context", "1024"}, {"--vocabulary", "50304"}, {"--batch", "512"},
                                             {"--steps", "5"},      {"--micro-batch", "32"},   {"--recorded", "1"}};
  for (int i = 1; i < argc; i += 2) {
    if (!options.contains(argv[i]) || i + 1 >= argc) {
      std::fprintf(stderr, "unknown option or missing value: %s\n", argv[i]);
      return 2;
    }
    options[argv[i]] = argv[i + 1];
  }
  const auto number = [&](const char* name) { return std::stoi(options.at(name)); };
  const auto one_of = [&](const char* name, const char* a, const char* b) {
    if (options.at(name) != a && options.at(name) != b)
      throw matopt::bad_value(name, options.at(name), std::string(a) + ", " + b);
    return options.at(name) == a;
  };
  const gpt_config config{.arch = one_of("--arch", "modern", "nanogpt") ? architecture::modern : architecture::nanogpt,
                          .layers = number("--layers"),
                          .heads = number("--heads"),
                          .width = number("--width"),
                          .context = number("--context"),
                          .vocabulary = number("--vocabulary")};
  one_of("--rule", "adamw", "muon");
  const auto f = one_of("--precision", "bf16", "float") ? run<bfloat16> : run<float>;
  f(config, options.at("--rule"), number("--batch"), number("--micro-batch"), std::max(1, number("--steps")),
    number("--recorded") != 0);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
