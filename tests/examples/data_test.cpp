// Text, vocabularies, batches and sampling of examples/small_gpt.
#include <unistd.h>
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "small_gpt/data.hpp"
#include "small_gpt/divergence.hpp"
#include "small_gpt/model.hpp"
#include "small_gpt/range_coder.hpp"
#include "small_gpt/sampling.hpp"

namespace {

using small_gpt::byte_pairs;
using small_gpt::dataset;
using small_gpt::index_t;
using small_gpt::permutation;
using small_gpt::read_file;
using small_gpt::token_shard;
using small_gpt::token_shards;
using small_gpt::vocabulary;
using small_gpt::write_file;

// The token at position i is i mod 251, so a window shows where it came from.
std::string ramp(std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += static_cast<char>(i % 251);
  return text;
}

}  // namespace

TEST_CASE("small_gpt: vocabularies are sorted sets of characters", "[small_gpt]") {
  const std::string text =
      "b\xc3\xa9"
      "a\xe2\x82\xac"
      "ba\xf0\x9f\x98\x80";  // b e-acute a euro b a emoji
  const vocabulary v = vocabulary::characters(text);
  CHECK(v.symbols() == std::vector<std::string>{"a", "b", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"});
  const auto tokens = v.encode(text);
  CHECK(tokens == std::vector<std::int32_t>{1, 2, 0, 3, 1, 0, 4});
  CHECK(v.decode(tokens) == text);
  const vocabulary restored(v.symbols(), v.kind());
  CHECK(restored.encode(text) == tokens);

  CHECK(vocabulary::bytes().size() == 256);
  CHECK(vocabulary::bytes().encode("\xc3\xa9") == std::vector<std::int32_t>{0xc3, 0xa9});
  CHECK_THROWS_WITH(v.encode("ab?"), Catch::Contains("character '?' at byte 2"));
  CHECK_THROWS_WITH(v.encode("a\n"), Catch::Contains("character 0x0a"));
  CHECK_THROWS_WITH(v.decode(std::vector<std::int32_t>{5}), Catch::Contains("token is 5; legal: 0 to 4"));
  CHECK_THROWS_AS(vocabulary({"a", "a"}, small_gpt::vocabulary_kind::character), matopt::error);
  CHECK_THROWS_AS(vocabulary({""}, small_gpt::vocabulary_kind::character), matopt::error);
}

TEST_CASE("small_gpt: bytes that are not UTF-8 are symbols of their own", "[small_gpt]") {
  using namespace std::string_literals;
  const auto bad = GENERATE("\x80"s, "\xc3"s, "a\xc3z"s, "\xe2\x82"s, "\xf0\x9f\x98"s, "\xc0\xaf"s, "\xe0\x80\xaf"s,
                            "\xed\xa0\x80"s, "\xf4\x90\x80\x80"s, "\xff\xfe\0x"s, "\xf5\x80\x80\x80"s);
  const vocabulary v = vocabulary::characters(bad);
  for (const auto& symbol : v.symbols()) CHECK(symbol.size() == 1);
  CHECK(v.decode(v.encode(bad)) == bad);
}

TEST_CASE("small_gpt: every text survives encoding and decoding", "[small_gpt]") {
  small_gpt::random_stream random(3);
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::string text;
    for (int i = 0; i < 64; ++i)
      text += static_cast<char>(random.below(4) == 0 ? random.below(256) : 0x80 + random.below(112));
    const vocabulary v = vocabulary::characters(text);
    REQUIRE(v.decode(v.encode(text)) == text);
    REQUIRE(vocabulary::bytes().decode(vocabulary::bytes().encode(text)) == text);
  }
}

TEST_CASE("small_gpt: the split is by position", "[small_gpt]") {
  const dataset data(ramp(1000), vocabulary::bytes(), 8);
  CHECK(data.train().size() == 900);
  CHECK(data.validation().size() == 100);
  CHECK(data.train().front() == 0);
  CHECK(data.validation().front() == 900 % 251);
  CHECK(dataset(ramp(1000), vocabulary::bytes(), 8, 0.5).train().size() == 500);
}

TEST_CASE("small_gpt: batches are a function of seed and step", "[small_gpt]") {
  const dataset data(ramp(1000), vocabulary::bytes(), 8);
  std::vector<std::int32_t> tokens(48), targets(48), again(48), other(48);
  std::map<std::int32_t, int> starts;
  for (std::uint64_t step = 0; step < 500; ++step) {
    data.batch(5, step, tokens, targets);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      REQUIRE(targets[i] == (tokens[i] + 1) % 251);
      if (i % 8 != 0) REQUIRE(tokens[i] == targets[i - 1]);
    }
    for (std::size_t i = 0; i < tokens.size(); i += 8) ++starts[tokens[i]];
  }
  CHECK(starts.size() > 240);  // all places occur
  data.batch(5, 499, again, targets);
  CHECK(again == tokens);
  data.batch(6, 499, other, targets);
  CHECK(other != tokens);
  data.batch(5, 498, other, targets);
  CHECK(other != tokens);
  std::vector<std::int32_t> odd(7);
  CHECK_THROWS_AS(data.batch(5, 0, odd, odd), matopt::bad_value);
}

