// The family's momenta and gradient estimators: identities between them, and each formula once more by hand.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/adapnm.hpp>
#include <matopt/lion.hpp>
#include <matopt/mars_adamw.hpp>
#include <matopt/mars_lion.hpp>
#include <matopt/mars_m.hpp>
#include <matopt/muon_mvr.hpp>
#include <matopt/muon_nsr.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/nadamw.hpp>
#include <matopt/namo.hpp>
#include <matopt/namo_d.hpp>
#include <matopt/optax_muon.hpp>
#include <matopt/pnm.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/soap.hpp>

#include "family_support.hpp"

using namespace matopt;
using namespace matopt::test;

// --- quasi-hyperbolic momentum ---

TEST_CASE("quasi-hyperbolic momentum is several others", "[qhm]") {
  const auto same = [](const auto& a, const auto& b) {
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      runner<> x(a, w0), y(b, w0);
      for (std::uint64_t t = 0; t < 5; ++t) {
        const mat g = random_mat(w0.rows, w0.cols, seed + t);
        CHECK(largest(x.update(g) - y.update(g)) < 1e-13);
      }
    });
  };
  using mixed = only<quasi_hyperbolic>;
  for (const double beta : {0.95, 0.6}) {
    same(mixed{.momentum = {.beta = beta, .gamma = 0}}, only<ema>{.momentum = {.beta = beta}});
    same(mixed{.momentum = {.beta = beta, .gamma = 1 - beta}}, only<nesterov_ema>{.momentum = {.beta = beta}});
    same(mixed{.momentum = {.beta = beta, .gamma = 1}}, only<no_momentum>{});
    // MARS without clip: with no gradient before the first, the identity holds from the first step on.
    for (const double gamma : {0.025, 0.4, 1 - beta})
      same(mixed{.momentum = {.beta = beta, .gamma = gamma}},
           only<mars<ema>>{.momentum = {.inner = {.beta = beta}, .gamma = gamma, .clip = false}});
  }
  same(mars_m_efficient{}, mars_m{.momentum = {.clip = false}});
}

// --- MARS ---

namespace {
mat clipped(const mat& c) { return 1 / std::max(1.0, frobenius(c)) * c; }
}  // namespace

TEST_CASE("MARS: the first correction is 1 + kappa times the gradient, and norms above 1 are clipped", "[mars]") {
  const double kappa = 0.025 * 0.95 / 0.05;
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    const mat zero(w0.rows, w0.cols), g = random_mat(w0.rows, w0.cols, seed);
    const mat small = 0.5 / frobenius(g) * g, large = 3 / frobenius(g) * g;
    const only<mars<ema>> clip{}, free{.momentum = {.clip = false}};
    CHECK(largest(runner<>(free, zero).update(large) - 0.05 * (1 + kappa) * large) < 1e-14);
    CHECK(largest(runner<>(clip, zero).update(small) - 0.05 * (1 + kappa) * small) < 1e-14);
    CHECK(largest(runner<>(clip, zero).update(large) - 0.05 / 3 * large) < 1e-14);
  });
}

TEST_CASE("MARS by hand, approximate and exact, with three kinds of momentum", "[mars]") {
  const double kappa = 0.2 * 0.9 / 0.1;
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    const mars<ema> about{.inner = {.beta = 0.9}, .gamma = 0.2};
    const two_gradients<ema> given{.inner = {.beta = 0.9}, .gamma = 0.2};
    const mars<adam_direction> adam{.inner = {.beta1 = 0.9, .beta2 = 0.8, .eps = 0.01}, .gamma = 0.2};
    runner<> a(only<mars<ema>>{.momentum = about}, w0), b(only<two_gradients<ema>>{.momentum = given}, w0);
    runner<> c(mars_adamw{.momentum = adam, .constraint = {.decay = 0.1}}, w0);
    runner<> d(mars_lion{.momentum = about}, w0);
    const mat zero(w0.rows, w0.cols);
    mat last = zero, ma = zero, mb = zero, v = zero, wc = w0, wd = w0;
    for (int t = 1; t < 6; ++t) {
      const auto n = static_cast<std::uint64_t>(t);
      // Some are clipped, others not.
      const mat g = (t % 2 ? 1.0 : 0.1) / root(as_double(w0.rows * w0.cols)) * random_mat(w0.rows, w0.cols, seed + n);
      const mat r = g + 0.1 * random_mat(w0.rows, w0.cols, seed + 50 + n);
      const mat ca = clipped(g + kappa * (g - last)), cb = clipped(g + kappa * (g - (t == 1 ? zero : r)));
      last = g;
      ma = 0.9 * ma + 0.1 * ca, mb = 0.9 * mb + 0.1 * cb, v = 0.8 * v + (1 - 0.8) * squares(ca);
      CHECK(largest(a.update(g) - ma) < 1e-13);
      const mat before = b.weight();
      CHECK(largest(before - b.step(g, r, 1) - mb) < 1e-13);
      const double c1 = 1 - std::pow(0.9, t), c2 = 1 - std::pow(0.8, t);
      wc = (1 - 0.1 * 0.1) * wc -
           0.1 * mapped(ma, v, [&](double m, double s) { return m / c1 / (root(s / c2) + 0.01); });
      CHECK(largest(c.step(g, 0.1) - wc) < 1e-13);
      wd = wd - 0.1 * signs(ma);
      CHECK(largest(d.step(g, 0.1) - wd) < 1e-14);
    }
  });
}

