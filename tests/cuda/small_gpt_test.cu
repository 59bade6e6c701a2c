// The model and the training of examples/small_gpt on the GPU against those on the CPU.
#include <matopt/adamw.hpp>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <span>
#include <string>
#include <utility>

#include "small_gpt.cuh"

using namespace matopt::test::small;
using matopt::bfloat16;
using matopt::index_t;
using small_gpt::gpt;

namespace {

// Weights away from zero and from one, so that no path of the gradient is switched off.
std::vector<double> weights_of(const gpt_config& config) {
  const small_gpt::gpt_layout layout(config);
  std::vector<double> weights(static_cast<std::size_t>(layout.size()));
  layout.initialise(std::span<double>(weights), config.arch, 1);
  small_gpt::random_stream random(7);
  for (double& w : weights) w = static_cast<double>(static_cast<float>(w + 0.1 * random.normal()));
  return weights;
}

template <class T>
void upload_weights(gpu::gpu_gpt<T>& model, const std::vector<double>& weights, cudaStream_t stream) {
  const std::vector<float> w(weights.begin(), weights.end());
  matopt::cuda::check(
      cudaMemcpyAsync(model.weights().data(), w.data(), model.weights().bytes(), cudaMemcpyDefault, stream), "upload");
  matopt::cuda::check(cudaStreamSynchronize(stream), "upload");
  model.refresh_weights();
}

// `part` sequences go through the model at once.
template <class T>
void gradients_are_as_on_the_cpu(const gpt_config& config, index_t batch, index_t part, double tolerance) {
  CAPTURE(name_of<T>(), config.arch, config.layers, config.heads, config.width, config.context, config.vocabulary);
  CAPTURE(batch, part);
  const auto tokens = random_tokens(batch * config.context, config.vocabulary, 2),
             targets = random_tokens(batch * config.context, config.vocabulary, 3);
  const std::vector<double> weights = weights_of(config);
  matopt::thread_pool pool(1);
  gpt<double> exact(config, pool, 1);
  std::copy(weights.begin(), weights.end(), exact.weights().begin());
  const double loss = exact.loss_and_gradient(pool, tokens, targets, batch);

  device d;
  matopt::cuda_backend backend(d.stream);
  gpu::gpu_gpt<T> model(config, part, d.stream);
  matopt::param_groups<matopt::cuda_backend> groups(backend);
  gpu::training_step<T> step(model, groups, backend, batch);
  upload_weights(model, weights, d.stream);
  for (int repeat = 0; repeat < 2; ++repeat) {  // the second time, on what the first one left
    step.put(tokens, targets);
    step.enqueue_gradient();
    CHECK(step.loss() == Approx(loss).epsilon(tolerance));
    const std::vector<double> gradient = to_host(model.gradients(), d.stream);
    double worst = 0;
    std::string where;
    for (const auto& t : model.layout().tensors) {
      const error e = error_of(gradient.data() + t.offset, exact.gradients().data() + t.offset, t.rows * t.cols);
      CAPTURE(t.name, repeat);
      CHECK(e.norm < tolerance);
      CHECK(e.largest < tolerance);
      if (!(std::max(e.norm, e.largest) <= worst)) worst = std::max(e.norm, e.largest), where = t.name;
    }
    SHOW("gradient %s %s L%d H%d W%d C%d V%d B%ld/%ld: worst %.2e (%s), loss %.1e\n", name_of<T>(),
         config.arch == architecture::modern ? "modern" : "nanogpt", config.layers, config.heads, config.width,
         config.context, config.vocabulary, (long)batch, (long)part, worst, where.c_str(), step.loss() / loss - 1);
  }
  CHECK(step.evaluate(tokens, targets, batch) == Approx(loss).epsilon(tolerance));
}

}  // namespace

