// Weights in bfloat16, trained in steps that bfloat16 cannot hold: a master copy in float keeps what rounding takes
// away. The gradient of four batches is added up in one buffer, and the step is told to take a quarter of it.
//
// The check: with the master the weights come as near to the right ones as bfloat16 can; without it they get stuck.
#include <Eigen/Core>
#include <cstdio>
#include <cstdlib>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <vector>

using namespace matopt;
using matrix = Eigen::MatrixXf;

namespace {

constexpr index_t outputs = 24, inputs = 40, batches = 4;

// The distance to the right weights after training by a rule, relative to their size.
template <class Rule>
float train(const Rule& rule) {
  std::srand(1);
  const matrix target = matrix::Random(outputs, inputs), start = matrix::Random(outputs, inputs);
  std::vector<bfloat16> w(start.data(), start.data() + start.size());
  matrix g = matrix::Zero(outputs, inputs);
  const auto weights = [&] {
    matrix m(outputs, inputs);
    for (index_t i = 0; i < m.size(); ++i) m.data()[i] = w[static_cast<std::size_t>(i)];
    return m;
  };

  eigen_backend cpu;
  optimizer<Rule, eigen_backend, types<bfloat16, float>> opt(cpu, rule, {.scales_gradient = true});
  opt.add("w", col_major(w.data(), outputs, inputs), view_of(g));
  opt.finalize();
  constexpr int steps = 1800;
  for (int t = 0; t < steps; ++t) {
    g.setZero();
    for (index_t b = 0; b < batches; ++b) {
      const matrix x = matrix::Random(inputs, 64);
      g += (weights() - target) * x * x.transpose() / 64;
    }
    opt.step(0.01 * (1 - static_cast<double>(t) / steps), 1.0 / batches);
  }
  return (weights() - target).norm() / target.norm();
}

}  // namespace

int main() {
  using muon_with_master = muon::with_constraint<master_weights<>>;
  const float without = train(muon{});
  const float with = train(muon_with_master{});
  const float stochastic = train(muon_with_master{.constraint = {.rounding = rounding_mode::stochastic}});
  std::printf("relative error without a master %.5f, with one %.5f, rounded stochastically %.5f\n",
              static_cast<double>(without), static_cast<double>(with), static_cast<double>(stochastic));
  return with < 0.003F && stochastic < 0.005F && without > 50 * with ? EXIT_SUCCESS : EXIT_FAILURE;
}
