// Muon on device pointers that the training program owns, on its own stream.
//   nvcc -std=c++20 --expt-relaxed-constexpr -Iinclude examples/raw_device_pointers.cu -lcublasLt -lcublas
#include <cstdio>
#include <matopt/cuda.cuh>
#include <matopt/muon.hpp>
#include <vector>

int main() {
  constexpr matopt::index_t fan_out = 96, fan_in = 64;
  const std::vector<float> start(fan_out * fan_in, 1.0F);
  float *w = nullptr, *g = nullptr;
  cudaStream_t stream = nullptr;
  cudaStreamCreate(&stream);
  cudaMalloc(&w, start.size() * sizeof(float)), cudaMalloc(&g, start.size() * sizeof(float));
  cudaMemcpy(w, start.data(), start.size() * sizeof(float), cudaMemcpyHostToDevice);

  matopt::cuda_backend gpu(stream);
  matopt::optimizer<matopt::muon, matopt::cuda_backend> opt(gpu);
  opt.add("w", matopt::row_major(w, fan_out, fan_in), matopt::row_major<const float>(g, fan_out, fan_in));
  opt.finalize();
  for (int step = 0; step < 10; ++step) {  // the loss is ||w||^2 / 2: its gradient is w
    cudaMemcpyAsync(g, w, start.size() * sizeof(float), cudaMemcpyDeviceToDevice, stream);
    opt.step(2.0);
  }
  float end = 0;
  gpu.download(&end, w, sizeof end);
  std::printf("w[0] went from 1 to %.3f\n", static_cast<double>(end));
  const bool right = end > 0.6F && end < 0.9F && opt.poll_status();
  cudaFree(w), cudaFree(g), cudaStreamDestroy(stream);
  return right ? 0 : 1;
}
