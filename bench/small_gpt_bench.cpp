// Speed of the forward and backward pass of examples/small_gpt, in the format of bench/peers/small_gpt_torch.py.
//   small_gpt_bench [--arch nanogpt|modern] [--threads 2] [--batch 12] [--context 64] [--layers 4] [--heads 4]
//                   [--width 128] [--vocabulary 65] [--steps 50] [--warmup 5]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "small_gpt/model.hpp"

namespace {

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

int run(int argc, char** argv) {
  std::map<std::string, std::string> options{
      {"--arch", "nanogpt"}, {"--threads", "2"}, {"--batch", "12"}, {"--context", "64"},    {"--layers", "4"},
      {"--heads", "4"},      {"--width", "128"}, {"--steps", "50"}, {"--vocabulary", "65"}, {"--warmup", "5"}};
  for (int i = 1; i < argc; i += 2) {
    if (!options.contains(argv[i]) || i + 1 >= argc) {
      std::fprintf(stderr, "unknown option or missing value: %s\n", argv[i]);
      return 2;
    }
    options[argv[i]] = argv[i + 1];
  }
  const auto number = [&](const char* name) { return std::stoi(options.at(name)); };

  const std::string arch = options.at("--arch");
  if (arch != "nanogpt" && arch != "modern") throw matopt::bad_value("--arch", arch, "nanogpt, modern");
  const small_gpt::gpt_config config{
      .arch = arch == "modern" ? small_gpt::architecture::modern : small_gpt::architecture::nanogpt,
      .layers = number("--layers"),
      .heads = number("--heads"),
      .width = number("--width"),
      .context = number("--context"),
      .vocabulary = number("--vocabulary")};
  const int batch = number("--batch"), steps = std::max(1, number("--steps"));
  matopt::thread_pool pool(number("--threads"));
  small_gpt::gpt<float> model(config, pool);

  small_gpt::random_stream random(1);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(batch) * static_cast<std::size_t>(config.context) + 1);
  for (auto& t : tokens) t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(config.vocabulary)));
  const std::span<const std::int32_t> all(tokens);
  const std::size_t count = tokens.size() - 1;

  const auto time = [&](auto step) {
    std::vector<double> seconds;
    for (int i = -number("--warmup"); i < steps; ++i) {
      const auto start = std::chrono::steady_clock::now();
      step();
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      if (i >= 0) seconds.push_back(taken.count());
    }
    return seconds;
  };
  const double forward = median(time([&] { model.loss(pool, all.first(count), all.last(count), batch); }));
  const std::vector<double> seconds =
      time([&] { model.loss_and_gradient(pool, all.first(count), all.last(count), batch); });
  const double both = median(seconds), best = *std::min_element(seconds.begin(), seconds.end());
  const auto per_second = [&](double seconds) { return static_cast<double>(count) / seconds; };
  std::printf(
      "{\"implementation\": \"small_gpt\", \"arch\": \"%s\", \"threads\": %d, \"tokens_per_step\": %zu, "
      "\"forward_ms\": %.3f, \"forward_backward_ms\": %.3f, \"forward_backward_best_ms\": %.3f, "
      "\"forward_backward_tokens_per_s\": %.0f, "
      "\"gflops\": %.1f}\n",
      arch.c_str(), pool.size(), count, forward * 1e3, both * 1e3, best * 1e3, per_second(both),
      per_second(both) * model.flops_per_token() * 1e-9);
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