TEST_CASE("MARS keeps a copy of the gradient, not its address", "[mars]") {
  const mat w0 = random_mat(4, 6, 1);
  const auto run = [&](bool fresh_memory) {
    eigen_backend cpu(1);
    stored<double> w(4, 6);
    w.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
    std::vector<std::unique_ptr<stored<double>>> gradients;
    gradients.push_back(std::make_unique<stored<double>>(4, 6));
    any_optimizer<eigen_backend, types<double>> opt(cpu, mars_m{});
    opt.add("w", w.v(), gradients.front()->cv());
    opt.finalize();
    for (std::uint64_t t = 0; t < 5; ++t) {
      if (fresh_memory) {
        gradients.push_back(std::make_unique<stored<double>>(4, 6));
        opt.rebind("w", gradients.back()->cv());
      }
      gradients.back()->fill_random(10 + t, 0.1);
      const auto before = gradients.back()->memory();
      opt.step(0.1);
      CHECK(same_bits(before, gradients.back()->memory()));
    }
    return to_mat(w.cv());
  };
  const mat in_place = run(false);
  CHECK(largest(in_place - run(true)) == 0);
  runner<> without(mars_m{.momentum = {.gamma = 0}}, w0);  // what MARS would be if it compared a gradient with itself
  for (std::uint64_t t = 0; t < 5; ++t) {
    stored<double> g(4, 6);
    g.fill_random(10 + t, 0.1);
    without.step(to_mat(g.cv()), 0.1);
  }
  CHECK(largest(in_place - without.weight()) > 1e-3);
}

TEST_CASE("two gradients: the first reference is not looked at", "[mars]") {
  const mat w0 = random_mat(4, 6, 1);
  const auto check = [&](const auto& rule) {
    runner<> a(rule, w0), b(rule, w0);
    a.step(random_mat(4, 6, 2), mat(4, 6), 0.1), b.step(random_mat(4, 6, 2), 1e6 * random_mat(4, 6, 3), 0.1);
    CHECK(largest(a.weight() - b.weight()) == 0);
    a.step(random_mat(4, 6, 4), mat(4, 6), 0.1), b.step(random_mat(4, 6, 4), random_mat(4, 6, 5), 0.1);
    CHECK(largest(a.weight() - b.weight()) > 1e-4);
  };
  check(mars_m_exact{}), check(muon_mvr2{}), check(muon_storm{}), check(mars_adamw_exact{}), check(mars_lion_exact{});
}

