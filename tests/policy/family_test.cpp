// The family's directions, normalizers, rates and constraints: invariants of their specifications, and each formula
// once more by hand. Momenta and estimators are in family_estimators_test.cpp; agreement with the published programs is
// golden_test.cpp's.
#include <catch2/catch.hpp>

#include <matopt/adamuon.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_nsr.hpp>
#include <matopt/muon_plus.hpp>
#include <matopt/muon_vs.hpp>
#include <matopt/namo.hpp>
#include <matopt/namo_d.hpp>
#include <matopt/normuon.hpp>
#include <matopt/optax_muon.hpp>
#include <matopt/policy/momentum/corrected_ema.hpp>
#include <matopt/policy/normalizer/target_rms.hpp>
#include <matopt/reg.hpp>

#include "family_support.hpp"
#include "support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

// --- NorMuon ---

TEMPLATE_TEST_CASE("NorMuon: after the first step all neurons move equally far", "[normuon]", float, double) {
  const double limit = std::is_same_v<TestType, float> ? tolerance<float> : 1e-11;
  const auto without_eps = [](auto rule) {
    rule.normalizer.eps = 1e-20;
    return rule;
  };
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    const mat zero(w0.rows, w0.cols), g = random_mat(w0.rows, w0.cols, seed);
    const mat o = keller(0.05 * 1.95 * g);

    const mat y = runner<TestType>(without_eps(normuon{}), zero).update(g);
    CHECK(frobenius(y) == Approx(frobenius(o) * fan(o)).epsilon(limit));
    for (index_t i = 0; i < y.rows; ++i)
      CHECK(row_length(y, i) == Approx(frobenius(y) / root(as_double(y.rows))).epsilon(limit));

    const mat paper = runner<TestType>(without_eps(normuon_paper{}), zero).update(g);
    CHECK(rms(paper) == Approx(0.2).epsilon(limit));
    for (index_t i = 0; i < y.rows; ++i)
      CHECK(row_length(paper, i) == Approx(0.2 * root(as_double(y.cols))).epsilon(limit));

    runner<TestType> speedrun(without_eps(normuon_speedrun{}), zero);
    const mat fast = speedrun.update(g);
    CHECK(frobenius(fast) == Approx(frobenius(o) * fan(o)).epsilon(limit));
    if (y.rows >= y.cols) {
      CHECK(speedrun.state("neuron_mean_square").rows == y.rows);
      CHECK(largest(fast - y) <= limit);
    } else {
      CHECK(speedrun.state("neuron_mean_square").cols == y.cols);
      for (index_t j = 0; j < y.cols; ++j)
        CHECK(column_length(fast, j) == Approx(frobenius(fast) / root(as_double(y.cols))).epsilon(limit));
    }
  });
}

TEST_CASE("NorMuon: mean squares, floors and norms by hand", "[normuon]") {
  struct form {
    double eps;
    bool add, rms;
  };
  const auto check = [](const auto& rule, const form& f) {
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      runner<> run(rule, w0);
      mat m(w0.rows, w0.cols), w = w0;
      std::vector<double> v(static_cast<std::size_t>(w0.rows), 0.0);
      for (std::uint64_t t = 0; t < 4; ++t) {
        const mat g = random_mat(w0.rows, w0.cols, seed + t);
        m = 0.95 * m + 0.05 * g;
        const mat o = keller(0.05 * g + 0.95 * m);
        mat y = o;
        for (index_t i = 0; i < o.rows; ++i) {
          auto& own = v[static_cast<std::size_t>(i)];
          own = 0.9 * own + 0.1 * row_length(o, i) * row_length(o, i) / as_double(o.cols);
          for (index_t j = 0; j < o.cols; ++j) y(i, j) /= root(own) + f.eps;
        }
        const double n = frobenius(y);
        y = (f.rms ? 0.3 * root(as_double(o.rows * o.cols)) / n
                   : frobenius(o) / (f.add ? n + f.eps : std::max(n, f.eps))) *
            y;
        w = (1 - 0.05 * 0.1) * w - 0.05 * fan(w) * y;
        CHECK(largest(run.step(g, 0.05) - w) < 1e-11);
      }
    });
  };
  normuon rule{.normalizer = {.beta2 = 0.9, .eps = 0.1, .rms = 0.3}, .constraint = {.decay = 0.1}};
  check(rule, {0.1, true, false});
  rule.normalizer.eps = 3, rule.normalizer.floor = norm_floor::max;
  check(rule, {3, false, false});
  rule.normalizer.eps = 0.1, rule.normalizer.restore = restored_size::rms;
  check(rule, {0.1, true, true});
}

