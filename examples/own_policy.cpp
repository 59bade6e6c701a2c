// An optimizer with a policy of your own: Muon, and after it each column of the update divided by the running root mean
// square of that column, so that inputs that are rarely active move as fast as the others.
//
//   q_j <- beta q_j + (1 - beta) mean_i u_ij^2        c <- beta c + (1 - beta)
//   u_ij <- rms u_ij / (sqrt(q_j / c) + eps)
#include <cmath>
#include <cstdio>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <string>

using namespace matopt;

// 1. The formulas, as named functors: outputs by reference first, inputs by value after them. T is the compute type.
namespace column {
struct update_mean_square {
  double beta, rows;
  template <class T>
  MATOPT_HD void operator()(T& q, T sum) const {
    q = T(beta) * q + T(1 - beta) * sum / T(rows);
  }
};
struct update_correction {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& c) const {
    c = T(beta) * c + T(1 - beta);
  }
};
struct divide_by_root {
  double rms, eps;
  template <class T>
  MATOPT_HD void operator()(T& u, T q, T c) const {
    u = T(rms) * u / (math::sqrt(q / c) + T(eps));
  }
};
}  // namespace column

struct column_rms {
  // 2. The settings: an aggregate with defaults, and one list of names with legal ranges.
  double beta = 0.95, eps = 1e-8, rms = 0.2;

  static std::string name() { return "column_rms"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("column_beta", self.beta, range{.low = 0, .high = 1, .high_open = true});
    visit("column_eps", self.eps, range{.low = 0, .low_open = true});
    visit("column_rms", self.rms, range{.low = 0, .low_open = true});
  }

  // 3. The state: one number per column, one per matrix. It begins as zeros and is part of every checkpoint.
  template <class State, class Compute>
  struct state {
    view<Compute> q, c;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.q = l.columns("column_mean_square"), s.c = l.scalar("column_correction");
  }

  // 4. The operation of the slot: verbs of the pass, and what remains for each entry of u as a formula. It runs on
  // every backend, for a whole batch of matrices.
  template <class E, class St, class U>
  auto normalize(E& e, St& s, view<U> u) const {
    const auto sum = e.take(1, u.cols);
    e.reduce_rows(fn::square{}, sum.t(), as_const(u.t()));  // the rows of the transpose are the columns
    e.for_each(column::update_mean_square{beta, static_cast<double>(u.rows)}, s.q, as_const(sum));
    e.for_each(column::update_correction{beta}, s.c);
    return elementwise(column::divide_by_root{rms, eps}, update_slot{}, per_column(s.q), per_matrix(s.c));
  }
};

// 5. The optimizer. Columns now have the size that column_rms gives them, so the scale by shape goes.
using column_muon = muon::with_normalizer<column_rms>::with_scale<unit_scale>;

int main() {
  std::srand(1);
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(24, 256);
  for (int j = 0; j < 24; ++j) x.row(j) *= std::pow(0.8F, static_cast<float>(j));  // the last inputs are faint
  const Eigen::MatrixXf solution = Eigen::MatrixXf::Random(16, 24), y = solution * x;
  Eigen::MatrixXf w = Eigen::MatrixXf::Zero(16, 24), g(16, 24);

  eigen_backend cpu;
  optimizer<column_muon, eigen_backend> opt(cpu, {.normalizer = {.beta = 0.9}});
  opt.add("w", view_of(w), view_of(g));
  opt.finalize();

  bool right = true;
  for (int t = 0; t < 300; ++t) {
    g = (w * x - y) * x.transpose() / 256;
    opt.step(0.2 * (1 - t / 300.0));
    if (t > 0) continue;
    // In the first step q / c is the mean square of the update itself: every column moves by lr * rms.
    const Eigen::VectorXf moved = (w.colwise().squaredNorm() / 16).cwiseSqrt().transpose();
    right = right && (moved.array() / (0.2F * 0.2F) - 1).abs().maxCoeff() < 1e-3F;
    std::printf("root mean square of the first step, by column: %.5f to %.5f\n", static_cast<double>(moved.minCoeff()),
                static_cast<double>(moved.maxCoeff()));
  }
  const double error = static_cast<double>((w - solution).norm() / solution.norm());
  std::printf("distance to the solution after 300 steps: %.4f of its size\n", error);
  right = right && error < 0.05;

  std::printf("settings:");
  for (const auto& [key, value] : settings_of(opt.rule())) std::printf(" %s=%s", key.c_str(), value.c_str());

  // What the range in the list of settings buys: a wrong value is refused by name, before anything is allocated.
  try {
    optimizer<column_muon, eigen_backend> refused(cpu, {.normalizer = {.beta = 1.5}});
    right = false;
  } catch (const bad_value& e) {
    std::printf("\nrefused: %s\n", e.what());
    right = right && std::string(e.what()).find("column_beta is 1.5") != std::string::npos;
  }
  return right ? 0 : 1;
}