TEST_CASE("two gradients: NaN in a reference skips the step and names the parameter", "[mars]") {
  eigen_backend cpu(1);
  stored<double> w1(3, 4), g1(3, 4), r1(3, 4), w2(5, 2), g2(5, 2), r2(5, 2);
  w1.fill_random(1), w2.fill_random(2);
  any_optimizer<eigen_backend, types<double>> opt(cpu, muon_storm{});
  opt.add("one", w1.v(), g1.cv(), r1.cv());
  opt.add("two", w2.v(), g2.cv(), r2.cv());
  opt.finalize();
  const auto state = [&] {
    std::vector<double> all;
    for (const auto& s : opt.state_tensors()) {
      std::vector<double> one(static_cast<std::size_t>(s.rows * s.cols));
      opt.read_state(s, one.data());
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  };
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()})
    for (const bool first : {true, false}) {
      g1.fill_random(3), g2.fill_random(4), r1.fill_random(5), r2.fill_random(6);
      opt.step(0.1);
      CHECK(opt.poll_status().skipped == 0);
      const auto before1 = w1.memory(), before2 = w2.memory(), kept = state();
      (first ? r1 : r2).v()(2, 1) = bad;
      opt.step(0.1);
      const auto status = opt.poll_status();
      CHECK(status.skipped == 1);
      CHECK(status.parameters == std::vector<std::string>{first ? "one" : "two"});
      CHECK(same_bits(before1, w1.memory()));
      CHECK(same_bits(before2, w2.memory()));
      CHECK(same_bits(kept, state()));
    }
  // A first step that is skipped leaves the reference of the next one unused.
  const mat w0 = random_mat(3, 4, 1);
  runner<> late(muon_storm{}, w0), plain(muon_storm{}, w0);
  late.step(std::nan("") * random_mat(3, 4, 2), mat(3, 4), 0.1);
  CHECK(largest(late.step(random_mat(3, 4, 3), random_mat(3, 4, 4), 0.1) -
                plain.step(random_mat(3, 4, 3), mat(3, 4), 0.1)) == 0);
}

TEST_CASE("STORM by hand, and MVR2 at gamma 1 without clip is it", "[storm]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    only<two_gradients<ema>> estimate;
    estimate.momentum = muon_storm{}.momentum;
    muon_mvr2 mvr;
    mvr.momentum.gamma = 1, mvr.momentum.clip = false, mvr.orthogonalizer.eps = 0;
    muon_storm storm;
    storm.orthogonalizer.eps = 0;
    runner<> a(estimate, w0), b(storm, w0), c(mvr, w0);
    mat m(w0.rows, w0.cols), wb = w0, wc = w0;
    for (std::uint64_t t = 0; t < 5; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + t);
      const mat r = g + 0.1 * random_mat(w0.rows, w0.cols, seed + 100 + t);
      m = t == 0 ? g : g + 0.95 * (m - r);
      const mat before = a.weight(), o = keller(m, 0);
      CHECK(largest(before - a.step(g, r, 1) - m) < 1e-12);
      wb = wb - 0.1 * o, wc = wc - 0.1 * matched(o) * o;
      CHECK(largest(b.step(g, r, 0.1) - wb) < 1e-9);
      CHECK(largest(c.step(g, r, 0.1) - wc) < 1e-9);
    }
  });
}

TEST_CASE("MVR1 by hand", "[storm]") {
  const double kappa = 0.025 * 0.95 / 0.05;
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    runner<> run(muon_mvr1{.constraint = {.decay = 0.1}}, w0);
    mat m(w0.rows, w0.cols), last = m, w = w0;
    for (std::uint64_t t = 0; t < 4; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + t);
      m = 0.95 * m + clipped(g + kappa * (g - last)), last = g;
      w = (1 - 0.05 * 0.1) * w - 0.05 * matched(w) * keller(m);
      CHECK(largest(run.step(g, 0.05) - w) < 1e-10);
    }
  });
}

// --- PNM ---

TEST_CASE("PNM writes its two buffers in turn", "[pnm]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const double keep = 0.81, beta0 = 0.7, norm = root(1.7 * 1.7 + 0.7 * 0.7);
    pnm rule;
    rule.momentum.beta0 = beta0;
    pnm_l2 coupled;
    coupled.momentum.beta0 = beta0, coupled.constraint.decay = 0.3;
    runner<> run(rule, w0), l2(coupled, w0);
    const mat zero(w0.rows, w0.cols);
    std::vector<mat> m{zero, zero}, c{zero, zero};  // m_{-1}, m_0
    mat w = w0, wl = w0;
    for (int t = 1; t < 7; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
      const mat odd = run.state_matrix("odd_momentum"), even = run.state_matrix("even_momentum");
      m.push_back(keep * m[m.size() - 2] + (1 - keep) * g);
      c.push_back(keep * c[c.size() - 2] + (1 - keep) * (g + 0.3 * wl));
      w = w - 0.1 / norm * ((1 + beta0) * m.back() - beta0 * m[m.size() - 2]);
      wl = wl - 0.1 / norm * ((1 + beta0) * c.back() - beta0 * c[c.size() - 2]);
      CHECK(largest(run.step(g, 0.1) - w) < 1e-13);
      CHECK(largest(l2.step(g, 0.1) - wl) < 1e-13);
      const mat odd_after = run.state_matrix("odd_momentum"), even_after = run.state_matrix("even_momentum");
      CHECK((largest(odd_after - odd) > 0) == (t % 2 == 1));
      CHECK((largest(even_after - even) > 0) == (t % 2 == 0));
      CHECK(largest((t % 2 ? odd_after : even_after) - m.back()) < 1e-14);
    }
  });
}