TEST_CASE("a zero gradient gives a zero update, and no NaN", "[family]") {
  const mat w0 = random_mat(4, 6, 1), zero(4, 6);
  const auto still = [&](auto rule) {
    rule.constraint.decay = 0;
    runner<> run(rule, w0);
    for (int t = 0; t < 3; ++t) CHECK(largest(run.step(zero) - w0) == 0);
  };
  still(normuon{}), still(normuon_paper{}), still(normuon_dion{}), still(normuon_speedrun{});
  still(adamuon{}), still(adamuon_paper{}), still(adamuon_megatron{});
  still(muon_nsr{}), still(muon_vs{}), still(muon_nsr_suite_b{}), still(muon_vs_suite_b{});
  still(reg{}), still(optax_muon{}), still(optax_muon_adaptive{});
  for (const auto order : {line_order::row, line_order::col, line_order::row_col, line_order::col_row})
    still(muon_plus{.normalizer = {.order = order}});
}

// --- Muon+ ---

TEST_CASE("Muon+: lines of unit length, and what that makes of the norm", "[muon_plus]") {
  const auto unit = [](double n) { return 1 / root(n * n + 1e-7); };
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    const mat g = random_mat(w0.rows, w0.cols, seed), o = keller(1.95 * g);
    const double m = as_double(w0.rows), n = as_double(w0.cols), scale = root(m / n);
    const mat zero(w0.rows, w0.cols);
    const auto update = [&](line_order order, double eps = 1e-7) {
      const muon_plus rule{.normalizer = {.order = order, .eps = eps}, .constraint = {.decay = 0}};
      return 1 / scale * runner<>(rule, zero).update(g);
    };
    const mat row = update(line_order::row), col = update(line_order::col), row_col = update(line_order::row_col),
              col_row = update(line_order::col_row);
    CHECK(largest(row - by_row(o, unit)) < 1e-12);
    CHECK(largest(col - by_column(o, unit)) < 1e-12);
    CHECK(largest(row_col - by_column(by_row(o, unit), unit)) < 1e-12);
    CHECK(largest(col_row - by_row(by_column(o, unit), unit)) < 1e-12);
    for (const auto order : {line_order::row, line_order::col_row})
      CHECK(frobenius(update(order, 1e-20)) == Approx(root(m)).epsilon(1e-11));
    for (const auto order : {line_order::col, line_order::row_col})
      CHECK(frobenius(update(order, 1e-20)) == Approx(root(n)).epsilon(1e-11));
  });
}

TEST_CASE("Muon+ without a mode is Muon with summed momentum", "[muon_plus]") {
  using summed = muon::with_momentum<nesterov_heavy_ball>::with_scale<spectral_ratio>;
  for_shapes([](const mat& w0, std::uint64_t seed) {
    runner<> plus(muon_plus{}, w0), plain(summed{.orthogonalizer = {.eps = 1e-7}, .constraint = {.decay = 0.1}}, w0);
    for (std::uint64_t t = 0; t < 4; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + t);
      CHECK(largest(plus.step(g, 0.1) - plain.step(g, 0.1)) == 0);
    }
  });
}

// --- AdaMuon ---

