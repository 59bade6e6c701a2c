// The hidden matrices of some models, by shape: what a matrix optimizer steps. Embeddings, heads and vectors are left
// out, because other rules step those.
#pragma once
#include <matopt/core/index.hpp>
#include <string>
#include <vector>

namespace bench {

using matopt::index_t;

struct group {
  index_t count, rows, cols;
};
struct model {
  std::string name;
  std::vector<group> groups;

  index_t elements() const {
    index_t total = 0;
    for (const group& g : groups) total += g.count * g.rows * g.cols;
    return total;
  }
};

// In the order of their arithmetic: what a small one took tells whether a larger one is worth starting.
inline const std::vector<model>& models() {
  static const std::vector<model> all{
      {"gpt2_block_256", {{4, 256, 256}, {1, 1024, 256}, {1, 256, 1024}}},  // one GPT-2 block, scaled down
      {"many_tiny", {{512, 64, 64}, {256, 128, 32}}},
      {"gpt2_block", {{4, 768, 768}, {1, 3072, 768}, {1, 768, 3072}}},  // one of the twelve of gpt2_124m
      {"gpt2_124m", {{48, 768, 768}, {12, 3072, 768}, {12, 768, 3072}}},
      {"gpt2_350m", {{96, 1024, 1024}, {24, 4096, 1024}, {24, 1024, 4096}}},
      {"llama_1b", {{64, 2048, 2048}, {32, 7168, 2048}, {16, 2048, 7168}}},  // gate and up, and down: 1 to 3.5
      {"gpt2_1_5b", {{192, 1600, 1600}, {48, 6400, 1600}, {48, 1600, 6400}}},
  };
  return all;
}

}  // namespace bench
