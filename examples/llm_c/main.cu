// llm.c's memory on a GPU, on a stream as llm.c has one.
#include <matopt/cuda.cuh>

#include "run.hpp"

int main() {
  cudaStream_t main_stream = nullptr;
  cudaStreamCreate(&main_stream);
  int status = 1;
  {
    matopt::cuda_backend gpu(main_stream);
    status = llm_c::run(gpu);
  }
  cudaStreamDestroy(main_stream);
  return status;
}