TEST_CASE("AdaMuon: the first update is 0.2 times a sign, and every later one has that size", "[adamuon]") {
  const auto check = [](auto rule) {
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      const mat zero(w0.rows, w0.cols), g = random_mat(w0.rows, w0.cols, seed), o = keller(signs(g));
      rule.constraint.decay = 0;
      runner<> run(rule, zero);
      const mat first = run.update(g);
      for (std::size_t i = 0; i < o.a.size(); ++i)
        if (std::abs(o.a[i]) > 1e-9)
          CHECK(first.a[i] == Approx(std::copysign(0.2, o.a[i])).margin(1e-8 / std::abs(o.a[i]) + 1e-8));
      for (std::uint64_t t = 1; t < 5; ++t) {
        const mat y = run.update(random_mat(w0.rows, w0.cols, seed + t));
        CHECK(rms(y) == Approx(0.2).epsilon(1e-7));
        if (y.a.size() > 6) CHECK(largest(y - 0.2 * signs(y)) > 1e-3);  // no longer a sign
      }
    });
  };
  check(adamuon{}), check(adamuon_paper{}), check(adamuon_megatron{});
}

TEST_CASE("AdaMuon by hand", "[adamuon]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const adamuon rule{.normalizer = {.beta = 0.8, .eps = 0.05, .rms = 0.3, .norm_eps = 0.5}};  // decay 0.01
    runner<> run(rule, w0);
    mat m(w0.rows, w0.cols), v = m, w = w0;
    for (std::uint64_t t = 0; t < 4; ++t) {
      mat g = random_mat(w0.rows, w0.cols, seed + t);
      if (t == 0) g(0, 0) = 0;  // sign(0) = 0
      m = 0.95 * m + 0.05 * g;
      const mat o = keller(signs(0.05 * g + 0.95 * m));
      v = 0.8 * v + (1 - 0.8) * squares(o);
      const mat y = mapped(o, v, [](double x, double s) { return x / (root(s) + 0.05); });
      w = (1 - 0.1 * 0.01) * w - 0.1 * 0.3 * root(as_double(w.rows * w.cols)) / (frobenius(y) + 0.5) * y;
      CHECK(largest(run.step(g, 0.1) - w) < 1e-11);
    }
  });
}

// --- Muon-NSR, Muon-VS ---

namespace {
// u of the t-th step, t from 1; m and v move.
mat adapted(mat& m, mat& v, const mat& g, int t, double alpha, double eps, bool signal, double beta = 0.95) {
  v = beta * v + beta * (1 - beta) * squares(m - g);
  m = beta * m + (1 - beta) * g;
  const double c = 1 - std::pow(beta, t);
  const mat looked = g + beta / (1 - beta) / c * m;
  const mat under = (signal ? alpha : 1.0) / c * v + (signal ? 1.0 : 0.0) * squares(looked);
  return mapped(looked, under, [&](double x, double u) { return x / (root(u) + eps); });
}
}  // namespace

TEST_CASE("Muon-NSR and Muon-VS begin as Muon on the sign of the gradient", "[variance_adaptive]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const mat zero(w0.rows, w0.cols), g = random_mat(w0.rows, w0.cols, seed);
    const mat expected = matched(g) * keller(signs(g), 0);
    const auto first = [&](auto rule) {
      rule.momentum.eps = 1e-14, rule.orthogonalizer.eps = 0, rule.constraint.decay = 0;
      return runner<>(rule, zero).update(g);
    };
    CHECK(largest(first(muon_nsr{}) - expected) < 1e-9);
    CHECK(largest(first(muon_nsr_suite_a{}) - expected) < 1e-9);
    CHECK(largest(first(muon_vs{}) - expected) < 1e-9);
    CHECK(largest(first(muon_vs_suite_a{}) - expected) < 1e-9);
  });
}

