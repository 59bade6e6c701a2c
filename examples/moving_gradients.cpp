// Gradients that move: a framework often hands out each gradient in a new buffer. rebind() tells the optimizer where it
// lies now. The check: the same steps as with one buffer for all.
#include <cstdio>
#include <cstdlib>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <vector>

using matopt::row_major;

int main() {
  constexpr matopt::index_t rows = 16, cols = 24;
  matopt::eigen_backend cpu(2);  // the calling thread and one more
  matopt::eigen_backend alone(1);
  using optimizer = matopt::optimizer<matopt::muon, matopt::eigen_backend>;

  std::vector<float> w(rows * cols, 0.5F), same_w = w, same_g(rows * cols);
  std::vector<std::vector<float>> gradients(3, std::vector<float>(rows * cols));
  optimizer opt(cpu), same(alone);
  opt.add("w", row_major(w.data(), rows, cols), row_major<const float>(gradients[0].data(), rows, cols));
  same.add("w", row_major(same_w.data(), rows, cols), row_major<const float>(same_g.data(), rows, cols));
  opt.finalize(), same.finalize();

  for (std::size_t t = 0; t < 6; ++t) {
    std::vector<float>& g = gradients[t % gradients.size()];  // wherever the framework put it this time
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>((i * i + 7 * t + 3 * i * t) % 13) - 6;
    same_g = g;
    opt.rebind("w", row_major<const float>(g.data(), rows, cols));
    opt.step(0.02);
    same.step(0.02);
  }

  std::printf("%d threads and %d: %s weights\n", cpu.threads(), alone.threads(),
              w == same_w ? "the same" : "different");
  return w == same_w && w[0] != 0.5F ? EXIT_SUCCESS : EXIT_FAILURE;
}
