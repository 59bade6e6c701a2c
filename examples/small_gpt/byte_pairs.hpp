// Byte-pair encoding on bytes, as GPT-2 has it: text is cut into words, and within a word the pairs of neighbours that
// were learned are merged, the earliest learned first.
//
//   words    's 't 're 've 'm 'll 'd, or letters, numbers, or other signs, each with one space before it, or white
//   space
//            (of which the last character before a word belongs to the word, if it is a space)
//   learn    the pair that occurs most often becomes a token, again and again; of equal counts the pair with the
//            smaller numbers
//
// Sennrich, Haddow, Birch (2016), arXiv 1508.07909; on bytes and with these words: Radford et al. (2019). Tokens 0 to
// 255 are the bytes, in GPT-2's order. What is not UTF-8 is cut and encoded as well: any bytes come back as they were.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "matopt/core/error.hpp"
#include "unicode_classes.hpp"
#include "utf8.hpp"

namespace small_gpt {

class byte_pairs {
 public:
  using token = std::int32_t;
  using pair = std::pair<token, token>;
  static constexpr std::size_t longest_token = 255;  // bytes, what the vocabulary files of other programs can hold

  // Learns at most `size` tokens. It ends before that when no pair occurs twice.
  static byte_pairs learned(std::string_view text, int size) {
    if (size < 257 || size > 65536)
      throw matopt::bad_value("--vocabulary-size", std::to_string(size), "257 to 65536, what two bytes can number");
    return byte_pairs(learner(text).run(static_cast<std::size_t>(size)));
  }
  // From the pairs in the order in which they were learned.
  explicit byte_pairs(std::vector<pair> merges) : merges_(std::move(merges)) {
    symbols_.resize(256);
    for (unsigned b = 0; b < 256; ++b)
      symbols_[static_cast<std::size_t>(number_of_byte(b))] = std::string(1, static_cast<char>(b));
    std::unordered_map<std::string, token> known;
    for (std::size_t i = 0; i < symbols_.size(); ++i) known.emplace(symbols_[i], static_cast<token>(i));
    for (std::size_t i = 0; i < merges_.size(); ++i) {
      const auto [a, b] = merges_[i];
      const auto size = static_cast<token>(symbols_.size());
      if (a < 0 || b < 0 || a >= size || b >= size || !ranks_.emplace(key(a, b), rank{i, size}).second)
        throw matopt::bad_file("merge " + std::to_string(i) +
                               " of the vocabulary is no pair of known tokens, or a second one");
      const std::string text = symbols_[static_cast<std::size_t>(a)] + symbols_[static_cast<std::size_t>(b)];
      // A token that can be made of other pairs, too, is the same token.
      if (const auto [at, fresh] = known.emplace(text, size); fresh)
        symbols_.push_back(text);
      else
        ranks_.at(key(a, b)).made = at->second;
    }
  }

  const std::vector<std::string>& symbols() const { return symbols_; }
  const std::vector<pair>& merges() const { return merges_; }

  std::vector<token> encode(std::string_view text) const {
    std::vector<token> out;
    out.reserve(text.size() / 3);
    std::unordered_map<std::string_view, std::vector<token>> known;
    for_words(text, [&](std::string_view word) {
      const auto [at, fresh] = known.try_emplace(word);
      if (fresh) at->second = encode_word(word);
      out.insert(out.end(), at->second.begin(), at->second.end());
    });
    return out;
  }

