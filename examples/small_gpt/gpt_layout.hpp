// Where each tensor of the model lies in its one block of weights, and what it starts with.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gpt_config.hpp"
#include "random.hpp"

namespace small_gpt {

struct gpt_layout {
  struct tensor {
    std::string name;
    index_t offset, rows, cols;
    tensor_role kind;
    std::vector<index_t> row_blocks;
  };
  static constexpr std::size_t none = static_cast<std::size_t>(-1);
  struct layer_tensors {  // positions in `tensors`; gains are `none` in the modern model
    std::size_t attention_gain = none, qkv = 0, attention_out = 0, mlp_gain = none, mlp_in = 0, mlp_out = 0;
  };

  std::vector<tensor> tensors;
  std::vector<layer_tensors> layers;
  std::size_t embedding = 0, positions = none, final_gain = none, head = 0;

  explicit gpt_layout(const gpt_config& config) {
    config.validate();
    const index_t w = config.width, v = config.vocabulary;
    const bool modern = config.arch == architecture::modern;
    embedding = add("embedding", v, w, tensor_role::embedding);
    if (!modern) positions = add("positions", config.context, w, tensor_role::embedding);
    for (int i = 0; i < config.layers; ++i) {
      const std::string prefix = "layer" + std::to_string(i) + ".";
      layer_tensors l;
      if (!modern) l.attention_gain = add(prefix + "attention_gain", 1, w, tensor_role::vector);
      l.qkv = add(prefix + "qkv", 3 * w, w, tensor_role::hidden, {w, w, w});
      l.attention_out = add(prefix + "attention_out", w, w, tensor_role::hidden);
      if (!modern) l.mlp_gain = add(prefix + "mlp_gain", 1, w, tensor_role::vector);
      l.mlp_in = add(prefix + "mlp_in", 4 * w, w, tensor_role::hidden);
      l.mlp_out = add(prefix + "mlp_out", w, 4 * w, tensor_role::hidden);
      layers.push_back(l);
    }
    if (!modern) final_gain = add("final_gain", 1, w, tensor_role::vector);
    head = modern ? add("head", v, w, tensor_role::head) : embedding;
  }

  index_t size() const { return end_of(tensors.back()); }

  // Forward and backward arithmetic of one token: 6 per weight of a product plus 12 L C T for attention.
  double flops_per_token(const gpt_config& config) const {
    double products = static_cast<double>(config.vocabulary) * config.width;
    for (const tensor& t : tensors)
      if (t.kind == tensor_role::hidden) products += static_cast<double>(t.rows * t.cols);
    return 6 * products + 12.0 * config.layers * config.width * config.context;
  }

  // Fills weights that are zero.
  // nanogpt: N(0, 0.02), output projections N(0, 0.02 / sqrt(2 layers)), gains 1 (nanoGPT, model.py).
  // modern: embedding N(0, 1) (nn.Embedding's default; the norm that follows removes the scale), hidden layers uniform
  // with standard deviation 0.5 / sqrt(fan_in) (modded-nanogpt's CastedLinear), output projections and head zero.
  template <class T>
  void initialise(std::span<T> weights, architecture arch, std::uint64_t seed) const {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const tensor& t = tensors[i];
      random_stream random(seed, i);
      const auto fill = [&](auto draw) {
        for (T& value : weights.subspan(static_cast<std::size_t>(t.offset), static_cast<std::size_t>(t.rows * t.cols)))
          value = static_cast<T>(draw());
      };
      const bool projection = std::any_of(
          layers.begin(), layers.end(), [&](const layer_tensors& l) { return i == l.attention_out || i == l.mlp_out; });
      if (t.kind == tensor_role::vector) {
        fill([] { return 1.0; });
      } else if (arch == architecture::nanogpt) {
        const double deviation = projection ? 0.02 / std::sqrt(2.0 * static_cast<double>(layers.size())) : 0.02;
        fill([&] { return deviation * random.normal(); });
      } else if (i == embedding) {
        fill([&] { return random.normal(); });
      } else if (t.kind == tensor_role::hidden && !projection) {
        const double bound = std::sqrt(3.0) * 0.5 / std::sqrt(static_cast<double>(t.cols));
        fill([&] { return bound * (2.0 * random.uniform() - 1.0); });
      }
    }
  }

 private:
  static index_t end_of(const tensor& t) { return t.offset + t.rows * t.cols; }
  std::size_t add(std::string name, index_t rows, index_t cols, tensor_role kind,
                  std::vector<index_t> row_blocks = {}) {
    const index_t offset = tensors.empty() ? 0 : end_of(tensors.back());
    tensors.push_back({std::move(name), offset, rows, cols, kind, std::move(row_blocks)});
    return tensors.size() - 1;
  }
};

}  // namespace small_gpt
