// NuMuon's step: T-10, T-18, T-21 and T-23 to T-25 of docs/requirements.md, and AdamW's second moment at its limits.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/muon.hpp>
#include <matopt/numuon.hpp>

#include "../support/stepper.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {
using exact = numuon::with_orthogonalizer<svd_polar>::with_constraint<nuclear_budget<fixed_rank>>;
exact rank_rule(double fraction, double decay = 0) {
  return {.constraint = {.rank = {fraction}, .inner = {.decay = decay}}};
}
}  // namespace

TEST_CASE("T-10 exponential mean and heavy ball step alike", "[numuon]") {
  const mat w0 = random_mat(8, 6, 1);
  stepper<exact> mean(rank_rule(0.5), w0);
  using heavy = exact::with_momentum<heavy_ball>;
  stepper<heavy> ball(heavy{.constraint = {.rank = {0.5}}}, w0);
  for (std::uint64_t t = 0; t < 20; ++t) {
    const mat g = random_mat(8, 6, 10 + t);
    CHECK(largest(mean.step(g, 0.1) - ball.step(g, 0.1)) < 1e-12);
  }
}

TEST_CASE("T-18 a zero gradient only decays", "[numuon]") {
  const mat w0 = random_mat(50, 44, 1);
  stepper<numuon> s({.constraint = {.rank = {.start = 0.05, .end = 0.05}, .inner = {.decay = 0.1}}}, w0);
  mat expected = w0;
  for (int t = 0; t < 3; ++t) {
    expected = (1 - 0.5 * 0.1) * expected;
    CHECK(largest(s.step(mat(50, 44), 0.5) - expected) < 1e-15);
  }
}

TEST_CASE("T-21 a gradient that is not finite never enters the decomposition", "[numuon]") {
  const mat w0 = random_mat(8, 6, 1);
  stepper<exact> s(rank_rule(0.5, 0.1), w0);
  s.step(random_mat(8, 6, 2), 0.1);
  const mat before = s.weight();
  mat bad = random_mat(8, 6, 3);
  bad(7, 5) = std::nan("");
  CHECK(largest(s.step(bad, 0.1) - before) == 0);
  CHECK(s.optimizer().poll_status().parameters == std::vector<std::string>{"w"});
}

TEST_CASE("T-23 one step by hand, for every scale and decay", "[numuon]") {
  const index_t m = 9, n = 6, k = 3;
  const mat w0 = random_mat(m, n, 1), g = random_mat(m, n, 2), d = top_k_polar(g, k);
  const double lr = 0.05;
  const auto check = [&]<class Scale>(Scale, double factor) {
    for (const double decay : {0.0, 0.1}) {
      using rule_type = exact::with_scale<Scale>;
      stepper<rule_type> s({.constraint = {.rank = {0.5}, .inner = {.decay = decay}}}, w0);
      const mat w = s.step(g, lr);
      CHECK(largest(w - ((1 - lr * decay) * w0 - lr * factor * d)) < 1e-12);  // the decay takes the base rate
      if (decay > 0) {
        const double gamma = lr * decay;  // the conditional-gradient form
        CHECK(largest(w - ((1 - gamma) * w0 - gamma * (factor / decay) * d)) < 1e-12);
      }
    }
  };
  check(unit_scale{}, 1);
  check(fan_ratio{}, std::sqrt(1.5));
  check(spectral_ratio{}, std::sqrt(1.5));
  check(match_rms{}, 0.6);
}

TEST_CASE("T-23 decay keeps the weight's norms bounded", "[numuon]") {
  const index_t m = 8, n = 6;
  const double decay = 0.5, s = std::sqrt(8.0 / 6.0);
  const mat w0 = 3 * random_mat(m, n, 5);
  stepper<exact> run(rank_rule(0.5, decay), w0);
  const double spectral = std::max(spectral_norm(w0), s / decay), nuclear = std::max(nuclear_norm(w0), 3 * s / decay);
  for (std::uint64_t t = 0; t < 1000; ++t) {
    const mat& w = run.step(random_mat(m, n, 100 + t), 0.2);
    if (t % 20 == 0) {
      REQUIRE(spectral_norm(w) <= spectral * (1 + 1e-12));
      REQUIRE(nuclear_norm(w) <= nuclear * (1 + 1e-12));
    }
  }
}

TEST_CASE("T-24 convergence bound without noise", "[numuon]") {
  // f = |W - W*|^2 / 2. Theorem 3.6 with its momentum from M_0 = G_0: the mean Ky Fan norm of the gradient is at most
  // (f_0 - f*) / (gamma T) + curvature terms of order gamma; checked as: descends, and to the order of gamma k.
  const index_t m = 16, n = 12;
  const mat target = random_mat(m, n, 1);
  for (const index_t k : {1, 4, 8, 12}) {
    CAPTURE(k);
    using plain = exact::with_scale<unit_scale>;
    stepper<plain> s({.momentum = {.beta = 0.9}, .constraint = {.rank = {static_cast<double>(k) / 12}}}, mat(m, n));
    const double gamma = 0.01, beta = 0.9;
    const int steps = 400;
    // M_0 = G_0: the buffer before the first update, so that 0.9 M + 0.1 G_0 = G_0
    const mat g0 = mat(m, n) - target;
    auto buffer = s.state("momentum");
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) buffer(i, j) = g0(i, j);
    double mean = 0;
    mat w(m, n);
    for (int t = 0; t < steps; ++t) {
      const mat g = w - target;
      const auto sigma = singular_values(g);
      mean += std::accumulate(sigma.begin(), sigma.begin() + k, 0.0) / steps;
      w = s.step(g, gamma);
    }
    // One step: f(W - gamma D) <= f - gamma <G, D> + gamma^2 k / 2, and <G, D> >= |G|_(k) - 2 |G - M|_(k), where the
    // buffer lags by at most gamma beta / (1 - beta) in spectral norm, so |G - M|_(k) <= k gamma beta / (1 - beta).
    const double kd = static_cast<double>(k);
    const double bound =
        0.5 * dot(target, target) / (gamma * steps) + kd * gamma / 2 + 2 * kd * gamma * beta / (1 - beta);
    CHECK(mean <= bound);
    CHECK(frobenius(w - target) < frobenius(target));
  }
}

