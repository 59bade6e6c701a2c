// Which rule for which parameter: y = W e(token) + b. The hidden matrix W takes Muon; the embedding table e and the
// vector b take AdamW, each group with a rate of its own, and one schedule serves both.
#include <cstdio>
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/param_groups.hpp>

using namespace matopt;

int main() {
  std::srand(1);
  constexpr int tokens = 40, width = 12, outputs = 16, steps = 300;
  const Eigen::MatrixXf wanted = Eigen::MatrixXf::Random(outputs, width) * Eigen::MatrixXf::Random(width, tokens);

  Eigen::MatrixXf w = 0.3F * Eigen::MatrixXf::Random(outputs, width), gw(outputs, width);
  Eigen::MatrixXf e = 0.3F * Eigen::MatrixXf::Random(tokens, width), ge(tokens, width);
  Eigen::MatrixXf b = Eigen::MatrixXf::Zero(outputs, 1), gb(outputs, 1);

  eigen_backend cpu;
  param_groups groups(cpu, muon{}, 0.05, adamw{}, 0.03);
  groups.add("hidden.weight", view_of(w), view_of(gw), role::hidden);
  groups.add("embedding", view_of(e), view_of(ge), role::embedding);
  groups.add("hidden.bias", view_of(b), view_of(gb), role::vector, {.decay = 0.0});
  groups.finalize();
  std::printf("%s", groups.table().c_str());

  float error = 0;
  for (int t = 0; t < steps; ++t) {
    const Eigen::MatrixXf difference = (w * e.transpose()).colwise() + b.col(0) - wanted;
    error = difference.norm() / wanted.norm();
    gw = difference * e;
    ge = difference.transpose() * w;
    gb = difference.rowwise().sum();
    groups.step(1 - static_cast<double>(t) / steps);  // the factor of every rate
  }
  std::printf("relative error after %d steps: %.4f\n", steps, static_cast<double>(error));
  return error < 0.02F && groups.assignments().size() == 3 && groups.poll_status() ? 0 : 1;
}
