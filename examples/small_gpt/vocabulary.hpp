// Vocabularies: what a token stands for, and what a loss per token is per byte of text.
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

#include "byte_pairs.hpp"
#include "files.hpp"
#include "matopt/core/error.hpp"
#include "matopt/core/index.hpp"
#include "matopt/core/settings.hpp"
#include "token_shards.hpp"
#include "utf8.hpp"

namespace small_gpt {

using matopt::index_t;

enum class vocabulary_kind { byte, character, pairs, shards };

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
  // Pairs of bytes that are frequent in a text.
  static vocabulary pairs(byte_pairs learned) {
    vocabulary v(learned.symbols(), vocabulary_kind::pairs);
    v.pairs_ = std::make_shared<const byte_pairs>(std::move(learned));
    return v;
  }
  // The tokens of shards: with what they stand for, if a file says it, and else by their numbers.
  static vocabulary of(const token_shards& shards, int size) {
    vocabulary v(shards.symbols, vocabulary_kind::shards, false);
    v.has_text_ = !shards.symbols.empty();
    for (std::size_t i = v.symbols_.size(); i < static_cast<std::size_t>(size); ++i)
      v.symbols_.push_back(number_name(i));
    return v;
  }
  // From a checkpoint.
  vocabulary(std::vector<std::string> symbols, vocabulary_kind kind, bool unique = true)
      : kind_(kind), symbols_(std::move(symbols)) {
    single_.fill(-1);
    if (!unique) {
      has_text_ = symbols_.empty() || symbols_.back() != number_name(symbols_.size() - 1);
      return;
    }
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

  // Of pairs: in the order in which they were learned; empty for other kinds.
  std::vector<byte_pairs::pair> merges() const { return pairs_ ? pairs_->merges() : std::vector<byte_pairs::pair>{}; }
  bool has_text() const { return has_text_; }  // false if it is not known what the tokens stand for

  std::vector<std::int32_t> encode(std::string_view text) const {
    if (pairs_) return pairs_->encode(text);
    std::vector<std::int32_t> tokens;
    if (kind_ == vocabulary_kind::shards) {
      if (!text.empty()) throw matopt::error("text cannot be encoded: this vocabulary is that of a folder of tokens");
      return tokens;
    }
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
  // Of a token of which it is not known what it stands for.
  static std::string number_name(std::size_t i) { return "<" + std::to_string(i) + ">"; }
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
  std::shared_ptr<const byte_pairs> pairs_;
  bool has_text_ = true;
};

// Compresses better than a guess: nats per token, as bits per byte of the text the tokens came from.
inline double bits_per_byte(double nats_per_token, double tokens, double bytes) {
  return nats_per_token * tokens / bytes / std::numbers::ln2;
}

// Empty if it is not known.
inline std::string bits_text(const char* format, double bits) {
  if (std::isnan(bits)) return {};
  char text[64];
  std::snprintf(text, sizeof text, format, bits);
  return text;
}
}  // namespace small_gpt