TEST_CASE("T-25 with decay the weight comes nearer to the feasible set", "[numuon]") {
  const index_t m = 9, n = 6, k = 2;
  const double decay = 0.5, lr = 0.1, radius = 1 / decay, budget = static_cast<double>(k) / decay;
  // The distance from {||W||_2 <= radius, ||W||_* <= budget}: of the singular values from their projection on the
  // capped simplex, min(max(s - shift, 0), radius) with the least shift that keeps the budget.
  const auto distance = [&](const mat& w) {
    const auto sigma = singular_values(w);
    const auto kept = [&](double s, double shift) { return std::clamp(s - shift, 0.0, radius); };
    const auto total = [&](double shift) {
      double sum = 0;
      for (const double s : sigma) sum += kept(s, shift);
      return sum;
    };
    double low = 0, high = total(0) > budget ? sigma.front() : 0;
    for (int i = 0; i < 100; ++i) {
      const double middle = (low + high) / 2;
      (total(middle) > budget ? low : high) = middle;
    }
    double square = 0;
    for (const double s : sigma) square += (s - kept(s, high)) * (s - kept(s, high));
    return std::sqrt(square);
  };
  using plain = exact::with_scale<unit_scale>;
  const mat w0 = 3 * random_mat(m, n, 1);
  stepper<plain> s({.constraint = {.rank = {static_cast<double>(k) / 6}, .inner = {.decay = decay}}}, w0);
  double before = distance(w0);
  CHECK(before > 5);
  for (std::uint64_t t = 0; t < 100; ++t) {
    const double now = distance(s.step(random_mat(m, n, 50 + t), lr));
    REQUIRE(now <= (1 - lr * decay) * before + 1e-10);
    before = now;
  }
  CHECK(before < 0.1);
}

TEST_CASE("the rank of each step follows the schedule", "[numuon]") {
  const mat w0 = random_mat(20, 16, 1);
  using cosine = numuon::with_orthogonalizer<svd_polar>;
  stepper<cosine> s({.momentum = {.beta = 0}, .constraint = {.rank = {.start = 1, .end = 0.25, .hold = 2, .total = 8}}},
                    w0);
  // 16 (1/4 + 3/4 (1 + cos(pi (t - 2) / 6)) / 2), by hand: 16, 16, 16, 15.196, 13, 10, 7, 4.804, 4, 4; rounded up,
  // where the 7 that comes out as 7 + 2e-15 stays 7.
  mat before = w0;
  std::uint64_t seed = 30;
  for (const index_t k : {16, 16, 16, 16, 13, 10, 7, 5, 4, 4}) {
    CAPTURE(seed - 30);
    const mat w = s.step(random_mat(20, 16, seed++), 1);
    CHECK(s.optimizer().ranks() == std::vector<index_t>{k});
    CHECK(nuclear_norm(w - before) == Approx(static_cast<double>(k) * std::sqrt(20.0 / 16.0)));
    before = w;
  }
}

TEST_CASE("muon: Nesterov by hand, two steps", "[numuon]") {
  using polar = muon::with_orthogonalizer<svd_polar>;
  const mat w0 = random_mat(5, 7, 1), g1 = random_mat(5, 7, 2), g2 = random_mat(5, 7, 3);
  stepper<polar> s({}, w0);
  const mat m1 = 0.05 * g1, m2 = 0.95 * m1 + 0.05 * g2;
  mat w = w0 - 0.1 * top_k_polar(0.05 * g1 + 0.95 * m1, 5);
  CHECK(largest(s.step(g1, 0.1) - w) < 1e-12);
  w = w - 0.1 * top_k_polar(0.05 * g2 + 0.95 * m2, 5);
  CHECK(largest(s.step(g2, 0.1) - w) < 1e-12);
}

TEST_CASE("adamw: one huge gradient does not end the training", "[adamw]") {
  stepper<adamw, float> s({}, mat(2, 2, {1, 1, 1, 1}));
  s.step(mat(2, 2, {3e38, -3e38, 1, 0}), 1e-3);
  for (int t = 0; t < 5; ++t) s.step(mat(2, 2, {1, 1, 1, 1}), 1e-3);
  CHECK(all_finite(s.state("first_moment")));
  CHECK(all_finite(s.state("second_moment")));
  for (const double x : s.weight().a) CHECK(std::isfinite(x));
}