TEST_CASE("Muon-NSR and Muon-VS by hand", "[variance_adaptive]") {
  const auto check = [](auto rule, double alpha, bool signal) {
    rule.momentum.eps = 0.01;
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      runner<> run(rule, w0);
      mat m(w0.rows, w0.cols), v = m, w = w0;
      for (int t = 1; t < 5; ++t) {
        const mat g = random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
        w = (1 - 0.05 * 0.1) * w - 0.05 * matched(w) * keller(adapted(m, v, g, t, alpha, 0.01, signal));
        CHECK(largest(run.step(g, 0.05) - w) < 1e-10);
      }
    });
  };
  check(muon_nsr{}, 10, true);
  check(muon_nsr_suite_a{}, 1000, true);
  check(muon_vs{}, 0, false);
}

TEST_CASE("Muon-NSR tends to Muon-VS as alpha grows", "[variance_adaptive]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const auto third = [&](auto rule) {
      rule.momentum.eps = 1e-14, rule.orthogonalizer.eps = 0, rule.constraint.decay = 0;
      runner<> run(rule, w0);
      run.step(random_mat(w0.rows, w0.cols, seed)), run.step(random_mat(w0.rows, w0.cols, seed + 1));
      return run.update(random_mat(w0.rows, w0.cols, seed + 2));
    };
    const mat limit = third(muon_vs{});
    const double coarse = largest(third(muon_nsr{.momentum = {.alpha = 1e6}}) - limit);
    const double fine = largest(third(muon_nsr{.momentum = {.alpha = 1e9}}) - limit);
    CHECK(largest(third(muon_nsr{}) - limit) > 1e-3);
    CHECK(fine < 0.01 * coarse + 1e-12);
    CHECK(fine < 1e-4);
  });
}

TEST_CASE("the variances of the suites: late by beta^2, and amplified gradients", "[variance_adaptive]") {
  const mat w0 = random_mat(4, 6, 1);
  runner<> early(muon_vs{}, w0), late(muon_vs_suite_a{}, w0);
  for (std::uint64_t t = 0; t < 4; ++t) {
    const mat g = random_mat(4, 6, 10 + t);
    early.step(g, 0.01), late.step(g, 0.01);
    CHECK(largest(late.state_matrix("variance") - 0.95 * 0.95 * early.state_matrix("variance")) < 1e-15);
  }
  // Suite B: a gradient of norm 0.01 becomes one of norm 1; one of norm 3 stays.
  muon_nsr_suite_b off;
  off.momentum.amplify_below = 0;
  for (const double size : {0.01, 3.0}) {
    runner<> on_run(muon_nsr_suite_b{}, w0), off_run(off, w0);
    for (std::uint64_t t = 0; t < 3; ++t) {
      mat g = random_mat(4, 6, 20 + t);
      g = size / frobenius(g) * g;
      const mat fed = std::max(1.0, 1 / (frobenius(g) + 1e-8)) * g;
      CHECK(largest(on_run.step(g, 0.01) - off_run.step(fed, 0.01)) < 1e-13);
    }
  }
}

// --- NAMO ---

TEST_CASE("NAMO: the first rate is 1 + beta, and 1 without Nesterov", "[namo]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const mat zero(w0.rows, w0.cols), g = random_mat(w0.rows, w0.cols, seed);
    const double lr = 1e-3;
    namo with;
    namo::with_momentum<norm_rate<ema>> without;
    with.momentum.eps = without.momentum.eps = 1e-14;
    CHECK(largest(runner<>(with, zero).update(g, lr) - lr * 1.95 * matched(g) * keller(0.05 * 1.95 * g)) < 1e-10 * lr);
    CHECK(largest(runner<>(without, zero).update(g, lr) - lr * matched(g) * keller(0.05 * g)) < 1e-10 * lr);
    namo_paper paper;
    paper.momentum.eps = 1e-14;
    CHECK(largest(runner<>(paper, zero).update(g, lr) - lr * keller(0.05 * g, negligible_norm)) < 1e-10 * lr);
  });
}