TEST_CASE("small_gpt: the last window of the training part can be drawn, and nothing behind it", "[small_gpt]") {
  const dataset data(ramp(20), vocabulary::bytes(), 8, 0.5);  // 10 training tokens: windows at 0 and 1
  std::vector<std::int32_t> tokens(8), targets(8);
  std::vector<int> seen(2, 0);
  for (std::uint64_t step = 0; step < 64; ++step) {
    data.batch(1, step, tokens, targets);
    REQUIRE(tokens[0] < 2);
    REQUIRE(targets[7] < 10);
    ++seen[static_cast<std::size_t>(tokens[0])];
  }
  CHECK(seen[0] > 0);
  CHECK(seen[1] > 0);
}

TEST_CASE("small_gpt: validation windows follow each other", "[small_gpt]") {
  const dataset data(ramp(1000), vocabulary::bytes(), 8);  // 100 tokens: 12 windows use 97
  REQUIRE(data.validation_windows() == 12);
  std::vector<std::int32_t> tokens(96), targets(96);
  data.validation_batch(0, tokens, targets);
  CHECK(std::equal(tokens.begin(), tokens.end(), data.validation().begin()));
  CHECK(std::equal(targets.begin(), targets.end(), data.validation().begin() + 1));
  CHECK_THROWS_AS(data.validation_batch(1, tokens, targets), matopt::bad_value);

  // The mean first token of the windows, to see that each window counts once.
  const auto loss = [](std::span<const std::int32_t> t, std::span<const std::int32_t>, index_t batch) {
    double sum = 0;
    for (index_t i = 0; i < batch; ++i) sum += t[static_cast<std::size_t>(i * 8)];
    return sum / static_cast<double>(batch);
  };
  double expected = 0;
  for (std::size_t i = 0; i < 12; ++i) expected += tokens[i * 8] / 12.0;
  CHECK(small_gpt::validation_loss(loss, data, 0, 5) == Approx(expected));
  CHECK(small_gpt::validation_loss(loss, data, 1) == Approx(tokens[0]));
}

TEST_CASE("small_gpt: a text that is too short is refused with both sizes", "[small_gpt]") {
  const vocabulary v = vocabulary::bytes();
  CHECK_THROWS_WITH(dataset("", v, 8), Catch::Contains("the text has 0 tokens") && Catch::Contains("at least 9"));
  CHECK_THROWS_WITH(dataset(ramp(60), v, 8), Catch::Contains("the text has 60 tokens") && Catch::Contains("90"));
  CHECK_NOTHROW(dataset(ramp(90), v, 8));
  CHECK_THROWS_WITH(dataset(ramp(90), v, 8, 1e-300), Catch::Contains("at least 9e+300"));
  CHECK_THROWS_AS(dataset(ramp(90), v, 0), matopt::bad_value);
  CHECK_THROWS_AS(dataset(ramp(90), v, 8, 1.0), matopt::bad_value);
}

