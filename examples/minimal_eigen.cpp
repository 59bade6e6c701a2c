// Trains one matrix with Muon: W X = Y by least squares. W has 16 outputs (rows) and 8 inputs (columns).
#include <cstdio>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(8, 256), y = Eigen::MatrixXf::Random(16, 8) * x;
  Eigen::MatrixXf w = Eigen::MatrixXf::Zero(16, 8), g(16, 8);

  matopt::eigen_backend cpu;
  matopt::optimizer<matopt::muon, matopt::eigen_backend> opt(cpu);
  opt.add("w", matopt::view_of(w), matopt::view_of(g));
  opt.finalize();
  for (int t = 0; t < 200; ++t) {
    g = (w * x - y) * x.transpose() / 256;
    opt.step(0.1 * (1 - t / 200.0));
  }

  const float error = (w * x - y).norm() / y.norm();
  std::printf("relative error after 200 steps: %.4f\n", static_cast<double>(error));
  return error < 0.01F ? 0 : 1;
}