TEST_CASE("NAMO: the step is clamped at 1, and the decay with it", "[namo]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const mat g = random_mat(w0.rows, w0.cols, seed), o = keller(0.05 * 1.95 * g);
    CHECK(largest(runner<>(namo{}, w0).step(g, 3) - (0.9 * w0 - o)) < 1e-11);
    CHECK(largest(runner<>(namo_d{}, w0).step(g, 3) - (0.9 * w0 - o)) < 1e-11);
    CHECK(largest(runner<>(namo{.constraint = {.decay = 2}}, w0).step(g, 3) + o) < 1e-11);  // not below zero
  });
}

TEST_CASE("NAMO: without gradients nothing moves, decay included", "[namo]") {
  const mat w0 = random_mat(4, 6, 1), zero(4, 6);
  const auto still = [&](const auto& rule) {
    runner<> run(rule, w0);
    for (int t = 0; t < 3; ++t) CHECK(largest(run.step(zero, 0.1) - w0) == 0);
    CHECK(largest(run.step(random_mat(4, 6, 2), 0.1) - w0) > 1e-3);
  };
  still(namo{}), still(namo_paper{}), still(namo_d{}), still(namo_d_paper{});
}

TEST_CASE("NAMO: a gradient of any size gives the step of one of size 1", "[namo]") {
  const auto check = [](auto rule) {
    const mat zero(8, 8), one = identity(8);
    const auto steps = [&](double size) {  // two: the second sees what the first has left
      runner<float> run(rule, zero);
      const mat first = run.update(size * one, 0.01);
      return std::pair{first, run.update(size * one, 0.01)};
    };
    const auto usual = steps(1);
    REQUIRE(largest(usual.first) > 1e-3);
    const auto same = [&](double size) {
      CAPTURE(size);
      const auto now = steps(size);
      CHECK(largest(now.first - usual.first) < 1e-5 * largest(usual.first));
      CHECK(largest(now.second - usual.second) < 1e-5 * largest(usual.second));
    };
    for (const double size : {1e19, 1e20, 1e25, 1e30}) same(size);
    // The eps of the rate and of the norm are of a size of their own; without them small gradients are as good.
    rule.momentum.eps = 1e-38, rule.orthogonalizer.eps = 0;
    for (const double size : {1e-10, 1e-20, 1e-30}) same(size);
  };
  check(namo{}), check(namo_paper{}), check(namo_d{}), check(namo_d_paper{});
}

TEST_CASE("Muon's first step does not depend on the gradient's size", "[muon]") {
  mat g = random_mat(64, 64, 3);
  for (auto& x : g.a) x += random_mat(1, 1, static_cast<std::uint64_t>(1000 * (x + 1)))(0, 0);  // nearer to normal
  const auto norm = [&](double size) {
    return frobenius(runner<float>(muon{}, mat(64, 64)).update(size / frobenius(g) * g));
  };
  CHECK(norm(1) == Approx(7).epsilon(0.1));
  for (const double size : {1e-30, 1e-20, 1e-10, 1e-5, 1e10, 1e30}) CHECK(norm(size) == Approx(norm(1)).epsilon(1e-3));
}

TEST_CASE("NAMO by hand", "[namo]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const namo rule{.momentum = {.mu2 = 0.9, .eps = 0.05}};
    runner<> run(rule, w0);
    mat m(w0.rows, w0.cols), w = w0;
    double v = 0;
    for (int t = 1; t < 6; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
      m = 0.95 * m + 0.05 * g;
      const mat u = 0.05 * g + 0.95 * m;
      v = 0.9 * v + 0.1 * dot(g, g);
      const double a = 0.1 * root(1 - std::pow(0.9, t)) / (1 - std::pow(0.95, t)) * frobenius(u) / (root(v) + 0.05);
      w = (1 - 0.1 * std::min(a, 1.0)) * w - std::min(a * matched(w), 1.0) * keller(u);
      CHECK(largest(run.step(g, 0.1) - w) < 1e-10);
    }
  });
}

