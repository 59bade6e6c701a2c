// The hand-written backward pass of examples/small_gpt against central differences, in double.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "small_gpt/model.hpp"

namespace {

using small_gpt::architecture;
using small_gpt::gpt;
using small_gpt::gpt_config;
using small_gpt::index_t;

gpt_config odd_sizes(architecture arch) {
  return {.arch = arch, .layers = 2, .heads = 2, .width = 12, .context = 5, .vocabulary = 11};
}

std::vector<std::int32_t> random_tokens(std::size_t count, int vocabulary, std::uint64_t seed) {
  small_gpt::random_stream random(seed);
  std::vector<std::int32_t> tokens(count);
  for (auto& t : tokens) t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

// Every weight away from zero and from one, so that no gradient path is switched off or trivial.
template <class T>
void randomise(gpt<T>& model) {
  small_gpt::random_stream random(7);
  for (T& w : model.weights()) w += static_cast<T>(0.3 * random.normal());
}

const char* name(architecture arch) { return arch == architecture::modern ? "modern" : "nanogpt"; }

// max over the sampled entries of |numeric - analytic|, relative to the largest analytic entry of the tensor
double tensor_error(gpt<double>& model, matopt::thread_pool& pool, const small_gpt::parameter<double>& p,
                    const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& targets, index_t batch,
                    const std::vector<double>& gradient) {
  constexpr index_t samples = 24;
  constexpr double h = 1e-4;
  const index_t size = p.rows * p.cols;
  const auto first = static_cast<std::size_t>(p.value - model.weights().data());
  double largest = 0, error = 0;
  for (index_t i = 0; i < size; ++i)
    largest = std::max(largest, std::abs(gradient[first + static_cast<std::size_t>(i)]));
  for (index_t s = 0; s < std::min(samples, size); ++s) {
    const index_t i = size <= samples ? s : (s * 7919 + 3) % size;
    const double kept = p.value[i];
    const auto at = [&](double offset) {
      p.value[i] = kept + offset;
      return model.loss(pool, tokens, targets, batch);
    };
    // Fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h
    const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    p.value[i] = kept;
    error = std::max(error, std::abs(numeric - gradient[first + static_cast<std::size_t>(i)]));
  }
  return error / largest;
}

}  // namespace

TEST_CASE("small_gpt: gradients agree with central differences", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  const gpt_config config = odd_sizes(arch);
  const index_t batch = 3;
  matopt::thread_pool pool(2);
  gpt<double> model(config, pool, 1, 2);
  randomise(model);
  const auto tokens = random_tokens(15, config.vocabulary, 2), targets = random_tokens(15, config.vocabulary, 3);

  const double loss = model.loss_and_gradient(pool, tokens, targets, batch);
  CHECK(loss == model.loss(pool, tokens, targets, batch));
  const std::vector<double> gradient(model.gradients().begin(), model.gradients().end());
  for (const auto& p : model.parameters()) {
    INFO(name(arch) << " " << p.name);
    CHECK(tensor_error(model, pool, p, tokens, targets, batch, gradient) < 1e-6);
  }
}

TEST_CASE("small_gpt: gradients agree where attention and the batch are cut into pieces", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  gpt_config config = odd_sizes(arch);
  config.layers = 1;
  config.context = 150;  // three blocks of attention rows, two sequences in a chunk
  const index_t batch = 3;
  matopt::thread_pool pool(1);
  gpt<double> model(config, pool, 1);
  randomise(model);
  const auto tokens = random_tokens(450, config.vocabulary, 2), targets = random_tokens(450, config.vocabulary, 3);

  model.loss_and_gradient(pool, tokens, targets, batch);
  const std::vector<double> gradient(model.gradients().begin(), model.gradients().end());
  for (const auto& p : model.parameters()) {
    INFO(name(arch) << " " << p.name);
    CHECK(tensor_error(model, pool, p, tokens, targets, batch, gradient) < 1e-6);
  }
}

TEST_CASE("small_gpt: float gradients agree with double", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  const gpt_config config = odd_sizes(arch);
  matopt::thread_pool pool(1);
  gpt<double> exact(config, pool, 1);
  gpt<float> model(config, pool, 1);
  randomise(exact);
  std::transform(exact.weights().begin(), exact.weights().end(), model.weights().begin(),
                 [](double w) { return static_cast<float>(w); });
  const auto tokens = random_tokens(15, config.vocabulary, 2), targets = random_tokens(15, config.vocabulary, 3);
  const double loss = exact.loss_and_gradient(pool, tokens, targets, 3);
  CHECK(model.loss_and_gradient(pool, tokens, targets, 3) == Approx(loss).epsilon(1e-6));
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < exact.gradients().size(); ++i) {
    const double g = exact.gradients()[i];
    error += std::pow(static_cast<double>(model.gradients()[i]) - g, 2);
    norm += g * g;
  }
  CHECK(std::sqrt(error / norm) < 3e-6);
}