TEST_CASE("AdaPNM by hand, with and without the largest second moment", "[pnm]") {
  for (const bool amsgrad : {true, false})
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      adapnm rule;
      rule.momentum.beta2 = 0.8, rule.momentum.eps = 0.01, rule.momentum.amsgrad = amsgrad;
      rule.constraint.decay = 0.1;
      runner<> run(rule, w0);
      const mat zero(w0.rows, w0.cols);
      std::vector<mat> m{zero, zero};
      mat v = zero, top = zero, w = w0;
      bool differs = false;
      for (int t = 1; t < 7; ++t) {
        const mat g = std::pow(0.3, t) * random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
        m.push_back(0.81 * m[m.size() - 2] + (1 - 0.81) * g);
        const mat d = 1 / root(5) * (2 * m.back() - m[m.size() - 2]);
        v = 0.8 * v + (1 - 0.8) * squares(g);
        top = mapped(top, v, [](double a, double b) { return std::max(a, b); });
        differs = differs || largest(top - v) > 0;
        const double c1 = 1 - std::pow(0.9, t), c2 = 1 - std::pow(0.8, t);
        w = (1 - 0.1 * 0.1) * w - 0.1 / c1 * mapped(d, amsgrad ? top : v, [&](double x, double s) {
                                    return x / (root(s) / root(c2) + 0.01);
                                  });
        CHECK(largest(run.step(g, 0.1) - w) < 1e-13);
      }
      CHECK(differs);  // else amsgrad was not tested
    });
}

// --- Adam and its relatives ---

TEST_CASE("Adam by hand: Nesterov, amsgrad, and both places of eps", "[adam]") {
  for (const bool nesterov : {false, true})
    for (const bool amsgrad : {false, true})
      for (const adam_eps where : {adam_eps::corrected, adam_eps::uncorrected})
        for_shapes([&](const mat& w0, std::uint64_t seed) {
          nadamw rule;
          CHECK(rule.momentum.nesterov);
          rule.momentum = {0.8, 0.9, 0.01, where, nesterov, amsgrad};
          rule.constraint.decay = 0.1;
          runner<> run(rule, w0);
          mat m(w0.rows, w0.cols), v = m, top = m, w = w0;
          for (int t = 1; t < 6; ++t) {
            const mat g = std::pow(0.4, t) * random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
            m = 0.8 * m + (1 - 0.8) * g, v = 0.9 * v + (1 - 0.9) * squares(g);
            top = mapped(top, v, [](double a, double b) { return std::max(a, b); });
            const double c1 = 1 - std::pow(0.8, t), next = 1 - std::pow(0.8, t + 1), c2 = 1 - std::pow(0.9, t);
            const mat first = nesterov ? 0.8 / next * m + (1 - 0.8) / c1 * g : 1 / c1 * m;
            w = (1 - 0.1 * 0.1) * w - 0.1 * mapped(first, amsgrad ? top : v, [&](double x, double s) {
                                        return where == adam_eps::corrected ? x / (root(s / c2) + 0.01)
                                                                            : root(c2) * x / (root(s) + 0.01);
                                      });
            CHECK(largest(run.step(g, 0.1) - w) < 1e-13);
          }
        });
}

