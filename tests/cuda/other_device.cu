// A program whose kernels are for another kind of GPU (CMakeLists.txt says which): the backend says so when it is made.
#include <matopt/cuda.cuh>

#include "../support/expect.hpp"

using namespace matopt;
using namespace matopt::test;

int main() {
  int device = 0, major = 0, minor = 0;
  cuda::check(cudaGetDevice(&device), "find a device");
  cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "find a device");
  cuda::check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "find a device");
  for (int i = 0; i < 2; ++i) {
    const std::string text = error_of<cuda_error>([] { cuda_backend gpu; });
    expect_words(text, "matopt: CUDA: find a device: ");
    expect_words(text, "compute capability " + std::to_string(major) + "." + std::to_string(minor));
    expect_words(text, "-arch");
    expect(cudaGetLastError() == cudaSuccess, "no error is left for the calling program");
    if (i == 0) std::puts(text.c_str());
  }
  return failures;
}
