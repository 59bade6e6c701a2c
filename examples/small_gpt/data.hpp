// Tokens to batches: the train/validation split, random batches and validation windows.
//
// Batch t of a run is a function of (seed, t) alone, so a resumed run needs no generator state to continue bit for bit.
// Windows of a text are drawn with replacement; those of shards come in a shuffled order, each once per epoch.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <numbers>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "files.hpp"
#include "matopt/core/error.hpp"
#include "matopt/core/index.hpp"
#include "matopt/core/settings.hpp"
#include "random.hpp"
#include "token_shards.hpp"
#include "vocabulary.hpp"

namespace small_gpt {

// A number below `size` for each number below it, each once: a shuffle that needs no memory. A Feistel network on the
// next power of four, walked until it comes out below `size`.
class permutation {
 public:
  permutation(std::uint64_t size, std::uint64_t seed, std::uint64_t stream) : size_(size) {
    while (half_ < 32 && std::uint64_t{1} << (2 * half_) < size) ++half_;
    random_stream random(seed, stream);
    for (auto& k : keys_) k = random.bits();
  }
  std::uint64_t operator()(std::uint64_t i) const {
    do i = mixed(i);
    while (i >= size_);
    return i;
  }

 private:
  std::uint64_t mixed(std::uint64_t i) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_) - 1;
    std::uint64_t left = i >> half_, right = i & mask;
    for (const std::uint64_t key : keys_) {
      const std::uint64_t next = left ^ (random_stream(key, right).bits() & mask);
      left = right, right = next;
    }
    return left << half_ | right;
  }
  std::uint64_t size_;
  unsigned half_ = 1;
  std::array<std::uint64_t, 4> keys_{};
};

// What trains and what validates: a text whose tokens are cut at `train_fraction` of their number, or a folder of
// shards.
class dataset {
 public:
  dataset(std::string_view text, const vocabulary& v, int context, double train_fraction = 0.9) : context_(context) {
    if (context < 1) throw matopt::bad_value("context", std::to_string(context), "at least 1");
    if (!(train_fraction > 0 && train_fraction < 1))
      throw matopt::bad_value("train_fraction", matopt::detail::text(train_fraction), "above 0 and below 1");
    tokens_ = v.encode(text);
    const auto size = static_cast<double>(tokens_.size());
    cut_ = static_cast<std::size_t>(size * train_fraction);
    // Each part must hold one window and the target of its last token.
    const std::size_t need = static_cast<std::size_t>(context) + 1;
    if (cut_ < need || tokens_.size() - cut_ < need) {
      char least[32];
      std::snprintf(least, sizeof least, "%.15g",
                    // less what 1 - train_fraction is off by
                    std::ceil(static_cast<double>(need) / std::min(train_fraction, 1 - train_fraction) - 1e-9));
      throw matopt::error("the text has " + std::to_string(tokens_.size()) + " tokens; a context of " +
                          std::to_string(context) + " with a train_fraction of " +
                          matopt::detail::text(train_fraction) + " needs at least " + least);
    }
    const auto validation_bytes = v.decode(validation()).size();
    validation_tokens_per_byte_ = static_cast<double>(validation().size()) / static_cast<double>(validation_bytes);
  }
  dataset(token_shards shards, const vocabulary& v, int context) : context_(context) {
    if (context < 1) throw matopt::bad_value("context", std::to_string(context), "at least 1");
    shards_ = std::make_shared<const token_shards>(std::move(shards));
    for (const auto* part : {&shards_->train, &shards_->validation})
      if (windows_of(*part) == 0)
        throw matopt::error("no shard has the " + std::to_string(context + 1) + " tokens that a context of " +
                            std::to_string(context) + " needs");
    // Of large shards the beginning, which shows tokens of another vocabulary; the rest when it is learned.
    vocabulary_ = v.size();
    for (const token_shard& shard : shards_->train) shard.check(0, 1'000'000, vocabulary_);
    double tokens = 0, bytes = 0;
    for (const token_shard& shard : shards_->validation) {
      shard.check(0, shard.size(), vocabulary_);
      for (std::size_t i = 0; i < shard.size(); ++i)
        tokens += 1, bytes += static_cast<double>(v.symbols()[static_cast<std::size_t>(shard[i])].size());
    }
    validation_tokens_per_byte_ = v.has_text() && bytes > 0 ? tokens / bytes : std::numeric_limits<double>::quiet_NaN();
  }

  int context() const { return context_; }
  // Of a text.
  std::span<const std::int32_t> train() const { return std::span(tokens_).first(cut_); }
  std::span<const std::int32_t> validation() const { return std::span(tokens_).subspan(cut_); }

