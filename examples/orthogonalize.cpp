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
#include <vector>

namespace {

// How far from the polar factor of its `k` leading directions, per singular value.
double error(const Eigen::MatrixXf& x, const Eigen::JacobiSVD<Eigen::MatrixXf>& exact, int k) {
  const Eigen::MatrixXf polar = exact.matrixU().leftCols(k) * exact.matrixV().leftCols(k).transpose();
  return static_cast<double>((x - polar).norm()) / std::sqrt(k);
}

}  // namespace

int main() {
  const int rows = 48, cols = 96;
  const Eigen::MatrixXf gradient = Eigen::MatrixXf::Random(rows, cols);
  const Eigen::JacobiSVD<Eigen::MatrixXf> exact(gradient, Eigen::ComputeThinU | Eigen::ComputeThinV);

  matopt::eigen_backend cpu;
  const auto degree9 = matopt::newton_schulz<>::preset(matopt::coefficient_set::degree9_4);
  Eigen::MatrixXf once = gradient, top = gradient, update(rows, cols);

  matopt::orthogonalize(cpu, degree9, once);        // x becomes about U V^T
  matopt::top_k(cpu, matopt::svd_polar{}, top, 8);  // ... the sum of its 8 leading u_i v_i^T

  // Again and again: the plan has the memory, and a call allocates nothing.
  matopt::orthogonalizer_plan plan(cpu, degree9, update);
  for (int step = 0; step < 3; ++step) plan(gradient, update);

  // Coefficients of one's own: three steps that lift singular values, two that bring them to 1.
  const matopt::odd_polynomial lift{3.4445, -4.7750, 2.0315}, polish{1.875, -1.25, 0.375};
  const std::vector<matopt::odd_polynomial> own{lift, lift, lift, polish, polish};
  const matopt::coefficient_report report = matopt::report_coefficients(own);  // where [1e-3, 1] goes, step by step
  if (!report.ok) return EXIT_FAILURE;
  Eigen::MatrixXf by_own = gradient;
  matopt::orthogonalize(cpu, matopt::newton_schulz<>::with_rows(matopt::coefficient_rows(own)), by_own);

  std::printf(
      "distance from the polar factor, per singular value: %.4f once, %.4f by the plan, %.4f by own rows; 8 "
      "directions: %.6f\n",
      error(once, exact, rows), error(update, exact, rows), error(by_own, exact, rows), error(top, exact, 8));
  const bool good = error(once, exact, rows) < 0.05 && error(update, exact, rows) < 0.05 &&
                    error(by_own, exact, rows) < 0.05 && error(top, exact, 8) < 1e-4;
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
