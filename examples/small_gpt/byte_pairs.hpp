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
#include <functional>
#include <queue>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
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
      if (text.size() > longest_token)
        throw matopt::bad_file("merge " + std::to_string(i) + " of the vocabulary makes a token of " +
                               std::to_string(text.size()) + " bytes; legal: at most " + std::to_string(longest_token));
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

  // A word as tokens, of which neighbours merge in place: `next` and `before` skip what a merge has taken in.
  struct chain {
    static constexpr std::uint32_t none = 0xffffffffU;
    std::vector<token> tokens;  // -1: taken in
    std::vector<std::uint32_t> next, before;

    explicit chain(std::string_view word) : tokens(bytes_of(word)), next(tokens.size()), before(tokens.size()) {
      if (tokens.size() >= none)
        throw matopt::bad_value("bytes of a word", std::to_string(word.size()), "less than 4294967295");
      for (std::uint32_t i = 0; i < tokens.size(); ++i) {
        before[i] = i > 0 ? i - 1 : none;
        next[i] = i + 1 < tokens.size() ? i + 1 : none;
      }
    }
    bool has_pair(std::uint32_t i) const { return i != none && tokens[i] >= 0 && next[i] != none; }
    pair pair_at(std::uint32_t i) const { return {tokens[i], tokens[next[i]]}; }
    void merge(std::uint32_t i, token made) {
      const std::uint32_t taken = next[i];
      tokens[i] = made, tokens[taken] = -1;
      next[i] = next[taken];
      if (next[i] != none) before[next[i]] = i;
    }
  };

  std::vector<token> encode_word(std::string_view word) const {
    chain c(word);
    using place = std::pair<std::size_t, std::uint32_t>;  // the order of the pair, and where it is
    std::priority_queue<place, std::vector<place>, std::greater<>> queue;
    const auto offer = [&](std::uint32_t i) {
      if (!c.has_pair(i)) return;
      const auto [a, b] = c.pair_at(i);
      if (const auto at = ranks_.find(key(a, b)); at != ranks_.end()) queue.emplace(at->second.order, i);
    };
    for (std::uint32_t i = 0; i < c.tokens.size(); ++i) offer(i);
    std::vector<std::uint32_t> changed;
    while (!queue.empty()) {
      // All pairs of one kind, from left to right; then what has become neighbours.
      const std::size_t order = queue.top().first;
      const pair what = merges_[order];
      const token made = ranks_.at(key(what.first, what.second)).made;
      changed.clear();
      for (; !queue.empty() && queue.top().first == order; queue.pop()) {
        const std::uint32_t i = queue.top().second;
        if (!c.has_pair(i) || c.pair_at(i) != what) continue;  // a merge to its left took part of it
        c.merge(i, made);
        changed.push_back(c.before[i]), changed.push_back(i);
      }
      for (const std::uint32_t i : changed) offer(i);
    }
    std::erase(c.tokens, -1);
    return std::move(c.tokens);
  }

  // Counts pairs, and keeps the counts up to date around each merge.
  class learner {
   public:
    explicit learner(std::string_view text) {
      std::unordered_map<std::string_view, std::int64_t> counts;
      for_words(text, [&](std::string_view word) { ++counts[word]; });
      words_.reserve(counts.size());
      for (const auto& [w, count] : counts) words_.push_back({chain(w), count});
      for (std::uint32_t w = 0; w < words_.size(); ++w)
        for (std::uint32_t i = 0; i < words_[w].tokens.tokens.size(); ++i) count(w, i, 1);
      for (const auto& [what, found] : pairs_) queue_.push({found.count, found.what});
      touched_.clear();
    }
    std::vector<pair> run(std::size_t size) {
      std::vector<pair> merges;
      byte_pairs none{std::vector<pair>{}};
      std::vector<std::string> symbols = none.symbols();
      std::unordered_map<std::string, token> known;
      std::unordered_set<std::uint64_t> merged;
      for (std::size_t i = 0; i < symbols.size(); ++i) known.emplace(symbols[i], static_cast<token>(i));
      while (symbols.size() < size && !queue_.empty()) {
        const candidate top = queue_.top();
        queue_.pop();
        const auto [a, b] = top.what;
        const auto at = pairs_.find(key(a, b));
        if (at == pairs_.end() || at->second.count != top.count) continue;  // there is a later entry with its count
        if (top.count < 2) break;
        const std::string text = symbols[static_cast<std::size_t>(a)] + symbols[static_cast<std::size_t>(b)];
        if (text.size() > longest_token) continue;
        const auto [made, fresh] = known.emplace(text, static_cast<token>(symbols.size()));
        if (fresh) symbols.push_back(text);
        // A token that two pairs make can bring an earlier pair together once more.
        if (merged.insert(key(a, b)).second) merges.push_back(top.what);
        std::vector<place> places = std::move(at->second.places);
        std::sort(places.begin(), places.end());
        for (const auto& [w, i] : places) merge(w, i, top.what, made->second);
        pairs_.erase(key(a, b));
        for (const pair& p : touched_)
          if (const auto changed = pairs_.find(key(p.first, p.second));
              changed != pairs_.end() && changed->second.count > 0)
            queue_.push({changed->second.count, p});
        touched_.clear();
      }
      return merges;
    }

   private:
    using place = std::pair<std::uint32_t, std::uint32_t>;  // the word, and where in it
    struct word {
      chain tokens;
      std::int64_t count;
    };
    struct occurrences {
      pair what;
      std::int64_t count = 0;
      std::vector<place> places;  // also those of which a merge has taken a part
    };
    struct candidate {
      std::int64_t count;
      pair what;
      bool operator<(const candidate& o) const { return count != o.count ? count < o.count : what > o.what; }
    };
    // The pair at i in the word w comes or goes.
    void count(std::uint32_t w, std::uint32_t i, int sign) {
      const word& x = words_[w];
      if (!x.tokens.has_pair(i)) return;
      const pair p = x.tokens.pair_at(i);
      occurrences& found = pairs_[key(p.first, p.second)];
      found.what = p;
      found.count += sign * x.count;
      if (sign > 0) found.places.emplace_back(w, i);
      touched_.insert(p);
    }
    void merge(std::uint32_t w, std::uint32_t i, pair what, token made) {
      chain& c = words_[w].tokens;
      if (!c.has_pair(i) || c.pair_at(i) != what) return;
      count(w, c.before[i], -1), count(w, c.next[i], -1);
      c.merge(i, made);
      count(w, c.before[i], 1), count(w, i, 1);
    }

    std::vector<word> words_;
    std::unordered_map<std::uint64_t, occurrences> pairs_;
    std::set<pair> touched_;
    std::priority_queue<candidate> queue_;
  };

  std::vector<pair> merges_;
  std::vector<std::string> symbols_;
  std::unordered_map<std::uint64_t, rank> ranks_;
};

// The merges of pairs as text, "0 1 5 7 ...".
inline std::string text_of(const std::vector<byte_pairs::pair>& merges) {
  std::string text;
  for (const auto& [a, b] : merges) text += std::to_string(a) + ' ' + std::to_string(b) + ' ';
  return text;
}
inline byte_pairs pairs_from(const std::string& text, const std::string& where) {
  std::istringstream in(text);
  std::vector<byte_pairs::token> numbers;
  for (byte_pairs::token n; in >> n;) numbers.push_back(n);
  if (!in.eof() || numbers.size() % 2 != 0)
    throw matopt::bad_file(where + " is no list of pairs of numbers: it ends after " + std::to_string(numbers.size()) +
                           " numbers, or goes on with something else");
  std::vector<byte_pairs::pair> merges;
  for (std::size_t i = 0; i < numbers.size(); i += 2) merges.emplace_back(numbers[i], numbers[i + 1]);
  try {
    return byte_pairs(std::move(merges));
  } catch (const matopt::error& e) {
    throw matopt::bad_file(where + ": " + e.what());
  }
}

}  // namespace small_gpt
