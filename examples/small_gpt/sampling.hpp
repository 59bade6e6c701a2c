// Drawing text from a model: softmax(logits / temperature), cut to the `top_k` most likely tokens.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "matopt/core/error.hpp"
#include "matopt/core/settings.hpp"
#include "random.hpp"

namespace small_gpt {

struct sampling_config {
  double temperature = 1;  // 0 takes the most likely token
  int top_k = 0;           // 0 keeps all

  void validate() const {
    if (!(temperature >= 0) || !std::isfinite(temperature))
      throw matopt::bad_value("temperature", matopt::detail::text(temperature), "0 (most likely token) or more");
    if (top_k < 0) throw matopt::bad_value("top_k", std::to_string(top_k), "0 (keep all) or more");
  }
};

// One draw. Ties at the edge of the top k are all kept, so the result does not depend on an order of equal logits.
template <class T>
std::int32_t sample(std::span<const T> logits, const sampling_config& config, random_stream& random) {
  if (logits.empty()) throw matopt::bad_value("number of logits", "0", "at least 1");
  for (const T z : logits)
    if (!std::isfinite(z)) throw matopt::error("sample: a logit is not finite; did training diverge?");
  const auto best = std::max_element(logits.begin(), logits.end());
  if (config.temperature == 0) return static_cast<std::int32_t>(best - logits.begin());

  T threshold = std::numeric_limits<T>::lowest();
  if (config.top_k > 0 && static_cast<std::size_t>(config.top_k) < logits.size()) {
    std::vector<T> sorted(logits.begin(), logits.end());
    std::nth_element(sorted.begin(), sorted.begin() + (config.top_k - 1), sorted.end(), std::greater<T>());
    threshold = sorted[static_cast<std::size_t>(config.top_k - 1)];
  }
  std::vector<double> cumulative;
  cumulative.reserve(logits.size());
  double sum = 0;
  for (const T z : logits) {
    if (z >= threshold) sum += std::exp((static_cast<double>(z) - static_cast<double>(*best)) / config.temperature);
    cumulative.push_back(sum);
  }
  const auto drawn = std::upper_bound(cumulative.begin(), cumulative.end(), random.uniform() * sum);
  return static_cast<std::int32_t>(std::min(drawn, cumulative.end() - 1) - cumulative.begin());
}

// Continues `prompt` by `count` tokens, each seeing at most `context` tokens before it; `show` gets each token when
// drawn. An empty prompt starts from token 0.
template <class Model, class Pool>
std::vector<std::int32_t> generate(Model& model, Pool& pool, std::vector<std::int32_t> prompt, std::size_t count,
                                   const sampling_config& config, std::uint64_t seed,
                                   const std::function<void(std::int32_t)>& show = {}) {
  config.validate();
  random_stream random(seed);
  if (prompt.empty()) prompt.push_back(0);
  std::vector<std::int32_t> drawn;
  const auto context = static_cast<std::size_t>(model.config().context);
  auto logits = std::vector(static_cast<std::size_t>(model.config().vocabulary), *model.weights().data());
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t length = std::min(prompt.size(), context);
    model.logits(pool, std::span<const std::int32_t>(prompt).last(length), logits);
    const std::int32_t next = sample(std::span<const typename decltype(logits)::value_type>(logits), config, random);
    prompt.push_back(next);
    drawn.push_back(next);
    if (show) show(next);
  }
  return drawn;
}

}  // namespace small_gpt
