// A program compiled for sm_90 without the a, or for CMake's default architecture (CMakeLists.txt): the library's own
// product kernel is left out, the backend says so and why, and products are right all the same.
#include <matopt/cuda.cuh>

#include <cmath>
#include <vector>

#include "../support/expect.hpp"

using namespace matopt;
using namespace matopt::test;

int main() {
  cuda_backend gpu;
  const std::string text = gpu.describe();
  std::puts(text.c_str());
  expect_words(text, "cuBLASLt only, because");
  const cuda::device d = cuda::device::usable();
  expect_words(text, d.major == 9 && d.minor == 0 ? "compiled without sm_90a" : "needs compute capability 9.0");

  // X X^T of matrices with a single nonzero row, as many as the own kernel would be used for.
  constexpr index_t n = 768, batch = 16;
  std::vector<float16> x(static_cast<std::size_t>(n * n * batch));
  for (index_t b = 0; b < batch; ++b)
    for (index_t j = 0; j < n; ++j) x[static_cast<std::size_t>((b * n + b) * n + j)] = float16(1.F / 32);
  const cuda_backend::buffer in = gpu.allocate(x.size() * sizeof(float16)),
                             out = gpu.allocate(x.size() * sizeof(float16));
  gpu.upload(in.data(), x.data(), x.size() * sizeof(float16));
  const view<float16> a = row_major(reinterpret_cast<float16*>(in.data()), n, n, batch),
                      y = row_major(reinterpret_cast<float16*>(out.data()), n, n, batch);
  gpu.gemm_symmetric<float16>(nullptr, 1.F, a, a.t(), 0.F, y, y);
  gpu.download(x.data(), out.data(), x.size() * sizeof(float16));
  index_t wrong = 0;
  for (index_t b = 0; b < batch; ++b)
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) {
        const float expected = i == b && j == b ? static_cast<float>(n) / 1024 : 0.F;
        wrong += static_cast<float>(x[static_cast<std::size_t>((b * n + i) * n + j)]) != expected;
      }
  expect(wrong == 0, "products without the own kernel are right");
  return failures;
}
