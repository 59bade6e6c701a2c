// One step of one rule, as a project would take it.
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

int main() {
  Eigen::MatrixXf w = Eigen::MatrixXf::Zero(4, 3), g = Eigen::MatrixXf::Random(4, 3);
  matopt::eigen_backend cpu(2);
  matopt::optimizer<matopt::muon, matopt::eigen_backend> opt(cpu);
  opt.add("w", matopt::view_of(w), matopt::view_of(g));
  opt.finalize();
  opt.step(0.1);
  return w.norm() > 0.05F && w.allFinite() ? 0 : 1;
}
