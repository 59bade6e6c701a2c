// Newton-Schulz alone: orthogonalizes matrices without an optimizer, in one call or many times in memory that is
// allocated once; and the leading singular directions.
#include <Eigen/SVD>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <matopt/eigen.hpp>
#include <matopt/orthogonalize.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

namespace {

// How far from the polar factor of its `k` leading directions, per singular value.
double error(const Eigen::MatrixXf& x, const Eigen::BDCSVD<Eigen::MatrixXf>& exact, int k) {
  const Eigen::MatrixXf polar = exact.matrixU().leftCols(k) * exact.matrixV().leftCols(k).transpose();
  return static_cast<double>((x - polar).norm()) / std::sqrt(k);
}

}  // namespace

int main() {
  const int rows = 48, cols = 96;
  const Eigen::MatrixXf gradient = Eigen::MatrixXf::Random(rows, cols);
  const Eigen::BDCSVD<Eigen::MatrixXf> exact(gradient, Eigen::ComputeThinU | Eigen::ComputeThinV);

  matopt::eigen_backend cpu;
  const auto degree9 = matopt::newton_schulz<>::preset(matopt::coefficient_set::degree9_4);
  Eigen::MatrixXf once = gradient, top = gradient, update(rows, cols);

  matopt::orthogonalize(cpu, degree9, once);        // x becomes about U V^T
  matopt::top_k(cpu, matopt::svd_polar{}, top, 8);  // ... the sum of its 8 leading u_i v_i^T

  // Again and again: the plan has the memory, and a call allocates nothing.
  matopt::orthogonalizer_plan plan(cpu, degree9, update);
  for (int step = 0; step < 3; ++step) plan(gradient, update);

  std::printf("distance from the polar factor, per singular value: %.4f once, %.4f by the plan; 8 directions: %.6f\n",
              error(once, exact, rows), error(update, exact, rows), error(top, exact, 8));
  const bool good = error(once, exact, rows) < 0.05 && error(update, exact, rows) < 0.05 && error(top, exact, 8) < 1e-4;
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