namespace {
// The columns' ratios d_j, clamped, and the rates of step t; m and v move.
std::vector<double> column_rates(const mat& u, std::vector<double>& v, const mat& g, int t, double c, double lr) {
  std::vector<double> d;
  double mean = 0;
  for (index_t j = 0; j < g.cols; ++j) {
    auto& own = v[static_cast<std::size_t>(j)];
    own = 0.9 * own + 0.1 * column_length(g, j) * column_length(g, j);
    d.push_back(column_length(u, j) / (root(own) + 1e-3));
    mean += d.back() / as_double(g.cols);
  }
  for (double& x : d) {
    if (c > 0) x = std::min(std::max(x, c * mean), mean / c);
    x *= lr * root(1 - std::pow(0.9, t)) / (1 - std::pow(0.95, t));
  }
  return d;
}
}  // namespace

TEST_CASE("NAMO-D by hand, with every clamp", "[namo]") {
  for (const double c : {0.0, 0.5, 0.75, 1.0})
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      namo_d rule;
      rule.momentum.mu2 = 0.9, rule.momentum.eps = 1e-3, rule.momentum.clamp = c;
      runner<> run(rule, w0);
      mat m(w0.rows, w0.cols), w = w0;
      std::vector<double> v(static_cast<std::size_t>(w0.cols), 0.0);
      for (int t = 1; t < 5; ++t) {
        const mat g = random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
        m = 0.95 * m + 0.05 * g;
        const mat u = 0.05 * g + 0.95 * m, o = keller(u);
        const auto rates = column_rates(u, v, g, t, c, 0.05);
        for (index_t j = 0; j < w.cols; ++j) {
          const double a = rates[static_cast<std::size_t>(j)];
          for (index_t i = 0; i < w.rows; ++i)
            w(i, j) = (1 - 0.1 * std::min(a, 1.0)) * w(i, j) - std::min(a * matched(w), 1.0) * o(i, j);
        }
        CHECK(largest(run.step(g, 0.05) - w) < 1e-10);
        const auto [low, high] = std::minmax_element(rates.begin(), rates.end());
        if (c == 1) CHECK(*high == Approx(*low));
        if (c > 0) CHECK(*low >= c * c * *high * (1 - 1e-12));
      }
    });
}

TEST_CASE("NAMO-D of one column is NAMO", "[namo]") {
  const mat w0 = random_mat(6, 1, 1);
  runner<> columns(namo_d{}, w0), whole(namo{}, w0);
  for (std::uint64_t t = 0; t < 5; ++t) {
    const mat g = random_mat(6, 1, 10 + t);
    CHECK(largest(columns.step(g, 0.1) - whole.step(g, 0.1)) < 1e-14);
  }
}

// --- optax ---

TEST_CASE("optax: the corrected Nesterov form looks one step ahead", "[optax]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    runner<> run(optax_muon{.constraint = {.decay = 0.1}}, w0), adaptive(optax_muon_adaptive{}, w0);
    runner<> plain(optax_muon_rms::with_momentum<corrected_ema>{}, w0);
    mat m(w0.rows, w0.cols), w = w0, wa = w0, wp = w0;
    for (int t = 1; t < 5; ++t) {
      const mat g = 0.01 * random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
      m = 0.95 * m + 0.05 * g;
      const double now = 1 - std::pow(0.95, t), next = 1 - std::pow(0.95, t + 1);
      const mat x = 0.95 / next * m + 0.05 / now * g, o = keller(x, 1e-8);
      w = w - 0.05 * (fan(w) * o + 0.1 * w);
      wa = wa - 0.05 * fan(w) * dot(x, o) * o;
      wp = wp - 0.05 * matched(w) * keller(1 / now * m, 1e-8);
      CHECK(largest(run.step(g, 0.05) - w) < 1e-11);
      CHECK(largest(adaptive.step(g, 0.05) - wa) < 1e-11);
      CHECK(largest(plain.step(g, 0.05) - wp) < 1e-11);
    }
  });
  // Without an orthogonalizer the correction shows: a constant gradient is returned as it is.
  const mat g = random_mat(3, 4, 7);
  runner<> corrected(only<corrected_ema>{}, mat(3, 4));
  for (int t = 0; t < 4; ++t) CHECK(largest(corrected.update(g) - g) < 1e-14);
}

