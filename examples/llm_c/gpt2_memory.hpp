// The memory of a GPT-2 as llm.c lays it out: sixteen tensors, one behind the other in one buffer, each with all
// layers; and a second buffer of the same layout for gradients, which is not there before the first backward pass.
#pragma once
#include <array>
#include <matopt/param_groups.hpp>
#include <string>

namespace llm_c {

using matopt::index_t;

struct gpt2_shape {
  index_t positions, vocabulary, layers, channels;  // the vocabulary with its padding
};

struct tensor {
  const char* name;
  matopt::role kind;
  index_t layers, rows, cols;  // rows = outputs, columns = inputs; layers that step as separate matrices
  index_t blocks;              // matrices in one: query, key and value
  index_t offset;              // in the buffer, in elements

  index_t size() const { return layers * rows * cols; }
};

// In the order of the buffer. Vectors of all layers are one matrix of layers x length: AdamW treats every entry alike.
inline std::array<tensor, 16> tensors(const gpt2_shape& s) {
  using matopt::role;
  const index_t c = s.channels, n = s.layers;
  std::array<tensor, 16> all{{{"wte", role::embedding, 1, s.vocabulary, c, 1, 0},
                              {"wpe", role::embedding, 1, s.positions, c, 1, 0},
                              {"ln1w", role::vector, 1, n, c, 1, 0},
                              {"ln1b", role::vector, 1, n, c, 1, 0},
                              {"qkvw", role::hidden, n, 3 * c, c, 3, 0},
                              {"qkvb", role::vector, 1, n, 3 * c, 1, 0},
                              {"attprojw", role::hidden, n, c, c, 1, 0},
                              {"attprojb", role::vector, 1, n, c, 1, 0},
                              {"ln2w", role::vector, 1, n, c, 1, 0},
                              {"ln2b", role::vector, 1, n, c, 1, 0},
                              {"fcw", role::hidden, n, 4 * c, c, 1, 0},
                              {"fcb", role::vector, 1, n, 4 * c, 1, 0},
                              {"fcprojw", role::hidden, n, c, 4 * c, 1, 0},
                              {"fcprojb", role::vector, 1, n, c, 1, 0},
                              {"lnfw", role::vector, 1, 1, c, 1, 0},
                              {"lnfb", role::vector, 1, 1, c, 1, 0}}};
  index_t at = 0;
  for (tensor& t : all) t.offset = at, at += t.size();
  return all;
}
inline index_t parameter_count(const gpt2_shape& s) { return tensors(s).back().offset + tensors(s).back().size(); }

}  // namespace llm_c
