#include "accuracy.hpp"

#include <Eigen/Dense>
#include <cmath>
#include <map>
#include <random>
#include <utility>

namespace bench {
namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using decomposition = Eigen::BDCSVD<Eigen::MatrixXd>;

std::vector<double> stored(const matrix& m) { return {m.data(), m.data() + m.size()}; }

}  // namespace

const spectrum_inputs& inputs_of(int rows, int cols) {
  static std::map<std::pair<int, int>, spectrum_inputs> made;
  const auto [at, is_new] = made.try_emplace({rows, cols});
  if (!is_new) return at->second;
  std::mt19937_64 generator(1);
  std::normal_distribution<double> normal;
  const auto gaussian = [&](int m, int n) -> matrix {
    return matrix::NullaryExpr(m, n, [&](Eigen::Index, Eigen::Index) { return normal(generator); });
  };
  const auto decomposed = [](const matrix& m) { return decomposition(m, Eigen::ComputeThinU | Eigen::ComputeThinV); };
  const auto put = [&](std::size_t i, const matrix& input, const decomposition& svd) {
    at->second.input[i] = stored(input);
    at->second.polar[i] = stored(svd.matrixU() * svd.matrixV().transpose());
  };

  const matrix gauss = gaussian(rows, cols);
  const decomposition of_gauss = decomposed(gauss);
  put(0, gauss, of_gauss);
  const decomposition directions = decomposed(gaussian(rows, cols));
  const Eigen::VectorXd inverse = Eigen::VectorXd::LinSpaced(rows, 1, rows).cwiseInverse();
  put(1, directions.matrixU() * inverse.asDiagonal() * directions.matrixV().transpose(), directions);
  const matrix low = directions.matrixU().leftCols(8) * directions.matrixV().leftCols(8).transpose();
  const matrix noisy = low + 0.01 * gaussian(rows, cols);
  put(2, noisy, decomposed(noisy));
  return at->second;
}

accuracy compare(const std::vector<double>& y, const std::vector<double>& polar, int rows, int cols) {
  const Eigen::Map<const matrix> result(y.data(), rows, cols), exact(polar.data(), rows, cols);
  if (!result.allFinite()) return {NAN, NAN};
  const Eigen::MatrixXd gram = result * result.transpose();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> values(gram, Eigen::EigenvaluesOnly);
  return {(result - exact).norm() / std::sqrt(static_cast<double>(rows)), std::sqrt(values.eigenvalues().maxCoeff())};
}

}  // namespace bench