TEST_CASE("small_gpt: the float GELU and its slope are exact to rounding", "[small_gpt]") {
  for (double x = -12; x <= 12; x += 0.0037) {
    float u = static_cast<float>(x), h = 0;
    double u_exact = static_cast<double>(u), h_exact = 0;
    small_gpt::gelu(&u, &h, 1);
    small_gpt::gelu(&u_exact, &h_exact, 1);
    const double unit = 1.2e-7 * std::max(1.0, std::abs(x));
    REQUIRE(std::abs(static_cast<double>(h) - h_exact) < unit);
    REQUIRE(std::abs(static_cast<double>(u) - u_exact) < 2.5e-7);
  }
}

TEST_CASE("small_gpt: results depend on the shards, not on the threads", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  const auto shards = GENERATE(1, 3, 8);
  gpt_config config = odd_sizes(arch);
  config.context = 70;
  const index_t batch = 13;  // more than one chunk in a shard
  const auto tokens = random_tokens(910, config.vocabulary, 2), targets = random_tokens(910, config.vocabulary, 3);
  matopt::thread_pool one(1), three(3);
  gpt<float> a(config, one, 1, shards), b(config, three, 1, shards);
  randomise(a);
  randomise(b);
  for (int repeat = 0; repeat < 3; ++repeat) {
    CHECK(a.loss_and_gradient(one, tokens, targets, batch) == b.loss_and_gradient(three, tokens, targets, batch));
    CHECK(std::equal(a.gradients().begin(), a.gradients().end(), b.gradients().begin()));
  }

  gpt<float> whole(config, one, 1, 1);
  randomise(whole);
  CHECK(whole.loss(one, tokens, targets, batch) == Approx(a.loss(one, tokens, targets, batch)).epsilon(1e-6));
}

TEST_CASE("small_gpt: an untrained model knows nothing", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  matopt::thread_pool pool(1);
  const gpt_config config{.arch = arch, .layers = 2, .heads = 2, .width = 32, .context = 16, .vocabulary = 50};
  gpt<float> model(config, pool);
  const auto tokens = random_tokens(64, 50, 2), targets = random_tokens(64, 50, 3);
  const double margin = arch == architecture::modern ? 1e-6 : 0.05;  // the zero head is exactly uniform
  CHECK(model.loss(pool, tokens, targets, 4) == Approx(std::log(50.0)).margin(margin));
}

TEST_CASE("small_gpt: next-token logits are those of the loss", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  const gpt_config config = odd_sizes(arch);
  matopt::thread_pool pool(1);
  gpt<double> model(config, pool, 1);
  randomise(model);
  const auto tokens = random_tokens(5, 11, 2), targets = random_tokens(5, 11, 3);
  double loss = 0;
  for (std::size_t n = 1; n <= 5; ++n) {  // causality: a prefix alone predicts what it predicts inside the whole
    std::vector<double> z(11);
    model.logits(pool, std::span(tokens).first(n), z);
    double sum = 0;
    for (const double v : z) sum += std::exp(v);
    loss += std::log(sum) - z[static_cast<std::size_t>(targets[n - 1])];
  }
  CHECK(loss / 5 == Approx(model.loss(pool, tokens, targets, 1)).epsilon(1e-12));
}

TEST_CASE("small_gpt: observers see the inputs of every hidden layer", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  const gpt_config config = odd_sizes(arch);
  matopt::thread_pool pool(3);
  gpt<double> model(config, pool, 1);
  randomise(model);
  const auto list = model.parameters();
  std::vector<std::vector<int>> seen(list.size(), std::vector<int>(500));  // tokens of each layer
  std::mutex one_at_a_time;
  const auto tokens = random_tokens(100 * 5, 11, 2);
  model.observe_inputs(pool, tokens, 100,
                       [&](std::size_t i, const double* x, index_t first, index_t rows, index_t cols) {
                         const std::scoped_lock lock(one_at_a_time);
                         REQUIRE(i < list.size());
                         CHECK(list[i].kind == small_gpt::tensor_role::hidden);
                         CHECK(list[i].cols == cols);
                         CHECK(std::isfinite(x[rows * cols - 1]));
                         for (index_t r = 0; r < rows; ++r) ++seen[i].at(static_cast<std::size_t>(first + r));
                       });
  for (std::size_t i = 0; i < list.size(); ++i)
    CHECK(seen[i] == std::vector<int>(500, list[i].kind == small_gpt::tensor_role::hidden));
}