// --- REG ---

namespace {
mat unit_rows(const mat& x, double p = 2, double eps = 1e-8) {
  mat y = x;
  for (index_t i = 0; i < x.rows; ++i) {
    double s = 0;
    for (index_t j = 0; j < x.cols; ++j) s += std::pow(std::abs(x(i, j)), p);
    for (index_t j = 0; j < x.cols; ++j) y(i, j) /= std::max(std::pow(s, 1 / p), eps);
  }
  return y;
}
mat unit_columns(const mat& x, double p = 2) { return transposed(unit_rows(transposed(x), p)); }
}  // namespace

TEST_CASE("REG: one sweep at p = 2 makes the factor of the RMS a constant", "[reg]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const mat g = random_mat(w0.rows, w0.cols, seed), zero(w0.rows, w0.cols);
    const auto update = [&](scaling_order order) {
      return runner<>(reg{.orthogonalizer = {.order = order}, .constraint = {.decay = 0}}, zero).update(g);
    };
    CHECK(largest(update(scaling_order::row_col) - 0.2 * root(as_double(g.rows)) * unit_columns(unit_rows(g))) < 1e-13);
    CHECK(largest(update(scaling_order::col_row) - 0.2 * root(as_double(g.cols)) * unit_rows(unit_columns(g))) < 1e-13);
    CHECK(rms(update(scaling_order::joint)) == Approx(0.2));
  });
}

TEST_CASE("REG: other norms, sweeps and zero lines", "[reg]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const mat g = random_mat(w0.rows, w0.cols, seed), zero(w0.rows, w0.cols);
    const auto direction = [&](row_column_scaling o) {
      using scaled = rule<ema, row_column_scaling, no_normalizer, decoupled_decay, unit_scale>;
      return runner<>(scaled{.momentum = {.beta = 0}, .orthogonalizer = o}, zero).update(g);
    };
    for (const double p : {1.0, 3.0}) CHECK(largest(direction({.p = p}) - unit_columns(unit_rows(g, p), p)) < 1e-13);
    const mat once = unit_columns(unit_rows(g));
    CHECK(largest(direction({.sweeps = 2}) - unit_columns(unit_rows(once))) < 1e-13);
    mat joint = g;
    for (index_t i = 0; i < g.rows; ++i)
      for (index_t j = 0; j < g.cols; ++j) joint(i, j) /= row_length(g, i) * column_length(g, j);
    CHECK(largest(direction({.order = scaling_order::joint}) - joint) < 1e-12);
  });
  mat g = random_mat(4, 5, 1);
  for (index_t j = 0; j < 5; ++j) g(2, j) = 0;
  const mat w0 = random_mat(4, 5, 2), y = runner<>(reg{.constraint = {.decay = 0}}, w0).update(g);
  CHECK(row_length(y, 2) == 0);
  CHECK(rms(y) == Approx(0.2));
  // A row below the floor is divided by the floor.
  const mat tiny = 1e-12 * random_mat(1, 4, 3);
  using rows_first = rule<ema, row_column_scaling, no_normalizer, decoupled_decay, unit_scale>;
  const mat floored =
      runner<>(rows_first{.momentum = {.beta = 0}, .orthogonalizer = {.eps = 1e-3}}, mat(1, 4)).update(tiny);
  CHECK(largest(floored - 1e6 * tiny) < 1e-13);
}
