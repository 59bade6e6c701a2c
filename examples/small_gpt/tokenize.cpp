// The command `tokenize`.
#include <cstdio>
#include <filesystem>

#include "commands.hpp"
#include "data.hpp"

namespace small_gpt {

exit_status tokenize(const options& o) {
  const std::string text = read_file(o.data);
  if (!(o.run.train_fraction > 0 && o.run.train_fraction < 1))
    throw matopt::bad_value("--train-fraction", matopt::detail::text(o.run.train_fraction), "above 0 and below 1");
  const std::string held_out = o.validation.empty() ? std::string() : read_file(o.validation);
  const auto learned = byte_pairs::learned(text, o.run.vocabulary_size);
  auto tokens = learned.encode(text);
  auto cut = static_cast<std::size_t>(static_cast<double>(tokens.size()) * o.run.train_fraction);
  if (!o.validation.empty()) {
    cut = tokens.size();
    const auto more = learned.encode(held_out);
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  std::error_code failure;
  std::filesystem::create_directories(o.out, failure);
  if (failure) throw matopt::bad_file("cannot make the folder \"" + o.out + "\": " + failure.message());
  const std::span<const std::int32_t> all(tokens);
  // More than two thousand million tokens are several shards.
  constexpr std::size_t most = 100'000'000;
  for (std::size_t first = 0, number = 1; first < cut; first += most, ++number) {
    char name[48];
    std::snprintf(name, sizeof name, "/text_train_%06zu.bin", number);
    token_shard::write(o.out + name, all.subspan(first, std::min(most, cut - first)));
  }
  token_shard::write(o.out + "/text_val_000000.bin", all.subspan(cut));
  token_shards::write_symbols(o.out + "/tokenizer.bin", learned.symbols());
  std::string merges;
  for (const auto& [a, b] : learned.merges()) merges += std::to_string(a) + ' ' + std::to_string(b) + '\n';
  write_file(o.out + "/merges.txt", merges);
  std::printf("%zu tokens of %zu kinds from %zu bytes, in \"%s\"; to train: small_gpt train --data %s\n", tokens.size(),
              learned.symbols().size(), text.size() + held_out.size(), o.out.c_str(), o.out.c_str());
  return exit_status::done;
}

}  // namespace small_gpt