TEST_CASE("GPU small_gpt: float gradients are those of the CPU in double", "[cuda][small_gpt]") {
  for (const auto arch : {architecture::modern, architecture::nanogpt}) {
    gradients_are_as_on_the_cpu<float>({arch, 2, 2, 12, 5, 11}, 3, 3, 1e-4);     // nothing is a multiple of anything
    gradients_are_as_on_the_cpu<float>({arch, 2, 4, 64, 33, 65}, 5, 2, 1e-4);    // parts, the last one smaller
    gradients_are_as_on_the_cpu<float>({arch, 1, 3, 96, 150, 256}, 3, 1, 1e-4);  // several tiles of attention
    gradients_are_as_on_the_cpu<float>({arch, 3, 1, 40, 64, 1500}, 2, 2, 1e-4);
  }
}
TEST_CASE("GPU small_gpt: bf16 gradients are near those of the CPU in double", "[cuda][small_gpt]") {
  for (const auto arch : {architecture::modern, architecture::nanogpt}) {
    gradients_are_as_on_the_cpu<bfloat16>({arch, 2, 4, 64, 33, 65}, 5, 2, 5e-2);
    gradients_are_as_on_the_cpu<bfloat16>({arch, 1, 3, 192, 150, 256}, 3, 1, 5e-2);
    gradients_are_as_on_the_cpu<bfloat16>({arch, 3, 2, 128, 96, 1500}, 2, 2, 5e-2);
  }
}
TEST_CASE("GPU small_gpt: tokens outside the vocabulary are refused", "[cuda][small_gpt]") {
  device d;
  gpu::batch_upload upload({.context = 4, .vocabulary = 5}, 2, 1, d.stream);
  std::vector<std::int32_t> tokens(8, 1), targets(8, 4);
  upload.put(tokens, targets, 2);
  targets[5] = 5;
  CHECK_THROWS_AS(upload.put(tokens, targets, 2), matopt::bad_value);
  targets[5] = -1;
  CHECK_THROWS_AS(upload.put(targets, tokens, 2), matopt::bad_value);
  CHECK_THROWS_AS(upload.put(tokens, tokens, 3), matopt::bad_value);
  CHECK_THROWS_AS(upload.put(tokens, tokens, 1), matopt::bad_value);
}

// ---------------------------------------------------------------------------------------------------- training