// All logits anew, from what goes into the weights of queries and keys, and a softmax of blocks that has no part in it.
TEST_CASE("small_gpt: the largest logit of attention of each head is over the whole batch", "[small_gpt]") {
  gpt_config config = odd_sizes(architecture::nanogpt);
  const auto context = GENERATE(5, 70);
  config.context = context;
  const index_t batch = 9, w = config.width, d = config.head_width();
  matopt::thread_pool pool(2);
  gpt<double> model(config, pool, 1, 3);
  randomise(model);
  const auto size = static_cast<std::size_t>(batch * context);
  const auto tokens = random_tokens(size, 11, 2), targets = random_tokens(size, 11, 3);
  model.loss_and_gradient(pool, tokens, targets, batch);
  CHECK(model.largest_attention_logits().empty());
  model.measure_attention_logits();
  const double loss = model.loss_and_gradient(pool, tokens, targets, batch);
  CHECK(loss == model.loss(pool, tokens, targets, batch));
  const auto largest = model.largest_attention_logits();
  REQUIRE(largest.size() == 4);

  std::vector<double> expected(4, -1e300);
  const auto list = model.parameters();
  std::mutex one_at_a_time;
  model.observe_inputs(pool, tokens, batch, [&](std::size_t i, const double* x, index_t, index_t rows, index_t cols) {
    if (!list[i].name.ends_with(".qkv")) return;
    const std::scoped_lock lock(one_at_a_time);
    const auto layer = static_cast<std::size_t>(list[i].name[5] - '0');
    const auto project = [&](index_t token, index_t row) {
      double sum = 0;
      for (index_t c = 0; c < cols; ++c) sum += x[token * cols + c] * list[i].value[row * cols + c];
      return sum;
    };
    for (index_t s = 0; s < rows; s += context)
      for (index_t head = 0; head < 2; ++head)
        for (index_t query = 0; query < context; ++query)
          for (index_t key = 0; key <= query; ++key) {
            double dot = 0;
            for (index_t j = head * d; j < (head + 1) * d; ++j) dot += project(s + query, j) * project(s + key, w + j);
            double& most = expected[2 * layer + static_cast<std::size_t>(head)];
            most = std::max(most, dot / std::sqrt(static_cast<double>(d)));
          }
  });
  for (std::size_t i = 0; i < 4; ++i) CHECK(largest[i] == Approx(expected[i]).epsilon(1e-12));

  // Each call begins anew, and an evaluation leaves the numbers alone.
  const std::vector<double> before(largest.begin(), largest.end());
  model.loss(pool, targets, tokens, batch);
  CHECK(before == std::vector<double>(largest.begin(), largest.end()));
  for (double& value : model.weights()) value *= 0.5;
  model.loss_and_gradient(pool, tokens, targets, batch);
  for (std::size_t i = 0; i < 4; ++i) CHECK(largest[i] < before[i]);
}

TEST_CASE("small_gpt: the parameter table covers the buffers", "[small_gpt]") {
  const auto arch = GENERATE(architecture::nanogpt, architecture::modern);
  matopt::thread_pool pool(1);
  gpt<float> model(odd_sizes(arch), pool);
  const float* value = model.weights().data();
  const float* gradient = model.gradients().data();
  for (const auto& p : model.parameters()) {
    CHECK(p.value == value);
    CHECK(p.gradient == gradient);
    value += p.rows * p.cols;
    gradient += p.rows * p.cols;
    index_t stacked = 0;
    for (const index_t rows : p.row_blocks) stacked += rows;
    CHECK((p.row_blocks.empty() || stacked == p.rows));
  }
  CHECK(value == model.weights().data() + model.weights().size());

  const auto weights = static_cast<double>(model.weights().size());
  CHECK(model.config().least_bytes(0, 4) <= 4 * weights);
  CHECK(model.config().least_bytes(0, 4) > 3 * weights);
  gpt_config huge = model.config();
  huge.layers = 1000000000;
  CHECK(huge.least_bytes(2, 4) > 1e10);
}

TEST_CASE("small_gpt: bad input is refused by name", "[small_gpt]") {
  matopt::thread_pool pool(1);
  const auto refuses = [&](gpt_config config, const std::string& text) {
    CHECK_THROWS_WITH(gpt<float>(config, pool), Catch::Contains(text));
  };
  refuses({.heads = 3}, "width is 128; legal: a multiple of heads (3)");
  refuses({.heads = 4, .width = 12}, "width / heads is 3");
  refuses({.layers = 0}, "layers is 0");
  refuses({.vocabulary = 0}, "vocabulary is 0");
  CHECK_NOTHROW(gpt<float>({.arch = architecture::nanogpt, .heads = 4, .width = 12}, pool));

  gpt<float> model(odd_sizes(architecture::modern), pool);
  auto tokens = random_tokens(5, 11, 2);
  std::vector<float> z(11);
  CHECK_THROWS_WITH(model.loss(pool, tokens, tokens, 2), Catch::Contains("size of tokens is 5"));
  CHECK_THROWS_WITH(model.loss(pool, tokens, tokens, 0), Catch::Contains("batch is 0"));
  CHECK_THROWS_WITH(model.logits(pool, {}, z), Catch::Contains("number of tokens is 0"));
  tokens[2] = 11;
  CHECK_THROWS_WITH(model.loss(pool, tokens, tokens, 1), Catch::Contains("an entry of tokens is 11; legal: 0 to"));
}
