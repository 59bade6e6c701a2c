// One rule on a GPU, as a project would take it: compiled and linked, not run.
#include <matopt/adamw.hpp>
#include <matopt/cuda.cuh>

int main(int argc, char**) {
  if (argc == 1) return 0;
  float *w = nullptr, *g = nullptr;
  cudaMalloc(&w, 12 * sizeof(float));
  cudaMalloc(&g, 12 * sizeof(float));
  matopt::cuda_backend gpu;
  matopt::optimizer<matopt::adamw, matopt::cuda_backend> opt(gpu);
  opt.add("w", matopt::row_major(w, 4, 3), matopt::row_major<const float>(g, 4, 3));
  opt.finalize();
  opt.step(0.1);
  return 0;
}