TEST_CASE("small_gpt: a text is a regular file", "[small_gpt]") {
  CHECK_THROWS_WITH(small_gpt::read_file("/no/such/file", "; advice"),
                    Catch::Contains("No such file or directory; advice"));
  CHECK_THROWS_WITH(small_gpt::read_file("/"), Catch::Contains("it is a folder"));
  CHECK_THROWS_WITH(small_gpt::read_file("/dev/zero"), Catch::Contains("it is a device"));
}

TEST_CASE("small_gpt: texts are told apart by length and hash", "[small_gpt]") {
  CHECK(small_gpt::digest_of("") == "fnv1a64 cbf29ce484222325, 0 bytes");
  CHECK(small_gpt::digest_of("foobar") == "fnv1a64 85944171f73967e8, 6 bytes");  // of the authors' test vectors
  CHECK(small_gpt::digest_of("ab") != small_gpt::digest_of("ba"));
}

TEST_CASE("small_gpt: bytes survive hexadecimal, and nothing else is read as such", "[small_gpt]") {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  CHECK(small_gpt::unhex(small_gpt::hex(all)) == all);
  for (const char* bad : {"0", "0g", "000", "AB", " 00"}) CHECK_THROWS_AS(small_gpt::unhex(bad), matopt::bad_file);
}

TEST_CASE("small_gpt: what counts as divergence", "[small_gpt]") {
  const double guess = std::log(60.0);
  CHECK_FALSE(small_gpt::shows_divergence(guess + 2.99, 60));
  CHECK(small_gpt::shows_divergence(guess + 3.01, 60));
  CHECK(small_gpt::shows_divergence(std::numeric_limits<double>::quiet_NaN(), 60));
  CHECK(small_gpt::shows_divergence(std::numeric_limits<double>::infinity(), 60));
  small_gpt::smoothed_loss mean;
  for (int i = 0; i < 50; ++i) mean.add(2);
  CHECK(mean.after(50) == Approx(2));
  mean.add(50);  // one spike
  CHECK_FALSE(small_gpt::shows_divergence(mean.after(51), 60));
  mean.add(50), mean.add(50);
  CHECK(small_gpt::shows_divergence(mean.after(53), 60));
}

TEST_CASE("small_gpt: bits per byte", "[small_gpt]") {
  CHECK(small_gpt::bits_per_byte(std::log(256.0), 10, 10) == Approx(8));
  const std::string text(100, 'x');
  CHECK(dataset(text, vocabulary::bytes(), 2).validation_bits_per_byte(std::log(2.0)) == Approx(1));
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "\xc3\xa9";  // two bytes a token
  CHECK(dataset(wide, vocabulary::characters(wide), 2).validation_bits_per_byte(std::log(2.0)) == Approx(0.5));
}

TEST_CASE("small_gpt: sampling follows temperature, top k and seed", "[small_gpt]") {
  const std::vector<float> z{0.0F, std::log(3.0F), -100.0F, std::log(2.0F)};
  const std::span<const float> logits(z);
  const auto draw = [&](const small_gpt::sampling_config& config, int n) {
    small_gpt::random_stream random(9);
    std::vector<double> share(4, 0);
    for (int i = 0; i < n; ++i) share[static_cast<std::size_t>(small_gpt::sample(logits, config, random))] += 1.0 / n;
    return share;
  };
  const auto plain = draw({}, 20000);
  CHECK(plain[0] == Approx(1.0 / 6).margin(0.01));
  CHECK(plain[1] == Approx(3.0 / 6).margin(0.015));
  CHECK(plain[2] == 0);
  CHECK(plain == draw({}, 20000));
  CHECK(draw({.temperature = 0}, 10)[1] == Approx(1));
  CHECK(draw({.top_k = 1}, 10)[1] == Approx(1));
  CHECK(draw({.top_k = 2}, 20000)[1] == Approx(0.6).margin(0.015));
  CHECK(draw({.temperature = 0.5}, 20000)[1] == Approx(9.0 / 14).margin(0.015));
  CHECK(draw({.top_k = 100}, 100)[1] > 0);

  CHECK_THROWS_AS((small_gpt::sampling_config{.temperature = -1}.validate()), matopt::bad_value);
  CHECK_THROWS_AS((small_gpt::sampling_config{.top_k = -1}.validate()), matopt::bad_value);
  small_gpt::random_stream random(1);
  const std::vector<float> broken{0.0F, std::nanf("")};
  CHECK_THROWS_AS(small_gpt::sample(std::span<const float>(broken), {}, random), matopt::error);
}

