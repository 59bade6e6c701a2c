// New optimizers in one line each, on one problem: factorise a 48 x 32 matrix T of rank 8 as A B, where the rows of T
// differ in size by a factor of 100. A is 48 x 8 and B is 8 x 32; both are trained. All rules solve it. The order is no
// verdict: the problem is small and its gradients are exact, and there AdamW does well.
#include <cmath>
#include <cstdio>
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>

using namespace matopt;

// The one-liners. Each with_*<> replaces one slot of a rule and leaves the others.
using gentle_muon = muon::with_scale<match_rms>;
using exact_muon = muon::with_orthogonalizer<svd_polar>;
using numuown = numuon::with_momentum<nesterov_heavy_ball>::with_scale<match_rms>::with_constraint<
    nuclear_budget<cosine_rank, weight_normalization<>>>;

namespace {

constexpr int steps = 400, rank = 8;

struct problem {
  Eigen::MatrixXf target;
  Eigen::MatrixXf a = 0.3F * Eigen::MatrixXf::Random(48, rank), b = 0.3F * Eigen::MatrixXf::Random(rank, 32);
  Eigen::MatrixXf ga = Eigen::MatrixXf::Zero(48, rank), gb = Eigen::MatrixXf::Zero(rank, 32);
};

problem make_problem() {
  std::srand(1);
  problem p;
  p.target = Eigen::MatrixXf::Random(48, rank) * Eigen::MatrixXf::Random(rank, 32);
  for (int i = 0; i < 48; ++i) p.target.row(i) *= std::pow(10.0F, -2.0F * static_cast<float>(i) / 47.0F);
  return p;
}

// Trains with the rule; returns ||A B - T|| / ||T|| at the end.
template <class Rule>
double train(Rule rule, double lr) {
  problem p = make_problem();
  eigen_backend cpu(1);
  optimizer<Rule, eigen_backend> opt(cpu, rule);
  opt.add("a", view_of(p.a), view_of(p.ga));
  opt.add("b", view_of(p.b), view_of(p.gb));
  opt.finalize();
  for (int t = 0; t < steps; ++t) {
    const Eigen::MatrixXf difference = p.a * p.b - p.target;
    p.ga = difference * p.b.transpose();
    p.gb = p.a.transpose() * difference;
    opt.step(lr * (1 - static_cast<double>(t) / steps));
  }
  return static_cast<double>((p.a * p.b - p.target).norm() / p.target.norm());
}

int wrong = 0;

// The best of a few learning rates: a comparison at one rate compares the rates.
template <class Rule>
void compare(const char* name, const Rule& rule) {
  double best = INFINITY, best_lr = 0;
  for (const double lr : {0.003, 0.01, 0.03, 0.1, 0.3})
    if (const double error = train(rule, lr); error < best) best = error, best_lr = lr;
  std::printf("%-26s %10.1e   %g\n", name, best, best_lr);
  if (!(best < 0.01)) ++wrong;
}

}  // namespace

int main() {
  const cosine_rank shrinking{.start = 1, .end = 0.5, .hold = steps / 10, .total = steps * 8 / 10};
  std::printf("%-26s %10s   %s\n", "rule", "error", "learning rate");
  compare("adamw", adamw{});
  compare("muon", muon{});
  compare("muon, polar express", muon{.orthogonalizer = {.coefficients = coefficient_set::polar_express}});
  compare("muon, exact polar factor", exact_muon{});
  compare("muon, scale match_rms", gentle_muon{});
  compare("numuon", numuon{.constraint = {.rank = shrinking}});
  compare("muown", muown{});
  compare("numuown", numuown{.constraint = {.rank = shrinking}});
  return wrong == 0 ? 0 : 1;
}
