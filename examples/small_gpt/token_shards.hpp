// Tokens on disk, in the files of llm.c, read through memory maps: any amount of text, no time to load it.
//
//   256 numbers of 32 bits: 20240520, version 1, the number of tokens; then the tokens, 16 bits each, little-endian
//
// A folder of shards has files *train*.bin and *val*.bin. With a vocabulary in llm.c's format (tokenizer.bin, or
// gpt2_tokenizer.bin: 256 numbers, the first 20240328, version, number of tokens; then a byte with the length of each
// token, and its bytes) its tokens are text again; merges.txt (two numbers per line) lets one encode a prompt.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"

namespace small_gpt {

// One file of tokens.
class token_shard {
 public:
  static constexpr std::int32_t magic = 20240520, version = 1;
  static constexpr std::size_t header_bytes = 256 * sizeof(std::int32_t);

  explicit token_shard(const std::string& path) : path_(path) {
    const auto fail = [&](const std::string& why) {
      return matopt::bad_file("cannot read the tokens \"" + path + "\": " + why);
    };
    if (const std::string kind = other_than_file(path); !kind.empty()) throw fail("it is " + kind);
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) throw fail(std::strerror(errno));
    struct stat s {};
    const bool known = ::fstat(file, &s) == 0 && S_ISREG(s.st_mode);
    bytes_ = known ? static_cast<std::size_t>(s.st_size) : 0;
    if (bytes_ >= header_bytes) map_ = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file, 0);
    ::close(file);
    if (bytes_ < header_bytes) throw fail("it is shorter than its header of 1024 bytes");
    if (map_ == MAP_FAILED) throw fail(std::strerror(errno));
    std::int32_t header[3];
    std::memcpy(header, map_, sizeof header);
    const auto count = static_cast<std::uint64_t>(static_cast<std::uint32_t>(header[2]));
    std::string wrong;
    if (header[0] != magic)
      wrong = "its first number is " + std::to_string(header[0]) + ", not " + std::to_string(magic);
    else if (header[1] != version)
      wrong = "its version is " + std::to_string(header[1]) + "; this program reads 1, tokens of 16 bits";
    else if (bytes_ != header_bytes + 2 * count)
      wrong = std::to_string(count) + " tokens in " + std::to_string(bytes_) +
              " bytes; it is cut off, or no file of tokens";
    if (!wrong.empty()) {
      ::munmap(map_, bytes_);
      throw fail(wrong);
    }
    size_ = static_cast<std::size_t>(count);
  }
  token_shard(token_shard&& other) noexcept
      : path_(std::move(other.path_)),
        map_(std::exchange(other.map_, MAP_FAILED)),
        bytes_(other.bytes_),
        size_(other.size_) {}
  token_shard& operator=(token_shard&&) = delete;
  ~token_shard() {
    if (map_ != MAP_FAILED) ::munmap(map_, bytes_);
  }

  std::size_t size() const { return size_; }
  std::int32_t operator[](std::size_t i) const {
    std::uint16_t value;
    std::memcpy(&value, static_cast<const char*>(map_) + header_bytes + 2 * i, sizeof value);
    return value;
  }

  // Throws if one of the tokens from `first` on, `count` of them or fewer, is none of a vocabulary of that size.
  void check(std::size_t first, std::size_t count, int vocabulary) const {
    for (std::size_t i = first; i < std::min(size_, first + count); ++i)
      if ((*this)[i] >= vocabulary)
        throw matopt::bad_file("token " + std::to_string(i) + " of \"" + path_ + "\" is " + std::to_string((*this)[i]) +
                               "; the vocabulary has " + std::to_string(vocabulary) +
                               " tokens (--vocabulary-size, where the folder has no vocabulary)");
  }

  static void write(const std::string& path, std::span<const std::int32_t> tokens) {
    if (tokens.size() > 0x7fffffffU)
      throw matopt::bad_value("tokens of a shard", std::to_string(tokens.size()), "at most 2147483647");
    std::string out(header_bytes + 2 * tokens.size(), '\0');
    const std::int32_t header[3] = {magic, version, static_cast<std::int32_t>(tokens.size())};
    std::memcpy(out.data(), header, sizeof header);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto value = static_cast<std::uint16_t>(tokens[i]);
      std::memcpy(out.data() + header_bytes + 2 * i, &value, sizeof value);
    }
    write_file(path, out);
  }

 private:
  std::string path_;
  void* map_ = MAP_FAILED;
  std::size_t bytes_ = 0, size_ = 0;
};