TEST_CASE("small_gpt: generated text goes on beyond the context", "[small_gpt]") {
  matopt::thread_pool pool(1);
  small_gpt::gpt<float> model({.layers = 1, .heads = 2, .width = 8, .context = 4, .vocabulary = 7}, pool);
  int shown = 0;
  const auto a = small_gpt::generate(model, pool, {1, 2, 3}, 20, {}, 5, [&](std::int32_t) { ++shown; });
  CHECK(a.size() == 20);
  CHECK(shown == 20);
  CHECK(a == small_gpt::generate(model, pool, {1, 2, 3}, 20, {}, 5));
  CHECK(small_gpt::generate(model, pool, {}, 3, {}, 5).size() == 3);
}

TEST_CASE("small_gpt: byte pairs cut text as GPT-2 does, and give any bytes back", "[small_gpt]") {
  const auto words = [](std::string_view text) {
    std::vector<std::string> found;
    byte_pairs::for_words(text, [&](std::string_view word) { found.emplace_back(word); });
    return found;
  };
  using list = std::vector<std::string>;
  CHECK(words("it's 12 o'clock") == list{"it", "'s", " 12", " o", "'", "clock"});
  CHECK(words("a  b\n\nc   ") == list{"a", " ", " b", "\n", "\n", "c", "   "});
  CHECK(words("x--y 'tis") == list{"x", "--", "y", " '", "tis"});
  CHECK(words("\xff\xfe a\xc3") == list{"\xff\xfe", " a", "\xc3"});
  CHECK(words("").empty());

  // Of ab and bc, which occur equally often, the pair with the smaller numbers is first.
  const auto learned = byte_pairs::learned("abc abc abc", 259);
  REQUIRE(learned.merges().size() == 3);
  CHECK(learned.symbols()[256] == "ab");
  CHECK(learned.symbols()[257] == "abc");
  CHECK(learned.symbols()[258] == " abc");
  CHECK(learned.encode("abc abcab") == std::vector<std::int32_t>{257, 258, 256});

  const vocabulary v = vocabulary::pairs(byte_pairs::learned("the king and the men of the king", 270));
  std::string any;
  for (int i = 0; i < 1000; ++i) any += static_cast<char>(i * i * 7 % 256);
  CHECK(v.decode(v.encode(any)) == any);
  CHECK(byte_pairs(v.merges()).encode(any) == v.encode(any));
  CHECK_THROWS_AS(byte_pairs::learned("text", 256), matopt::bad_value);
  CHECK_THROWS_AS(byte_pairs({{300, 1}}), matopt::bad_file);
  CHECK_THROWS_AS(byte_pairs({{1, 2}, {1, 2}}), matopt::bad_file);
  std::vector<byte_pairs::pair> doubling{{0, 0}};  // twice as long each time
  for (int i = 256; i < 300; ++i) doubling.emplace_back(i, i);
  CHECK_THROWS_WITH(byte_pairs(doubling), Catch::Contains("merge 7 ") && Catch::Contains("at most 255"));
}

namespace {

// As the definition has it: of all pairs the one that was learned first, everywhere, again and again.
std::vector<std::int32_t> encoded_slowly(const byte_pairs& v, const std::string& word) {
  std::map<byte_pairs::pair, std::size_t> order;
  for (std::size_t i = 0; i < v.merges().size(); ++i) order[v.merges()[i]] = i;
  std::vector<std::string> parts;
  const auto id = [&](const std::string& s) {
    return static_cast<std::int32_t>(std::find(v.symbols().begin(), v.symbols().end(), s) - v.symbols().begin());
  };
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    std::size_t first = order.size();
    for (std::size_t i = 0; i + 1 < parts.size(); ++i)
      if (const auto at = order.find({id(parts[i]), id(parts[i + 1])}); at != order.end())
        first = std::min(first, at->second);
    if (first == order.size()) break;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i)
      if (byte_pairs::pair(id(parts[i]), id(parts[i + 1])) == v.merges()[first]) {
        parts[i] += parts[i + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
  }
  std::vector<std::int32_t> tokens;
  for (const auto& part : parts) tokens.push_back(id(part));
  return tokens;
}

std::string letters(std::size_t count, unsigned kinds, std::uint64_t seed) {
  small_gpt::random_stream random(seed);
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += static_cast<char>('a' + random.below(kinds));
  return text;
}

}  // namespace

