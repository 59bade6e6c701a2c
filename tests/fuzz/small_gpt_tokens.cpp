// A folder of tokens: the shards, the vocabulary beside them, and the merges, which checkpoints hold as well.
#include <small_gpt/vocabulary.hpp>

#include "target.hpp"

FUZZ(small_gpt_tokens) {
  using namespace small_gpt;
  const std::string path = fuzz::file_with(data);
  std::vector<std::int32_t> tokens;
  fuzz::refuse_or([&] {
    const token_shard shard(path);
    shard.check(0, shard.size(), 65536);
    for (std::size_t i = 0; i < shard.size(); ++i) tokens.push_back(shard[i]);
    fuzz::refuse_or([&] { shard.check(0, shard.size(), 256); });
    const std::string other = path + ".again";
    token_shard::write(other, tokens);
    const token_shard again(other);
    fuzz::require(again.size() == shard.size(), "more or fewer tokens came back");
    for (std::size_t i = 0; i < again.size(); ++i) fuzz::require(again[i] == shard[i], "another token came back");
    std::remove(other.c_str());
  });
  fuzz::refuse_or([&] {
    const auto symbols = token_shards::read_symbols(path);
    token_shards::write_symbols(path, symbols);
    fuzz::require(token_shards::read_symbols(path) == symbols, "another vocabulary came back");
    fuzz::refuse_or([&] { vocabulary(symbols, vocabulary_kind::shards, false).decode(tokens); });
  });
  fuzz::refuse_or([&] {
    const byte_pairs pairs = pairs_from(std::string(data), "the input");
    fuzz::require(pairs_from(text_of(pairs.merges()), "text_of").symbols() == pairs.symbols(), "other pairs came back");
    fuzz::require(vocabulary::pairs(pairs).decode(pairs.encode(data)) == data, "another text came back");
  });
}
