// Cross entropy in nats, as layers.hpp has it; one block takes one row. The gradient of the logits replaces the logits.
#pragma once
#include "elements.cuh"

namespace small_gpt::gpu {

// The largest of some numbers, and the sum of exp(x - top) over them.
struct soft_sum {
  float top = -INFINITY, sum = 0;

  __device__ void add(const soft_sum& other) {
    const float t = fmaxf(top, other.top);
    if (t == -INFINITY) return;
    sum = sum * __expf(top - t) + other.sum * __expf(other.top - t);
    top = t;
  }
};

// The soft sum of a block's threads, in every thread; always in the same order.
__device__ inline soft_sum block_soft_sum(soft_sum mine) {
  __shared__ soft_sum of_warp[warp_size];
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  for (int apart = warp_size / 2; apart > 0; apart /= 2) {
    soft_sum other;
    other.top = __shfl_xor_sync(all_lanes, mine.top, apart), other.sum = __shfl_xor_sync(all_lanes, mine.sum, apart);
    mine.add(other);
  }
  if (lane == 0) of_warp[warp] = mine;
  __syncthreads();
  soft_sum all = of_warp[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / warp_size; ++w) all.add(of_warp[w]);
  return all;
}

// losses[row] = log(sum_j exp z_j) - z_target; with weight > 0, z <- weight * (softmax(z) - onehot(target)). Rows are
// `stride` apart, a multiple of N that may be larger than the vocabulary; what lies between becomes zero.
template <int N, class T>
__global__ void __launch_bounds__(1024, 2) cross_entropy_kernel(T* logits, index_t stride, const std::int32_t* targets,
                                                                int vocabulary, float weight, float* losses) {
  T* z = logits + blockIdx.x * stride;
  const int target = targets[blockIdx.x];
  float v[N];
  soft_sum mine;
  for (int i = static_cast<int>(threadIdx.x) * N; i < vocabulary; i += static_cast<int>(blockDim.x) * N) {
    load<N>(z + i, v);
    float top = mine.top;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (i + k >= vocabulary) v[k] = -INFINITY;
      top = fmaxf(top, v[k]);
    }
    if (top == -INFINITY) continue;
    float sum = mine.sum * __expf(mine.top - top);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += __expf(v[k] - top);
    mine.top = top, mine.sum = sum;
  }
  const float of_target = static_cast<float>(z[target]);
  const soft_sum all = block_soft_sum(mine);
  if (threadIdx.x == 0) losses[blockIdx.x] = logf(all.sum) + all.top - of_target;
  if (!(weight > 0)) return;
  const float factor = weight / all.sum;
  for (int i = static_cast<int>(threadIdx.x) * N; i < stride; i += static_cast<int>(blockDim.x) * N) {
    load<N>(z + i, v);
#pragma unroll
    for (int k = 0; k < N; ++k)
      v[k] = i + k >= vocabulary ? 0.0F : __expf(v[k] - all.top) * factor - (i + k == target ? weight : 0.0F);
    store<N>(z + i, v);
  }
}

// *loss = the sum of all losses times `factor`, by one block, always in the same order
static __global__ void mean_loss_kernel(const float* losses, index_t count, double factor, double* loss) {
  __shared__ double sums[block_size];
  double sum = 0;
  for (index_t i = threadIdx.x; i < count; i += block_size) sum += static_cast<double>(losses[i]);
  sums[threadIdx.x] = sum;
  for (int apart = block_size / 2; apart > 0; apart /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < apart) sums[threadIdx.x] += sums[threadIdx.x + apart];
  }
  if (threadIdx.x == 0) *loss = sums[0] * factor;
}

template <class T>
void cross_entropy(cudaStream_t stream, T* logits, index_t stride, const std::int32_t* targets, index_t rows,
                   index_t vocabulary, float weight, float* losses) {
  const int threads = vocabulary >= 8192 ? 1024 : vocabulary >= 1024 ? 256 : 64;
  with_width<T>(stride, [&](auto n) {
    cross_entropy_kernel<n()><<<static_cast<unsigned>(rows), threads, 0, stream>>>(
        logits, stride, targets, static_cast<int>(vocabulary), weight, losses);
  });
  matopt::cuda::check_launch("cross entropy");
}
inline void mean_loss(cudaStream_t stream, const float* losses, index_t count, double factor, double* loss) {
  mean_loss_kernel<<<1, block_size, 0, stream>>>(losses, count, factor, loss);
  matopt::cuda::check_launch("mean loss");
}

}  // namespace small_gpt::gpu
