// Causal self-attention without the matrix of probabilities, as layers.hpp has it with one:
//   S = Q K' / sqrt(d);  P = softmax of each row over the columns <= row;  Y = P V
//   dV = P' dY;  dP = dY V';  dS = P * (dP - rowsum(P dP)) / sqrt(d);  dQ = dS K;  dK = dS' Q
// Forward keeps of P only the logarithm (to base 2) of each row's sum of exponentials, with which backward makes the
// tiles of P anew; and rowsum(P dP) is rowsum(Y dY), because Y = P V. No result is added up by atomics: dQ and (dK, dV)
// are made by kernels of their own, each of which sums along its loop.
#pragma once
#include <cmath>

#include "elements.cuh"

namespace small_gpt::gpu {

// qkv rows are [q | k | v], each `heads` times `head_width` wide.
struct attention_shape {
  index_t sequences, length;
  int heads, head_width;

  __host__ __device__ index_t width() const { return index_t{heads} * head_width; }
  // exp(s / sqrt(d)) is exp2(s * scale_log2()).
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(head_width)); }
  float scale_log2() const { return 1.44269504F * scale(); }
  __host__ __device__ index_t tiles(int rows) const { return (length + rows - 1) / rows; }
  unsigned blocks(int rows) const { return static_cast<unsigned>(sequences * heads * tiles(rows)); }
};

// Where a block finds its head: one block per tile of `rows` rows of each head of each sequence.
struct head_place {
  index_t head, sequence, in_qkv, in_y, in_rows;  // offsets of the head's first element and first row
  int tile;

  __device__ head_place(const attention_shape& a, int rows) {
    const index_t tiles = (a.length + rows - 1) / rows;
    const index_t number = blockIdx.x / tiles;
    tile = static_cast<int>(blockIdx.x % tiles);
    sequence = number / a.heads, head = number % a.heads;
    in_qkv = sequence * a.length * 3 * a.width() + head * a.head_width;
    in_y = sequence * a.length * a.width() + head * a.head_width;
    in_rows = number * a.length;
  }
};

}  // namespace small_gpt::gpu
