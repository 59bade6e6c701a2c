// The text that small_gpt learns from, and the vocabulary in its checkpoints: any bytes go to tokens and back.
#include <small_gpt/data.hpp>

#include "target.hpp"

FUZZ(small_gpt_text) {
  using small_gpt::vocabulary;
  const vocabulary characters = vocabulary::characters(data);
  fuzz::require(characters.decode(characters.encode(data)) == data, "another text came back");
  fuzz::require(vocabulary::bytes().decode(vocabulary::bytes().encode(data)) == data, "other bytes came back");
  fuzz::require(small_gpt::unhex(small_gpt::hex(data)) == data, "other bytes came back from hexadecimal");
  fuzz::refuse_or([&] { small_gpt::unhex(data); });
  // A checkpoint's vocabulary, on another text.
  const std::string_view half = data.substr(data.size() / 2);
  fuzz::refuse_or([&] { vocabulary::characters(half).encode(data); });
  fuzz::refuse_or([&] { small_gpt::dataset(data, characters, 3, 0.5); });
}