TEST_CASE("Lion by hand", "[lion]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    runner<> run(lion{.constraint = {.decay = 0.1}}, w0);
    mat m(w0.rows, w0.cols), w = w0;
    // sign(0) = 0: without a gradient only the decay moves
    w = (1 - 0.1 * 0.1) * w;
    CHECK(largest(run.step(m, 0.1) - w) < 1e-15);
    for (std::uint64_t t = 0; t < 5; ++t) {
      const mat g = (t == 3 ? -0.05 : 1.0) * random_mat(w0.rows, w0.cols, seed);  // where the two means disagree
      w = (1 - 0.1 * 0.1) * w - 0.1 * signs(0.9 * m + 0.1 * g);
      m = 0.99 * m + 0.01 * g;
      CHECK(largest(run.step(g, 0.1) - w) < 1e-14);
      CHECK(largest(run.state_matrix("momentum") - m) < 1e-15);
    }
    runner<> direction(only<lion_momentum>{}, w0);
    const mat g = random_mat(w0.rows, w0.cols, seed + 9);
    CHECK(largest(direction.update(g) - 0.1 * g) < 1e-15);
    CHECK(largest(direction.update(2 * g) - (0.9 * 0.01 + 0.2) * g) < 1e-15);
  });
}

TEST_CASE("a skipped step does not count", "[estimators]") {
  // Neither parities nor corrections nor last gradients move in it.
  const mat w0 = random_mat(4, 5, 1), bad = std::nan("") * w0;
  const auto check = [&](const auto& rule) {
    runner<> plain(rule, w0), skipping(rule, w0);
    for (std::uint64_t t = 0; t < 4; ++t) {
      const mat g = random_mat(4, 5, 10 + t), before = skipping.weight();
      CHECK(largest(skipping.step(bad, 0.1) - before) == 0);
      CHECK(largest(plain.step(g, 0.1) - skipping.step(g, 0.1)) == 0);
    }
    CHECK(skipping.optimizer().poll_status().skipped == 4);
  };
  check(pnm{}), check(adapnm{}), check(adamw{}), check(nadamw{}), check(lion{});
  check(mars_m{}), check(mars_adamw{}), check(mars_m_efficient{}), check(muon_mvr1{});
  check(optax_muon{}), check(muon_nsr{}), check(namo{}), check(namo_d{});
}

// --- SOAP ---

TEST_CASE("SOAP only measures in its first step", "[soap]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    runner<> run(soap{}, w0);
    const mat g = random_mat(w0.rows, w0.cols, seed);
    CHECK(largest(run.step(g, 0.1) - w0) == 0);
    CHECK(largest(run.state_matrix("first_moment")) == 0);
    CHECK(largest(run.state_matrix("left") - 0.05 * (g * transposed(g))) < 1e-13);
    CHECK(largest(run.state_matrix("right") - 0.05 * (transposed(g) * g)) < 1e-13);
    const mat q = run.state_matrix("left_basis"), d = transposed(q) * run.state_matrix("left") * q;
    CHECK(largest(transposed(q) * q - identity(w0.rows)) < 1e-12);
    for (index_t i = 0; i < w0.rows; ++i)
      for (index_t j = 0; j < w0.rows; ++j) {
        if (i != j) CHECK(std::abs(d(i, j)) < 1e-12);
        if (i > 0) CHECK(d(i, i) <= d(i - 1, i - 1) + 1e-12);
      }
    CHECK(largest(run.step(g, 0.1) - w0) > 1e-3);
  });
}

TEST_CASE("SOAP without bases is Adam with decay after the step", "[soap]") {
  for (const bool corrected : {true, false})
    for_shapes([&](const mat& w0, std::uint64_t seed) {
      soap rule;
      rule.momentum.max_precond_dim = 0, rule.momentum.eps = 0.01, rule.momentum.frequency = 2;
      rule.momentum.beta1 = 0.8, rule.momentum.beta2 = 0.9, rule.momentum.correct_bias = corrected;
      rule.constraint.decay = 0.5;
      runner<> run(rule, w0);
      run.step(random_mat(w0.rows, w0.cols, seed), 0.1);
      mat m(w0.rows, w0.cols), v = m, w = w0;
      for (int t = 1; t < 6; ++t) {
        const mat g = random_mat(w0.rows, w0.cols, seed + static_cast<std::uint64_t>(t));
        m = 0.8 * m + (1 - 0.8) * g, v = 0.9 * v + (1 - 0.9) * squares(g);
        const double size = corrected ? root(1 - std::pow(0.9, t)) / (1 - std::pow(0.8, t)) : 1;
        w = w - 0.1 * size * mapped(m, v, [](double x, double s) { return x / (root(s) + 0.01); });
        w = w - 0.1 * 0.5 * w;
        CHECK(largest(run.step(g, 0.1) - w) < 1e-13);
      }
    });
}

