// Newton-Schulz alone: orthogonalizes matrices without an optimizer. An orthogonalizer is a policy like every other,
// and runs on a pass: a backend, scratch memory, and the number of matrices.
#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <matopt/core/dry_backend.hpp>
#include <matopt/core/pass.hpp>
#include <matopt/eigen.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <type_traits>

namespace {

// Replaces every matrix of x by about its polar factor U V^T.
void orthogonalize(matopt::eigen_backend& cpu, matopt::view<float> x) {
  const auto how = matopt::newton_schulz<>::preset(matopt::coefficient_set::degree9_4);
  const auto on = [&](auto& backend, matopt::arena& scratch, matopt::view<float> v) {
    matopt::no_state none;
    matopt::pass<std::remove_reference_t<decltype(backend)>, float> pass(backend, scratch, nullptr, nullptr, v.batch,
                                                                         std::min(v.rows, v.cols));
    matopt::detail::orthogonalize(how, pass, none, v);
  };
  // A dry run touches no data and counts the scratch. Keep the buffer if you do this often.
  matopt::dry_backend<matopt::eigen_backend> dry{cpu};
  matopt::arena counted;
  auto shape = x;
  shape.data = nullptr;
  on(dry, counted, shape);
  auto buffer = cpu.allocate(counted.peak);
  matopt::arena scratch{buffer.data()};
  on(cpu, scratch, x);
}

}  // namespace

int main() {
  constexpr matopt::index_t rows = 48, cols = 96;
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(rows, cols);
  const Eigen::BDCSVD<Eigen::MatrixXf> exact(x, Eigen::ComputeThinU | Eigen::ComputeThinV);

  matopt::eigen_backend cpu;
  orthogonalize(cpu, matopt::view_of(x));

  const float error = (x - exact.matrixU() * exact.matrixV().transpose()).norm() / std::sqrt(static_cast<float>(rows));
  std::printf("distance from the polar factor, per singular value: %.4f\n", static_cast<double>(error));
  return error < 0.05F ? EXIT_SUCCESS : EXIT_FAILURE;
}
