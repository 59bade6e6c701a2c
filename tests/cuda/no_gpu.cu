// A backend where there is no GPU, or none that the program may see: an error that says what is missing, every time.
#include <matopt/cuda.cuh>

#include <cstdlib>

#include "../support/expect.hpp"

using namespace matopt;
using namespace matopt::test;

int main() {
  setenv("CUDA_VISIBLE_DEVICES", "", 1);  // before CUDA looks at it
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  for (int i = 0; i < 2; ++i) {
    const std::string text = error_of<cuda_error>([] { cuda_backend gpu; });
    expect_words(text, "matopt: CUDA: find a device: ");
    expect_words(text, cuda::why_no_device(driver, runtime));
    expect_words(text, driver == 0 ? "no NVIDIA driver" : "NVIDIA driver");
    if (i == 0) std::puts(text.c_str());
  }
  return failures;
}