  // Training batch number `step`. The spans hold a multiple of `context` values.
  void batch(std::uint64_t seed, std::uint64_t step, std::span<std::int32_t> tokens,
             std::span<std::int32_t> targets) const {
    const auto n = static_cast<std::size_t>(context_);
    if (shards_) {
      const std::uint64_t windows = windows_of(shards_->train), count = tokens.size() / n;
      for_each_window(tokens, targets, [&](std::size_t i, std::int32_t* x, std::int32_t* y) {
        const std::uint64_t number = step * count + i, epoch = number / windows;
        copy_window(shards_->train, permutation(windows, seed, epoch)(number % windows), x, y);
      });
      return;
    }
    random_stream random(seed, step);
    for_each_window(tokens, targets, [&](std::size_t, std::int32_t* x, std::int32_t* y) {
      copy(train(), static_cast<std::size_t>(random.below(train().size() - n)), x, y);
    });
  }

  // The validation part in consecutive windows that do not overlap. A rest shorter than a window is left out.
  index_t validation_windows() const {
    if (shards_) return static_cast<index_t>(windows_of(shards_->validation));
    return static_cast<index_t>(validation().size() - 1) / context_;
  }
  // Copies as many windows as the spans hold, starting with number `first`.
  void validation_batch(index_t first, std::span<std::int32_t> tokens, std::span<std::int32_t> targets) const {
    const auto count = static_cast<index_t>(tokens.size()) / context_;
    if (first < 0 || first + count > validation_windows())
      throw matopt::bad_value("last validation window", std::to_string(first + count),
                              "at most " + std::to_string(validation_windows()));
    for_each_window(tokens, targets, [&](std::size_t i, std::int32_t* x, std::int32_t* y) {
      const auto number = static_cast<std::size_t>(first) + i;
      if (shards_)
        copy_window(shards_->validation, number, x, y);
      else
        copy(validation(), number * static_cast<std::size_t>(context_), x, y);
    });
  }

  // NaN if it is not known how many bytes the tokens stand for.
  double validation_bits_per_byte(double nats_per_token) const {
    return bits_per_byte(nats_per_token, validation_tokens_per_byte_, 1);
  }

 private:
  // Calls f(i, tokens, targets) for each window that the spans hold.
  template <class F>
  void for_each_window(std::span<std::int32_t> tokens, std::span<std::int32_t> targets, F f) const {
    const auto n = static_cast<std::size_t>(context_);
    if (tokens.size() != targets.size() || tokens.size() % n != 0)
      throw matopt::bad_value("size of tokens and targets",
                              std::to_string(tokens.size()) + " and " + std::to_string(targets.size()),
                              "the same multiple of context (" + std::to_string(n) + ")");
    for (std::size_t i = 0; i * n < tokens.size(); ++i) f(i, tokens.data() + i * n, targets.data() + i * n);
  }
  // The window that begins at `at`, and the same one token later.
  template <class Source>
  void copy(const Source& source, std::size_t at, std::int32_t* tokens, std::int32_t* targets) const {
    for (std::size_t j = 0; j < static_cast<std::size_t>(context_); ++j)
      tokens[j] = source[at + j], targets[j] = source[at + j + 1];
  }

  // Windows of shards begin at multiples of the context, and none reaches from one shard into the next.
  std::size_t windows_of(const token_shard& shard) const {
    return shard.size() > 0 ? (shard.size() - 1) / static_cast<std::size_t>(context_) : 0;
  }
  std::size_t windows_of(const std::vector<token_shard>& shards) const {
    std::size_t sum = 0;
    for (const auto& shard : shards) sum += windows_of(shard);
    return sum;
  }
  void copy_window(const std::vector<token_shard>& shards, std::size_t number, std::int32_t* tokens,
                   std::int32_t* targets) const {
    for (const auto& shard : shards) {
      const std::size_t here = windows_of(shard);
      if (number < here) {
        const std::size_t first = number * static_cast<std::size_t>(context_);
        shard.check(first, static_cast<std::size_t>(context_) + 1, vocabulary_);
        return copy(shard, first, tokens, targets);
      }
      number -= here;
    }
  }

  int context_;
  std::vector<std::int32_t> tokens_;
  std::size_t cut_ = 0;
  std::shared_ptr<const token_shards> shards_;
  int vocabulary_ = 0;  // its size, of shards
  double validation_tokens_per_byte_ = 1;
};

// Mean loss over the first `most` validation windows (0: all), in nats per token. loss(tokens, targets, windows) is the
// mean of a batch of any size: it is called once per `windows_per_call`; between two calls `stopped` may end it, and
// the mean is NaN.
template <class Loss>
double validation_loss(Loss&& loss, const dataset& data, index_t most, index_t windows_per_call = 64,
                       const std::function<bool()>& stopped = {}) {
  const index_t windows = most > 0 ? std::min(most, data.validation_windows()) : data.validation_windows();
  std::vector<std::int32_t> tokens, targets;
  double sum = 0;
  for (index_t first = 0; first < windows; first += windows_per_call) {
    if (stopped && stopped()) return std::numeric_limits<double>::quiet_NaN();
    const index_t count = std::min(windows_per_call, windows - first);
    tokens.resize(static_cast<std::size_t>(count * data.context()));
    targets.resize(tokens.size());
    data.validation_batch(first, tokens, targets);
    sum += loss(std::span<const std::int32_t>(tokens), std::span<const std::int32_t>(targets), count) *
           static_cast<double>(count);
  }
  return sum / static_cast<double>(windows);
}

}  // namespace small_gpt
