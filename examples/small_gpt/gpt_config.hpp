// The shape of the model, and its tensors as an optimizer sees them.
#pragma once
#include <string>
#include <vector>

#include "matopt/core/error.hpp"
#include "matopt/core/index.hpp"

namespace small_gpt {

using matopt::index_t;

enum class architecture { nanogpt, modern };

struct gpt_config {
  architecture arch = architecture::modern;
  int layers = 4, heads = 4, width = 128, context = 64;
  int vocabulary = 256;

  int head_width() const { return width / heads; }

  // A lower bound of the bytes that training takes with elements of `element_bytes` bytes: weights, their gradients,
  // and what `shards` parts of a batch keep for the backward pass. Of any shape, also of one that is far too large to
  // count in integers.
  double least_bytes(int shards, double element_bytes) const {
    const double l = layers, h = heads, w = width, c = context, v = vocabulary;
    const double weights = 12 * l * w * w + (arch == architecture::modern ? 2 : 1) * v * w;
    const double activations = c * (l * (14 * w + h * c) + v);
    return element_bytes * ((1 + shards) * weights + shards * activations);
  }

  void validate() const {
    const auto at_least_one = [](const char* name, int value) {
      if (value < 1) throw matopt::bad_value(name, std::to_string(value), "at least 1");
    };
    at_least_one("layers", layers);
    at_least_one("heads", heads);
    at_least_one("width", width);
    at_least_one("context", context);
    at_least_one("vocabulary", vocabulary);
    if (width % heads != 0)
      throw matopt::bad_value("width", std::to_string(width), "a multiple of heads (" + std::to_string(heads) + ")");
    if (arch == architecture::modern && head_width() % 2 != 0)
      throw matopt::bad_value("width / heads", std::to_string(head_width()),
                              "an even number, because rotary positions turn pairs");
  }
};

enum class tensor_role { hidden, embedding, head, vector };

// A tensor of the model, as an optimizer sees it. Rows are fan-out, columns are fan-in, row-major and contiguous.
template <class T>
struct parameter {
  std::string name;
  T* value;
  T* gradient;
  index_t rows, cols;
  tensor_role kind;
  std::vector<index_t> row_blocks;  // heights of matrices that are stacked in one tensor (fused q, k, v); else empty
};

}  // namespace small_gpt