// The shards of a folder.
struct token_shards {
  std::vector<token_shard> train, validation;
  std::vector<std::string> symbols;  // what the tokens stand for; empty if no file says it
  std::string digest;                // tells one set of shards from another: names, sizes, and the beginnings

  static bool is_folder(const std::string& path) {
    std::error_code none;
    return std::filesystem::is_directory(path, none);
  }

  static bool learns(const std::filesystem::path& file) {
    return file.filename().string().find("train") != std::string::npos;
  }
  // Those of a folder, sorted by name.
  static std::vector<std::filesystem::path> files_in(const std::string& folder) {
    std::vector<std::filesystem::path> files;
    std::error_code failure;
    for (const auto& entry : std::filesystem::directory_iterator(folder, failure))
      if (const auto& path = entry.path();
          path.extension() == ".bin" && (learns(path) || path.filename().string().find("val") != std::string::npos))
        files.push_back(path);
    std::sort(files.begin(), files.end());
    return files;
  }

  explicit token_shards(const std::string& folder) {
    std::string seen;
    for (const auto& file : files_in(folder)) {
      const std::string name = file.filename().string();
      auto& shards = learns(file) ? train : validation;
      shards.emplace_back(file.string());
      const token_shard& shard = shards.back();
      seen += name + ' ' + std::to_string(shard.size()) + ' ';
      for (std::size_t i = 0; i < std::min<std::size_t>(shard.size(), 100000); ++i) {
        seen += static_cast<char>(shard[i] & 0xff);
        seen += static_cast<char>(shard[i] >> 8);
      }
    }
    if (train.empty() || validation.empty())
      throw matopt::bad_file("cannot read \"" + folder +
                             "\": it is a folder, and holds no tokens: files *train*.bin and *val*.bin are needed, in "
                             "the format of llm.c; " +
                             "`small_gpt tokenize` writes such from a text");
    digest = digest_of(seen);
    std::error_code failure;
    for (const char* name : {"/tokenizer.bin", "/gpt2_tokenizer.bin"})
      if (std::filesystem::exists(folder + name, failure) && symbols.empty()) symbols = read_symbols(folder + name);
  }

  static std::vector<std::string> read_symbols(const std::string& path) {
    const std::string all = read_file(path);
    std::int32_t header[3] = {};
    if (all.size() >= token_shard::header_bytes) std::memcpy(header, all.data(), sizeof header);
    const auto fail = [&] { return matopt::bad_file("\"" + path + "\" is no vocabulary in the format of llm.c"); };
    if (header[0] != 20240328 || header[2] < 1 || header[2] > 65536) throw fail();
    if (header[1] != 1 && header[1] != 2)  // 2: the header also has the token that ends a text
      throw matopt::bad_file("the version of \"" + path + "\" is " + std::to_string(header[1]) +
                             "; this program reads 1 and 2");
    std::vector<std::string> symbols;
    std::size_t at = token_shard::header_bytes;
    for (std::int32_t i = 0; i < header[2]; ++i) {
      if (at >= all.size()) throw fail();
      const auto length = static_cast<unsigned char>(all[at]);
      if (at + 1 + length > all.size()) throw fail();
      symbols.push_back(all.substr(at + 1, length));
      at += 1U + length;
    }
    return symbols;
  }
  static void write_symbols(const std::string& path, const std::vector<std::string>& symbols) {
    std::string out(token_shard::header_bytes, '\0');
    const std::int32_t header[3] = {20240328, 1, static_cast<std::int32_t>(symbols.size())};
    std::memcpy(out.data(), header, sizeof header);
    for (const auto& s : symbols) out += static_cast<char>(static_cast<unsigned char>(s.size())) + s;
    write_file(path, out);
  }
};

}  // namespace small_gpt
