// replay FOLDER: the inputs of FOLDER/<target>/ through their targets, whole, cut off, and with some bytes changed:
// always the same changes. What a run of libFuzzer has found goes into the folder, and so is tried again wherever the
// tests run.
#define MATOPT_FUZZ_REPLAY
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "checkpoint.cpp"
#include "npy.cpp"
#include "replay_cases.cpp"
#include "settings.cpp"
#include "small_gpt_coded.cpp"
#include "small_gpt_log.cpp"
#include "small_gpt_settings.cpp"
#include "small_gpt_sweep.cpp"
#include "small_gpt_text.cpp"
#include "small_gpt_tokens.cpp"
#include "suggest_roles.cpp"
#include "tensor_file.cpp"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  int inputs = 0;
  for (const auto& [name, target] : fuzz::targets()) {
    std::vector<std::filesystem::path> files;
    for (const auto& f : std::filesystem::directory_iterator(std::filesystem::path(argv[1]) / name)) files.push_back(f);
    std::sort(files.begin(), files.end());
    if (files.empty()) return std::printf("no inputs for %s\n", name.c_str()), 1;
    unsigned random = 1;
    const auto below = [&](std::size_t n) {
      random = random * 1103515245U + 12345U;
      return static_cast<std::size_t>(random >> 8U) % n;
    };
    for (const auto& path : files) {
      std::ifstream in(path, std::ios::binary);
      const std::string whole{std::istreambuf_iterator<char>(in), {}};
      target(whole), ++inputs;
      for (int i = 0; i < 30 && !whole.empty(); ++i, ++inputs)
        target(std::string_view(whole).substr(0, below(whole.size())));
      for (int i = 0; i < 100 && !whole.empty(); ++i, ++inputs) {
        std::string changed = whole;
        for (std::size_t n = 1 + below(3); n > 0; --n) {
          char& c = changed[below(whole.size())];
          c = i % 3 == 0   ? static_cast<char>(c ^ (1 << below(8)))
              : i % 3 == 1 ? static_cast<char>(below(256))
                           : whole[below(whole.size())];
        }
        target(changed);
      }
    }
  }
  std::printf("%d inputs, %zu targets\n", inputs, fuzz::targets().size());
}
