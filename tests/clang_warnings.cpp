// A user's program. clang has to compile it at -O1 without a warning: what its optimizer says of our loops stays with
// us.
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <vector>

int main() {
  std::vector<float> w(16 * 8, 1.0F), g(16 * 8, 1.0F);
  matopt::eigen_backend cpu;
  matopt::optimizer<matopt::muon, matopt::eigen_backend> opt(cpu);
  opt.add("w", matopt::row_major(w.data(), 16, 8), matopt::row_major(g.data(), 16, 8));
  opt.finalize();
  opt.step(0.02);
}
