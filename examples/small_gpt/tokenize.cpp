// The command `tokenize`.
#include <cstdio>
#include <filesystem>

#include "commands.hpp"
#include "data.hpp"

namespace small_gpt {

exit_status tokenize(const options& o) {
  if (o.out.empty()) throw matopt::bad_value("--out", "\"\"", "the name of a folder");
  std::vector<std::filesystem::path> present;
  for (const auto& file : token_shards::files_in(o.out)) {
    const bool own = file.filename().string().starts_with("text_");
    if (!own || !o.force)
      throw matopt::bad_file("\"" + file.string() + "\" is there already, and would be read as a part of this text: " +
                             (own ? "to replace the tokens, add --force; or name another folder with --out"
                                  : "name another folder with --out"));
    present.push_back(file);
  }
  const auto not_empty = [](const std::string& path, std::string content) {
    if (content.empty()) throw matopt::error("\"" + path + "\" is empty; a text is needed");
    return content;
  };
  const std::string text = not_empty(o.data, read_file(o.data));
  if (!(o.run.train_fraction > 0 && o.run.train_fraction < 1))
    throw matopt::bad_value("--train-fraction", matopt::detail::text(o.run.train_fraction), "above 0 and below 1");
  const std::string held_out = o.validation.empty() ? std::string() : not_empty(o.validation, read_file(o.validation));
  const auto learned = byte_pairs::learned(text, o.run.vocabulary_size);
  auto tokens = learned.encode(text);
  auto cut = static_cast<std::size_t>(static_cast<double>(tokens.size()) * o.run.train_fraction);
  if (!o.validation.empty()) {
    cut = tokens.size();
    const auto more = learned.encode(held_out);
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  if (cut == 0 || cut == tokens.size())
    throw matopt::bad_value("--train-fraction", matopt::detail::text(o.run.train_fraction),
                            "one that leaves tokens to train on and to validate on, of the " +
                                std::to_string(tokens.size()) + " that the text has");
  std::error_code failure;
  std::filesystem::create_directories(o.out, failure);
  if (failure) throw matopt::bad_file("cannot make the folder \"" + o.out + "\": " + failure.message());
  for (const auto& file : present) std::filesystem::remove(file, failure);
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