TEST_CASE("small_gpt: byte pairs of long words are those of the definition", "[small_gpt]") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::string word = letters(200, 1 + static_cast<unsigned>(seed) % 4, seed);
    const auto v = byte_pairs::learned(word, 300);
    CHECK(v.encode(word) == encoded_slowly(v, word));
  }
}

TEST_CASE("small_gpt: the work for a long word does not go up with the number of pairs", "[small_gpt]") {
  const std::string word = letters(60000, 4, 2);
  const auto seconds = [&](int size) {
    const auto v = byte_pairs::learned(word, size);
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 3; ++i) {
      const std::clock_t start = std::clock();
      CHECK(v.encode(word).size() < word.size());
      least = std::min(least, static_cast<double>(std::clock() - start));
    }
    return least;
  };
  CHECK(seconds(2048) < 8 * seconds(272));  // of 16 pairs and of 1792, a hundred times as many
}

TEST_CASE("small_gpt: a permutation takes every number once, and another order for another seed", "[small_gpt]") {
  for (const std::uint64_t size : {1U, 2U, 3U, 5U, 64U, 1000U, 4097U}) {
    const permutation p(size, 3, 0), q(size, 3, 1);
    std::vector<int> seen(size, 0);
    std::uint64_t fixed = 0, same = 0;
    for (std::uint64_t i = 0; i < size; ++i) ++seen.at(p(i)), fixed += p(i) == i, same += p(i) == q(i);
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
    if (size >= 64) CHECK(fixed < 10);
    if (size >= 64) CHECK(same < 10);
  }
}

