// What the hidden matrices look like while they train: one entry per matrix, or per block of a fused one.
#pragma once
#include <matopt/eigen.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "device.hpp"
#include "trained_model.hpp"

namespace small_gpt {

// "layer3.mlp_in" is of the kind "mlp_in", the blocks of "layer3.qkv" are of the kinds "q", "k" and "v".
std::string layer_kind(const std::string& name);

// JSON of all matrices of the host's model:
//   name, kind, spectral_norm, stable_rank, row_norms (least, mean, greatest), coherence (of the rows: the spectral
//   norm over the greatest row norm), singular_values (eleven: the deciles of their order, from the largest), rate and
//   rate_shape (metrics/weight_rate.hpp), and of the step: weight_norm, update_to_weight, gradient_norm, cosine. Other tensors have what the step tells.
nlohmann::json measurements(gpt<float>& model, matopt::eigen_backend& cpu, const std::vector<matrix_step>& steps);

}  // namespace small_gpt