  // Calls f for each word; together they are the text.
  template <class F>
  static void for_words(std::string_view text, F f) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = end_of_word(text, at);
      f(text.substr(at, end - at));
      at = end;
    }
  }

 private:
  struct rank {
    std::size_t order;
    token made;
  };
  static std::uint64_t key(token a, token b) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32U | static_cast<std::uint32_t>(b);
  }

  // GPT-2 numbers the bytes that print first, and then the others.
  static token number_of_byte(unsigned b) {
    static const std::array<token, 256> numbers = [] {
      std::array<token, 256> n{};
      token next = 0;
      for (const bool printing : {true, false})
        for (unsigned i = 0; i < 256; ++i)
          if (((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174) == printing) n[i] = next++;
      return n;
    }();
    return numbers[b];
  }
  static std::vector<token> bytes_of(std::string_view word) {
    std::vector<token> out;
    for (const char c : word) out.push_back(number_of_byte(static_cast<unsigned char>(c)));
    return out;
  }

  static character_class class_at(std::string_view text, std::size_t at, std::size_t& length) {
    length = character_length(text, at);
    return class_of(character_at(text, at, length));
  }
  static std::size_t end_of_word(std::string_view text, std::size_t at) {
    for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
      if (text.substr(at, ending.size()) == ending) return at + ending.size();
    std::size_t length = 0;
    character_class kind = class_at(text, at, length);
    if (text[at] == ' ' && at + 1 < text.size()) {  // one space goes with what follows
      std::size_t next = 0;
      if (const character_class following = class_at(text, at + 1, next); following != character_class::space)
        kind = following;
    }
    std::size_t end = at + length, last = at;
    for (std::size_t n = 0; end < text.size(); end += n) {
      if (class_at(text, end, n) != kind) break;
      last = end;
    }
    // White space leaves its last character to the word that follows, if it is more than one.
    return kind == character_class::space && end < text.size() && last > at ? last : end;
  }

  std::vector<token> encode_word(std::string_view word) const {
    std::vector<token> tokens = bytes_of(word);
    while (tokens.size() > 1) {
      const rank* best = nullptr;
      for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
        if (const auto at = ranks_.find(key(tokens[i], tokens[i + 1]));
            at != ranks_.end() && (!best || at->second.order < best->order))
          best = &at->second;
      if (!best) break;
      merge(tokens, merges_[best->order], best->made);
    }
    return tokens;
  }
  static void merge(std::vector<token>& tokens, pair what, token made) {
    std::size_t out = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const bool found = i + 1 < tokens.size() && tokens[i] == what.first && tokens[i + 1] == what.second;
      tokens[out++] = found ? made : tokens[i];
      i += found;
    }
    tokens.resize(out);
  }

  // Counts pairs, and keeps the counts up to date for the words that a merge changes.
  class learner {
   public:
    explicit learner(std::string_view text) {
      std::unordered_map<std::string_view, std::int64_t> counts;
      for_words(text, [&](std::string_view word) { ++counts[word]; });
      for (const auto& [word, count] : counts) words_.push_back({bytes_of(word), count});
      for (std::size_t w = 0; w < words_.size(); ++w) count_pairs(w, 1);
      for (const auto& [what, found] : pairs_) queue_.push({found.count, what});
      touched_.clear();
    }
    std::vector<pair> run(std::size_t size) {
      std::vector<pair> merges;
      byte_pairs none{std::vector<pair>{}};
      std::vector<std::string> symbols = none.symbols();
      std::unordered_map<std::string, token> known;
      for (std::size_t i = 0; i < symbols.size(); ++i) known.emplace(symbols[i], static_cast<token>(i));
      while (symbols.size() < size && !queue_.empty()) {
        const candidate top = queue_.top();
        queue_.pop();
        const auto at = pairs_.find(top.what);
        if (at == pairs_.end() || at->second.count != top.count) continue;  // there is a later entry with its count
        if (top.count < 2) break;
        const std::string text =
            symbols[static_cast<std::size_t>(top.what.first)] + symbols[static_cast<std::size_t>(top.what.second)];
        if (text.size() > longest_token) continue;
        const auto [made, fresh] = known.emplace(text, static_cast<token>(symbols.size()));
        if (fresh) symbols.push_back(text);
        merges.push_back(top.what);
        const std::set<std::size_t> places = std::move(at->second.words);
        pairs_.erase(at);
        for (const std::size_t w : places) {
          count_pairs(w, -1);
          merge(words_[w].tokens, top.what, made->second);
          count_pairs(w, 1);
        }
        pairs_.erase(top.what);
        for (const pair& p : touched_)
          if (const auto changed = pairs_.find(p); changed != pairs_.end() && changed->second.count > 0)
            queue_.push({changed->second.count, p});
        touched_.clear();
      }
      return merges;
    }

   private:
    struct word {
      std::vector<token> tokens;
      std::int64_t count;
    };
    struct occurrences {
      std::int64_t count = 0;
      std::set<std::size_t> words;
    };
    struct candidate {
      std::int64_t count;
      pair what;
      bool operator<(const candidate& o) const { return count != o.count ? count < o.count : what > o.what; }
    };
    void count_pairs(std::size_t w, int sign) {
      const word& x = words_[w];
      for (std::size_t i = 0; i + 1 < x.tokens.size(); ++i) {
        const pair p{x.tokens[i], x.tokens[i + 1]};
        occurrences& found = pairs_[p];
        found.count += sign * x.count;
        if (sign > 0) found.words.insert(w);
        touched_.insert(p);
      }
    }

    std::vector<word> words_;
    std::map<pair, occurrences> pairs_;
    std::set<pair> touched_;
    std::priority_queue<candidate> queue_;
  };

  std::vector<pair> merges_;
  std::vector<std::string> symbols_;
  std::unordered_map<std::uint64_t, rank> ranks_;
};

}  // namespace small_gpt
