// Text to tokens: vocabularies, the train/validation split, random batches and validation windows.
//
// Batch t of a run is a function of (seed, t) alone, so a resumed run needs no generator state to continue bit for bit.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
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

namespace small_gpt {

using matopt::index_t;

enum class vocabulary_kind { byte, character };

// Length of the UTF-8 sequence that starts at text[at]; 1 for a byte that starts none, which then is a symbol of its
// own. Overlong forms, surrogates and values above U+10FFFF are not UTF-8.
inline std::size_t character_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[at + i])); };
  const unsigned lead = byte(0);
  const std::size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 1;
  if (at + length > text.size()) return 1;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0U) != 0x80U) return 1;
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xed && byte(1) >= 0xa0;
  const bool too_large = lead == 0xf4 && byte(1) >= 0x90;
  return overlong || surrogate || too_large ? 1 : length;
}

// Token i stands for the string symbols()[i]. Symbols are sorted, so the numbering depends on the set alone.
class vocabulary {
 public:
  static vocabulary bytes() {
    std::vector<std::string> symbols;
    for (int i = 0; i < 256; ++i) symbols.emplace_back(1, static_cast<char>(i));
    return vocabulary(std::move(symbols), vocabulary_kind::byte);
  }
  // The distinct characters of a text.
  static vocabulary characters(std::string_view text) {
    std::array<bool, 256> single{};  // by far most characters; a set of strings would be slow
    std::unordered_map<std::string_view, bool> longer;
    for (std::size_t at = 0, n = 0; at < text.size(); at += n) {
      n = character_length(text, at);
      if (n == 1)
        single[static_cast<unsigned char>(text[at])] = true;
      else
        longer.try_emplace(text.substr(at, n), true);
    }
    std::vector<std::string> symbols;
    for (std::size_t i = 0; i < 256; ++i)
      if (single[i]) symbols.emplace_back(1, static_cast<char>(i));
    for (const auto& entry : longer) symbols.emplace_back(entry.first);
    std::sort(symbols.begin(), symbols.end(), [](std::string_view a, std::string_view b) {
      return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
        return static_cast<unsigned char>(x) < static_cast<unsigned char>(y);
      });
    });
    return vocabulary(std::move(symbols), vocabulary_kind::character);
  }
  // From a checkpoint.
  vocabulary(std::vector<std::string> symbols, vocabulary_kind kind) : kind_(kind), symbols_(std::move(symbols)) {
    single_.fill(-1);
    for (std::size_t i = 0; i < symbols_.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      bool fresh = !symbols_[i].empty();
      if (symbols_[i].size() == 1) {
        auto& slot = single_[static_cast<unsigned char>(symbols_[i][0])];
        fresh = slot < 0;
        slot = id;
      } else if (fresh) {
        fresh = longer_.try_emplace(symbols_[i], id).second;
      }
      if (!fresh) throw matopt::error("vocabulary: symbol " + std::to_string(i) + " is empty or occurs twice");
    }
  }

  vocabulary_kind kind() const { return kind_; }
  int size() const { return static_cast<int>(symbols_.size()); }
  const std::vector<std::string>& symbols() const { return symbols_; }

  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> tokens;
    tokens.reserve(text.size());
    for (std::size_t at = 0, n = 0; at < text.size(); at += n) {
      n = kind_ == vocabulary_kind::byte ? 1 : character_length(text, at);
      const std::int32_t id = n == 1 ? single_[static_cast<unsigned char>(text[at])] : find(text.substr(at, n));
      if (id < 0)
        throw matopt::error("character " + printable(text.substr(at, n)) + " at byte " + std::to_string(at) +
                            " is not among the " + std::to_string(size()) + " of the vocabulary");
      tokens.push_back(id);
    }
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> tokens) const {
    std::string text;
    for (const std::int32_t id : tokens) {
      if (id < 0 || id >= size())
        throw matopt::bad_value("token", std::to_string(id), "0 to " + std::to_string(size() - 1));
      text += symbols_[static_cast<std::size_t>(id)];
    }
    return text;
  }

 private:
  std::int32_t find(std::string_view character) const {
    const auto found = longer_.find(std::string(character));
    return found == longer_.end() ? -1 : found->second;
  }
  static std::string printable(std::string_view character) {
    if (character.size() > 1 || (character[0] > 0x20 && character[0] < 0x7f)) return "'" + std::string(character) + "'";
    constexpr const char* digits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(character[0]);
    return std::string("0x") + digits[byte >> 4] + digits[byte & 15U];
  }

  vocabulary_kind kind_;
  std::vector<std::string> symbols_;
  std::array<std::int32_t, 256> single_{};
  std::unordered_map<std::string, std::int32_t> longer_;
};

// Compresses better than a guess: nats per token, as bits per byte of the text the tokens came from.
inline double bits_per_byte(double nats_per_token, double tokens, double bytes) {
  return nats_per_token * tokens / bytes / std::numbers::ln2;
}

// A token sequence cut at `train_fraction` of its length: the head trains, the tail validates.
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

  int context() const { return context_; }
  std::span<const std::int32_t> train() const { return std::span(tokens_).first(cut_); }
  std::span<const std::int32_t> validation() const { return std::span(tokens_).subspan(cut_); }

  // Training batch number `step`: windows at uniformly drawn places. The spans hold a multiple of `context` values.
  void batch(std::uint64_t seed, std::uint64_t step, std::span<std::int32_t> tokens,
             std::span<std::int32_t> targets) const {
    random_stream random(seed, step);
    for_each_window(
        tokens, targets,
        [&](std::size_t) {
          return static_cast<std::size_t>(random.below(train().size() - static_cast<std::size_t>(context_)));
        },
        train());
  }

  // The validation part in consecutive windows that do not overlap. A rest shorter than a window is left out.
  index_t validation_windows() const { return static_cast<index_t>(validation().size() - 1) / context_; }
  // Copies as many windows as the spans hold, starting with number `first`.
  void validation_batch(index_t first, std::span<std::int32_t> tokens, std::span<std::int32_t> targets) const {
    const auto count = static_cast<index_t>(tokens.size()) / context_;
    if (first < 0 || first + count > validation_windows())
      throw matopt::bad_value("last validation window", std::to_string(first + count),
                              "at most " + std::to_string(validation_windows()));
    for_each_window(
        tokens, targets,
        [&](std::size_t i) { return (static_cast<std::size_t>(first) + i) * static_cast<std::size_t>(context_); },
        validation());
  }

  double validation_bits_per_byte(double nats_per_token) const {
    return bits_per_byte(nats_per_token, validation_tokens_per_byte_, 1);
  }

 private:
  template <class Place>
  void for_each_window(std::span<std::int32_t> tokens, std::span<std::int32_t> targets, Place place,
                       std::span<const std::int32_t> source) const {
    const auto n = static_cast<std::size_t>(context_);
    if (tokens.size() != targets.size() || tokens.size() % n != 0)
      throw matopt::bad_value("size of tokens and targets",
                              std::to_string(tokens.size()) + " and " + std::to_string(targets.size()),
                              "the same multiple of context (" + std::to_string(n) + ")");
    for (std::size_t i = 0; i * n < tokens.size(); ++i) {
      const auto window = source.subspan(place(i), n + 1);
      std::copy_n(window.begin(), n, tokens.begin() + static_cast<index_t>(i * n));
      std::copy_n(window.begin() + 1, n, targets.begin() + static_cast<index_t>(i * n));
    }
  }

  int context_;
  std::vector<std::int32_t> tokens_;
  std::size_t cut_ = 0;
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