TEST_CASE("SOAP does not depend on the signs of its bases", "[soap]") {
  for (const auto [m, n] : {matrix_shape{5, 5}, {4, 6}, {6, 4}}) {
    soap rule;
    rule.momentum.frequency = 2;
    const mat w0 = random_mat(m, n, 1);
    runner<> a(rule, w0), b(rule, w0);
    a.step(random_mat(m, n, 2), 0.1), b.step(random_mat(m, n, 2), 0.1);
    for (const char* side : {"left_basis", "right_basis"}) {
      const auto q = b.state(side);
      for (index_t j = 0; j < q.cols; j += 2)
        for (index_t i = 0; i < q.rows; ++i) q(i, j) = -q(i, j);
    }
    for (std::uint64_t t = 0; t < 6; ++t) {
      const mat g = random_mat(m, n, 10 + t);
      CHECK(largest(a.step(g, 0.1) - b.step(g, 0.1)) < 1e-11);
    }
  }
}

TEST_CASE("SOAP turns with the gradients", "[soap]") {
  const mat p = random_orthonormal(5, 5, 50), r = random_orthonormal(5, 5, 51), w0 = random_mat(5, 5, 1);
  for (const bool sized : {false, true}) {
    soap rule;
    rule.momentum.frequency = 2, rule.momentum.normalize_grads = sized;
    runner<> a(rule, w0), b(rule, p * w0 * r);
    for (std::uint64_t t = 0; t < 7; ++t) {
      const mat g = random_mat(5, 5, 10 + t);
      const mat before = a.weight(), w = a.step(g, 0.1);
      CHECK(largest(b.step(p * g * r, 0.1) - p * w * r) < 1e-10);
      // RMS 1, whatever the bias correction, before the decay
      if (sized && t > 0) CHECK(rms(1 / 0.999 * w - before) == Approx(0.1));
    }
  }
}

TEST_CASE("SOAP by hand, bases renewed", "[soap]") {
  soap rule;
  rule.momentum.frequency = 2, rule.momentum.beta1 = 0.8, rule.momentum.beta2 = 0.9, rule.momentum.eps = 0.01;
  rule.momentum.shampoo_beta = 0.7;
  const mat w0 = random_mat(4, 4, 1), g0 = random_mat(4, 4, 2);
  runner<> run(rule, w0);
  run.step(g0, 0.1);
  mat w = w0, l = 0.3 * (g0 * transposed(g0)), r = 0.3 * (transposed(g0) * g0), m(4, 4), v(4, 4);
  mat ql = naive_svd(l).u, qr = naive_svd(r).u;
  const auto sorted = [](const mat& side, const mat& q) {
    std::vector<std::pair<double, index_t>> order;
    const mat d = transposed(q) * side * q;
    for (index_t i = 0; i < 4; ++i) order.emplace_back(-d(i, i), i);
    std::sort(order.begin(), order.end());
    mat permutation(4, 4);
    for (index_t j = 0; j < 4; ++j) permutation(order[static_cast<std::size_t>(j)].second, j) = 1;
    return permutation;
  };
  bool moved = false;
  for (int t = 1; t < 9; ++t) {
    const mat g = 3 * random_mat(4, 4, 10 + static_cast<std::uint64_t>(t)), in = transposed(ql) * g * qr;
    m = 0.8 * m + (1 - 0.8) * in, v = 0.9 * v + (1 - 0.9) * squares(in);
    const double size = root(1 - std::pow(0.9, t)) / (1 - std::pow(0.8, t));
    const mat u = mapped(m, v, [](double x, double s) { return x / (root(s) + 0.01); });
    w = 0.999 * (w - 0.1 * size * (ql * u * transposed(qr)));
    l = 0.7 * l + 0.3 * (g * transposed(g)), r = 0.7 * r + 0.3 * (transposed(g) * g);
    if (t % 2 == 0) {
      const mat still = ql * m * transposed(qr), pl = sorted(l, ql), pr = sorted(r, qr);
      moved = moved || largest(pl - identity(4)) > 0 || largest(pr - identity(4)) > 0;
      v = transposed(pl) * v * pr;
      ql = orthonormal(l * (ql * pl)), qr = orthonormal(r * (qr * pr));
      m = transposed(ql) * still * qr;
    }
    CHECK(largest(run.step(g, 0.1) - w) < 1e-11);
  }
  CHECK(moved);  // else the sorting was not tested
}