namespace {

// A text with something to learn: each token follows from the one before, three times out of four.
void learnable_batch(const gpt_config& config, index_t batch, std::uint64_t step, std::vector<std::int32_t>& tokens,
                     std::vector<std::int32_t>& targets) {
  small_gpt::random_stream random(5, step);
  const auto v = static_cast<std::uint64_t>(config.vocabulary);
  tokens.clear(), targets.clear();
  for (index_t s = 0; s < batch; ++s) {
    std::uint64_t token = random.below(v);
    for (int i = 0; i < config.context; ++i) {
      tokens.push_back(static_cast<std::int32_t>(token));
      token = random.uniform() < 0.75 ? (5 * token + 3) % v : random.below(v);
      targets.push_back(static_cast<std::int32_t>(token));
    }
  }
}

struct training {
  std::vector<double> losses, weights;
};

constexpr double matrix_rate = 0.02, other_rate = 3e-3;

template <class T>
training train_on_gpu(const gpt_config& config, index_t batch, index_t part, int steps, bool recorded) {
  device d;
  matopt::cuda_backend backend(d.stream);
  gpu::gpu_gpt<T> model(config, part, d.stream);
  std::vector<double> start(static_cast<std::size_t>(model.layout().size()));
  model.layout().initialise(std::span<double>(start), config.arch, 1);
  upload_weights(model, start, d.stream);
  matopt::param_groups<matopt::cuda_backend> groups(backend, matopt::muon{}, matrix_rate, matopt::adamw{}, other_rate);
  gpu::add_parameters(model, groups);
  groups.finalize();
  gpu::training_step<T> step(model, groups, backend, batch);
  matopt::cuda::captured_step fast(step);
  training result;
  std::vector<std::int32_t> tokens, targets;
  for (int i = 0; i < steps; ++i) {
    learnable_batch(config, batch, static_cast<std::uint64_t>(i), tokens, targets);
    step.put(tokens, targets);
    const double factor = 1 - static_cast<double>(i) / steps;
    if (recorded) {
      fast.step(factor);
    } else {
      step.begin_step(factor);
      step.enqueue();
    }
    result.losses.push_back(step.loss());
  }
  CHECK(groups.poll_status());
  CHECK(fast.nodes().size() == (recorded ? 1 : 0));
  result.weights = to_host(model.weights(), d.stream);
  return result;
}

training train_on_cpu(const gpt_config& config, index_t batch, int steps) {
  matopt::eigen_backend cpu(1);
  gpt<float> model(config, cpu.pool(), 1, 1);
  matopt::param_groups<matopt::eigen_backend> groups(cpu, matopt::muon{}, matrix_rate, matopt::adamw{}, other_rate);
  for (const auto& p : model.parameters())
    groups.add(p.name, matopt::row_major(p.value, p.rows, p.cols),
               matopt::row_major<const float>(p.gradient, p.rows, p.cols),
               p.kind == small_gpt::tensor_role::hidden      ? matopt::role::hidden
               : p.kind == small_gpt::tensor_role::embedding ? matopt::role::embedding
               : p.kind == small_gpt::tensor_role::head      ? matopt::role::head
                                                             : matopt::role::vector,
               {.row_blocks = p.row_blocks});
  groups.finalize();
  training result;
  std::vector<std::int32_t> tokens, targets;
  for (int i = 0; i < steps; ++i) {
    learnable_batch(config, batch, static_cast<std::uint64_t>(i), tokens, targets);
    result.losses.push_back(model.loss_and_gradient(cpu.pool(), tokens, targets, batch));
    groups.step(1 - static_cast<double>(i) / steps);
  }
  result.weights.assign(model.weights().begin(), model.weights().end());
  return result;
}

double mean(const std::vector<double>& x, std::size_t first, std::size_t last) {
  double sum = 0;
  for (std::size_t i = first; i < last; ++i) sum += x[i];
  return sum / static_cast<double>(last - first);
}

template <class T>
void recorded_is_eager(architecture arch) {
  const gpt_config config{arch, 2, 2, 64, 40, 50};
  const training eager = train_on_gpu<T>(config, 5, 2, 6, false), recorded = train_on_gpu<T>(config, 5, 2, 6, true);
  CAPTURE(name_of<T>());
  CHECK(eager.losses == recorded.losses);
  CHECK(eager.weights == recorded.weights);
  CHECK(std::all_of(eager.weights.begin(), eager.weights.end(), [](double w) { return std::isfinite(w); }));
}

// The gradient at the weights before the last step, for rules that estimate from two.
template <class T>
void reference_is_at_the_last_weights(architecture arch, double tolerance) {
  const gpt_config config{arch, 2, 2, 64, 40, 50};
  constexpr index_t batch = 5;
  device d;
  matopt::cuda_backend backend(d.stream);
  gpu::gpu_gpt<T> model(config, 2, d.stream);
  matopt::param_groups<matopt::cuda_backend> groups(backend, matopt::adamw{}, 1e-2, matopt::adamw{}, 1e-2);
  gpu::training_step<T> step(model, groups, backend, batch);
  step.take_reference();
  gpu::add_parameters(model, groups, step.reference());
  groups.finalize();
  const std::vector<double> start = weights_of(config);
  upload_weights(model, start, d.stream);
  matopt::cuda::check(cudaMemcpyAsync(step.previous().data(), model.weights().data(), model.weights().bytes(),
                                      cudaMemcpyDeviceToDevice, d.stream),
                      "copy");
  matopt::cuda::captured_step recorded(step);
  matopt::thread_pool pool(1);
  gpt<double> exact(config, pool, 1);
  std::vector<double> before = start, at = start;
  std::vector<std::int32_t> tokens, targets;
  for (std::uint64_t i = 0; i < 4; ++i) {
    learnable_batch(config, batch, i, tokens, targets);
    step.put(tokens, targets);
    recorded.step(1.0);
    for (const auto& [weights, gradients] :
         {std::pair(&before, &step.reference()), std::pair(&at, &model.gradients())}) {
      std::copy(weights->begin(), weights->end(), exact.weights().begin());
      const double loss = exact.loss_and_gradient(pool, tokens, targets, batch);
      const std::vector<double> expected(exact.gradients().begin(), exact.gradients().end());
      CAPTURE(name_of<T>(), i, weights == &at);
      CHECK(error_of(to_host(*gradients, d.stream), expected).norm < tolerance);
      if (weights == &at) CHECK(step.loss() == Approx(loss).epsilon(tolerance));
    }
    CHECK(to_host(step.previous(), d.stream) == at);
    before = std::exchange(at, to_host(model.weights(), d.stream));
    CHECK(before != at);
  }
}

// QK-clip inside the recorded step, at a rate of zero: nothing else changes the weights.
template <class T>
void logits_are_clipped(double tolerance) {
  const gpt_config config{architecture::nanogpt, 1, 4, 64, 40, 50};
  constexpr index_t batch = 5, w = 64, d_head = 16;
  device d;
  matopt::cuda_backend backend(d.stream);
  gpu::gpu_gpt<T> model(config, 2, d.stream);
  matopt::param_groups<matopt::cuda_backend> groups(backend, matopt::muon{}, 1e-2, matopt::adamw{}, 1e-2);
  gpu::training_step<T> step(model, groups, backend, batch);
  gpu::add_parameters(model, groups);
  groups.finalize();
  std::vector<double> start = weights_of(config);
  matopt::thread_pool pool(1);
  gpt<double> exact(config, pool, 1);
  exact.measure_attention_logits();
  std::vector<std::int32_t> tokens, targets;
  learnable_batch(config, batch, 1, tokens, targets);
  std::copy(start.begin(), start.end(), exact.weights().begin());
  exact.loss_and_gradient(pool, tokens, targets, batch);
  std::vector<double> before(exact.largest_attention_logits().begin(), exact.largest_attention_logits().end());
  std::vector<double> sorted = before;
  std::sort(sorted.begin(), sorted.end());
  REQUIRE(sorted[1] > 0);
  const double threshold = 0.5 * (sorted[1] + sorted[2]);  // two heads are above it

  step.clip_logits(threshold);
  upload_weights(model, start, d.stream);
  matopt::cuda::captured_step recorded(step);
  std::vector<double> last;
  for (int i = 0; i < 3; ++i) {  // the third one is a graph
    step.put(tokens, targets);
    recorded.step(0.0);
    std::vector<float> measured = step.attention_logits();
    const std::vector<double> weights = to_host(model.weights(), d.stream);
    REQUIRE(measured.size() == 4);
    CAPTURE(name_of<T>(), i, threshold);
    for (std::size_t h = 0; h < 4; ++h) {
      const double expected = i == 0 ? before[h] : std::min(threshold, before[h]);
      SHOW("logit %s step %d head %zu: %.6f, expected %.6f\n", name_of<T>(), i, h, measured[h], expected);
      CHECK(measured[h] == Approx(expected).epsilon(tolerance));
    }
    const small_gpt::gpt_layout::tensor& qkv = model.layout().tensors[model.layout().layers[0].qkv];
    if (i == 0) {
      for (index_t k = 0; k < model.layout().size(); ++k) {
        const auto at = static_cast<std::size_t>(k);
        const index_t row = (k - qkv.offset) / w;
        const bool scaled = k >= qkv.offset && row < 2 * w;
        const double s = scaled ? static_cast<double>(measured[static_cast<std::size_t>(row % w / d_head)]) : 0;
        const auto value = static_cast<double>(static_cast<float>(start[at]));
        if (s > threshold ? std::abs(weights[at] - value * std::sqrt(threshold / s)) > 2e-6 * std::abs(value)
                          : weights[at] != value) {
          CAPTURE(k, weights[at], value, s);
          FAIL_CHECK("a weight is not scaled as it should be");
        }
      }
    }
    last = weights;
  }
  // An evaluation measures nothing.
  const std::vector<float> kept = step.attention_logits();
  std::reverse(tokens.begin(), tokens.end());
  step.evaluate(tokens, targets, batch);
  CHECK(step.attention_logits() == kept);
  CHECK(to_host(model.weights(), d.stream) == last);
  CHECK(recorded.nodes().size() == 1);
}

template <class T>
void curve_is_that_of_the_cpu(architecture arch, double tolerance) {
  const gpt_config config{arch, 2, 2, 64, 32, 40};
  constexpr int steps = 200;
  const training cpu = train_on_cpu(config, 8, steps), fast = train_on_gpu<T>(config, 8, 4, steps, true);
  CAPTURE(name_of<T>());
  CHECK(mean(cpu.losses, 150, 200) < mean(cpu.losses, 0, 10) - 1);
  for (std::size_t first = 0; first < steps; first += 50) {
    const double a = mean(cpu.losses, first, first + 50), b = mean(fast.losses, first, first + 50);
    CAPTURE(first);
    SHOW("curve %s %s steps %zu+: cpu %.5f gpu %.5f\n", name_of<T>(),
         arch == architecture::modern ? "modern" : "nanogpt", first, a, b);
    CHECK(std::abs(a - b) < tolerance);
  }
}

}  // namespace

TEST_CASE("GPU small_gpt: a recorded step is the eager one", "[cuda][small_gpt]") {
  for (const auto arch : {architecture::modern, architecture::nanogpt})
    recorded_is_eager<float>(arch), recorded_is_eager<bfloat16>(arch);
}
TEST_CASE("GPU small_gpt: a second gradient at the weights before the last step", "[cuda][small_gpt]") {
  for (const auto arch : {architecture::modern, architecture::nanogpt}) {
    reference_is_at_the_last_weights<float>(arch, 1e-4);
    reference_is_at_the_last_weights<bfloat16>(arch, 5e-2);
  }
}
TEST_CASE("GPU small_gpt: QK-clip brings the logits of the batch to its threshold", "[cuda][small_gpt]") {
  logits_are_clipped<float>(1e-4), logits_are_clipped<bfloat16>(0.05);
}
TEST_CASE("GPU small_gpt: the losses of 200 steps are those of the CPU", "[cuda][small_gpt][slow]") {
  for (const auto arch : {architecture::modern, architecture::nanogpt})
    curve_is_that_of_the_cpu<float>(arch, 0.02), curve_is_that_of_the_cpu<bfloat16>(arch, 0.02);
}