TEST_CASE("small_gpt: shards give every window once per epoch, and none across two files", "[small_gpt]") {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("small_gpt-shards-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto shard = [&](const char* name, int first, int count) {
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(first + i);
    token_shard::write((folder / name).string(), tokens);
  };
  shard("x_train_000001.bin", 0, 41), shard("x_train_000002.bin", 1000, 36), shard("x_val_000000.bin", 2000, 30);
  shard("x_train_000003.bin", 3000, 8);  // too short for a window
  const auto open = [&] {
    token_shards shards(folder.string());
    const vocabulary v = vocabulary::of(shards, 50257);
    CHECK(v.size() == 50257);
    return dataset(std::move(shards), v, 8);
  };
  const dataset data = open();
  CHECK(data.validation_windows() == 3);
  CHECK(std::isnan(data.validation_bits_per_byte(1)));
  std::vector<std::int32_t> tokens(24), targets(24);
  std::multiset<int> seen;
  for (std::uint64_t step = 0; step < 3; ++step) {  // nine windows: 5 of the first shard, 4 of the second
    data.batch(7, step, tokens, targets);
    for (std::size_t i = 0; i < 24; ++i) REQUIRE(targets[i] == tokens[i] + 1);
    for (std::size_t w = 0; w < 3; ++w) seen.insert(tokens[8 * w]);
  }
  CHECK(seen == std::multiset<int>{0, 8, 16, 24, 32, 1000, 1008, 1016, 1024});
  // The next epoch has another order, and a fresh object gives the same batch.
  std::vector<std::int32_t> again(24), unused(24), first(24);
  data.batch(7, 0, first, unused), data.batch(7, 3, tokens, targets), open().batch(7, 3, again, unused);
  CHECK(again == tokens);
  CHECK(first != tokens);
  data.validation_batch(1, std::span(tokens).first(8), std::span(targets).first(8));
  CHECK(tokens[0] == 2008);

  const auto refused = [&](const char* name, const std::string& bytes, const char* expected) {
    write_file((folder / name).string(), bytes);
    CHECK_THROWS_WITH(token_shards(folder.string()), Catch::Contains(expected));
    std::filesystem::remove(folder / name);
  };
  const std::string whole = read_file((folder / "x_val_000000.bin").string());
  refused("bad_train.bin", whole.substr(0, 100), "shorter than its header");
  refused("bad_train.bin", whole.substr(0, whole.size() - 1), "cut off");
  refused("bad_train.bin", std::string(2000, 'x'), "first number");
  std::string version = whole;
  version[4] = 2;
  refused("bad_train.bin", version, "version is 2");
  refused("tokenizer.bin", whole, "no vocabulary");
  token_shards::write_symbols((folder / "tokenizer.bin").string(), {"a", "bc", ""});
  CHECK(token_shards(folder.string()).symbols == std::vector<std::string>{"a", "bc", ""});
  token_shards few(folder.string());
  const vocabulary three = vocabulary::of(few, 0);
  CHECK_THROWS_WITH(dataset(std::move(few), three, 8), Catch::Contains("the vocabulary has 3"));
  std::filesystem::remove(folder / "x_val_000000.bin");
  CHECK_THROWS_WITH(token_shards(folder.string()), Catch::Contains("holds no tokens"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("range coder: what comes out is what went in, near its entropy", "[small_gpt]") {
  const auto through = [](const std::vector<std::byte>& bytes, unsigned symbol_bits) {
    const auto coded = small_gpt::range_encoded(bytes, symbol_bits);
    CHECK(small_gpt::range_decoded(coded.data(), coded.size(), symbol_bits, bytes.size()) == bytes);
    // Every length but its own is noticed.
    if (!bytes.empty())
      CHECK_THROWS_WITH(small_gpt::range_decoded(coded.data(), coded.size() - 1, symbol_bits, bytes.size()),
                        Catch::Contains("cut off"));
    auto longer = coded;
    longer.resize(coded.size() + 3);
    CHECK_THROWS_WITH(small_gpt::range_decoded(longer.data(), longer.size(), symbol_bits, bytes.size()),
                      Catch::Contains("3 bytes too many"));
    CHECK_THROWS_WITH(small_gpt::range_decoded(coded.data(), 3, symbol_bits, bytes.size()), Catch::Contains("cut off"));
    return coded.size();
  };
  std::uint64_t state = 1;
  const auto random = [&] { return static_cast<unsigned>((state = state * 6364136223846793005U + 1) >> 33U); };
  for (const unsigned symbol_bits : {8U, 4U}) {
    CAPTURE(symbol_bits);
    CHECK(through({}, symbol_bits) == 4);
    CHECK(through({std::byte{255}}, symbol_bits) <= 5);
    std::vector<std::byte> bytes(40000, std::byte{0xFF});
    CHECK(through(bytes, symbol_bits) < 64);  // one symbol, and the highest: carries
    for (auto& b : bytes) b = static_cast<std::byte>(random());
    CHECK(through(bytes, symbol_bits) < 40000 + 400);                            // nothing to gain, and little lost
    for (std::size_t i = 20000; i < bytes.size(); ++i) bytes[i] = std::byte{0};  // other symbols from the middle on
    through(bytes, symbol_bits);
    // Halves of bytes of which one has the probability 1/2, one 1/4, ...: the entropy is nearly 2 bits each.
    const auto half = [&] {
      unsigned s = 0;
      while (s < 15 && random() % 2 == 0) ++s;
      return s;
    };
    std::vector<double> counts(16);
    for (auto& b : bytes) {
      const unsigned low = half(), high = half();
      ++counts[low], ++counts[high];
      b = static_cast<std::byte>(low | high << 4U);
    }
    double entropy = 0;
    for (const double n : counts)
      if (n > 0) entropy -= n * std::log2(n / (2.0 * static_cast<double>(bytes.size())));
    const auto bits = 8.0 * static_cast<double>(through(bytes, symbol_bits));
    CHECK(bits > .98 * entropy);
    CHECK(bits < (symbol_bits == 4 ? 1.002 : 1.02) * entropy + 16 * 8);
  }
}
