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

// The largest logit of each head is kept as a float that begins as `nothing_yet`, a NaN with all bits set, which every
// number replaces. Numbers from 0 on are ordered as integers, and numbers below 0 the other way round as unsigned ones,
// whichever of the two is there already; the maximum does not depend on the order in which blocks come.
__device__ inline void raise_to(float* largest, float x) {
  if (x >= 0)
    atomicMax(reinterpret_cast<int*>(largest), __float_as_int(fabsf(x)));  // -0 becomes 0
  else
    atomicMin(reinterpret_cast<unsigned*>(largest), __float_as_uint(x));
}
inline void nothing_yet(cudaStream_t stream, float* largest, index_t heads) {
  matopt::cuda::check(cudaMemsetAsync(largest, 0xff, static_cast<std::size_t>(heads) * sizeof(float), stream),
                      "clear the largest logits");
}
// A warp's part of it: the largest of the `top` of all lanes, which are scaled as exp2 wants them.
__device__ inline void raise_by_warp(float* largest, float top) {
  top = lane_max(top) * 0.693147181F;
  if (threadIdx.x % warp_size == 0 && top > -INFINITY) raise_to(largest, top);
}

}  // namespace small_gpt::gpu
