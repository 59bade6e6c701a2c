// QK-clip in the trainer: one hook for each layer, on either device, and what a log says of it.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <matopt/core/view.hpp>
#include <span>
#include <string>
#include <vector>

#include "gpt_layout.hpp"

namespace small_gpt {

// The hooks of the layers, for a model whose weights are at `weights` and whose largest logits of attention, [layers,
// heads], are at `largest`; all in the memory of the backend. Clip: matopt::qk_clip of that backend.
template <class Clip, class Backend>
std::vector<Clip> qk_clips(Backend& backend, const gpt_config& config, double threshold, float* weights,
                           const float* largest) {
  const gpt_layout layout(config);
  const index_t width = config.width, heads = config.heads;
  std::vector<Clip> clips;
  clips.reserve(layout.layers.size());
  for (const gpt_layout::layer_tensors& layer : layout.layers) {
    float* qkv = weights + layout.tensors[layer.qkv].offset;
    Clip& clip = clips.emplace_back(
        backend, matopt::attention_heads{.heads = heads, .head_dim = config.head_width(), .threshold = threshold},
        matopt::row_major(largest, heads, 1));
    clip.add(matopt::row_major(qkv, width, width), matopt::row_major(qkv + width * width, width, width));
    largest += heads;
  }
  return clips;
}

inline bool is_clipped(float logit, double threshold) {
  return std::isfinite(logit) && logit > static_cast<float>(threshold);
}

// What the optimizer calls the weights of queries and keys that a step has scaled.
inline std::vector<std::string> clipped_tensors(std::span<const float> largest, std::size_t heads, double threshold) {
  std::vector<std::string> names;
  for (std::size_t first = 0; first < largest.size(); first += heads) {
    const auto layer = largest.subspan(first, heads);
    if (std::none_of(layer.begin(), layer.end(), [&](float x) { return is_clipped(x, threshold); })) continue;
    const std::string qkv = "layer" + std::to_string(first / heads) + ".qkv";
    names.push_back(qkv + ".0"), names.push_back(qkv + ".1");
  }
  return names;
}

inline index_t heads_above(std::span<const float> largest, double threshold) {
  return std::count_if(largest.begin(), largest.end(), [&](float x) { return is_clipped(x, threshold); });
}

// Not finite if one of them is not.
inline double largest_of(std::span<const float> logits) {
  double most = -std::numeric_limits<double>::infinity();
  for (const float x : logits)
    if (x > most || std::isnan(x)) most = x;
  return most;
}

}  // namespace small_gpt
