// The embedding: rows of it by token, plus learned positions in the nanogpt model, and their gradients. Gradients are
// sums in a fixed order: the caller hands over the rows of the batch sorted by their token.
#pragma once
#include "elements.cuh"

namespace small_gpt::gpu {

// x[r] = embedding[tokens[r]] + positions[r mod length]
template <int N, class T>
__global__ void embed_kernel(const std::int32_t* tokens, const T* embedding, const T* positions, index_t length,
                             index_t size, int width, T* x) {
  const index_t i = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i >= size) return;
  const index_t row = i / width, column = i % width;
  float e[N], p[N];
  load<N>(embedding + tokens[row] * width + column, e);
  load<N>(positions + (row % length) * width + column, p);
  for (int k = 0; k < N; ++k) e[k] += p[k];
  store<N>(x + i, e);
}

// gradient[t] += the sum of dx[r] over the rows r with token t. The block whose place is the first of its token in
// `order` adds them up.
template <int N, class T>
__global__ void embedding_gradient_kernel(const std::int32_t* tokens, const std::int32_t* order, const T* dx,
                                          index_t rows, int width, float* gradient) {
  const index_t place = blockIdx.x;
  const std::int32_t token = tokens[order[place]];
  if (place > 0 && tokens[order[place - 1]] == token) return;
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  float sum[N] = {}, d[N];
  for (index_t i = place; i < rows && tokens[order[i]] == token; ++i) {
    load<N>(dx + order[i] * static_cast<index_t>(width) + column, d);
    for (int k = 0; k < N; ++k) sum[k] += d[k];
  }
  for (int k = 0; k < N; ++k) gradient[static_cast<index_t>(token) * width + column + k] += sum[k];
}

// gradient[p] (+)= the sum of dx over the rows at position p of each sequence
template <class T>
__global__ void positions_gradient_kernel(const T* dx, index_t sequences, index_t each, bool add, float* gradient) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= each) return;
  float sum = add ? gradient[i] : 0.0F;
  for (index_t s = 0; s < sequences; ++s) sum += static_cast<float>(dx[s * each + i]);
  gradient[i] = sum;
}

template <class T>
void embed(cudaStream_t stream, const std::int32_t* tokens, const T* embedding, const T* positions, index_t rows,
           index_t length, index_t width, T* x) {
  with_width<T>(width, [&](auto n) {
    embed_kernel<n()><<<blocks_for(rows * width, block_size * n()), block_size, 0, stream>>>(
        tokens, embedding, positions, length, rows * width, static_cast<int>(width), x);
  });
  matopt::cuda::check_launch("embedding");
}
template <class T>
void embedding_gradient(cudaStream_t stream, const std::int32_t* tokens, const std::int32_t* order, const T* dx,
                        index_t rows, index_t width, float* gradient) {
  constexpr int threads = 128;
  with_width<T>(width, [&](auto n) {
    embedding_gradient_kernel<n()>
        <<<dim3(static_cast<unsigned>(rows), blocks_for(width, threads * n())), threads, 0, stream>>>(
            tokens, order, dx, rows, static_cast<int>(width), gradient);
  });
  matopt::cuda::check_launch("embedding's gradient");
}
template <class T>
void positions_gradient(cudaStream_t stream, const T* dx, index_t sequences, index_t each, bool add, float* gradient) {
  positions_gradient_kernel<<<blocks_for(each, block_size), block_size, 0, stream>>>(dx, sequences, each, add,
                                                                                     gradient);
  matopt::cuda::check_launch("positions' gradient");
}

}  // namespace small_gpt::gpu
