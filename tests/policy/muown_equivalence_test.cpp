// Muown and AngularMuown: the equivalences C and the degenerate inputs D of docs/requirements.md.
#include <catch2/catch.hpp>

#include <matopt/muon.hpp>

#include "muown_support.hpp"

using namespace matopt;
using namespace matopt::test;

// --- C ---

TEST_CASE("C1. AngularMuown without its schedule is Muown with r set to 1", "[muown]") {
  const mat w0 = w_start(5, 4);
  stepper<exact> m({}, w0);
  using plain = angular::with_scale<match_rms>;
  stepper<plain> a({.constraint = {.angle_decay_degree = 0}}, w0);
  for (index_t t = 0; t < 40; ++t) {
    auto r = m.state("direction_norm");
    for (index_t i = 0; i < 5; ++i) r(i, 0) = 1;
    REQUIRE(largest(m.step(gradient(5, 4, t), .02) - a.step(gradient(5, 4, t), .02)) < 1e-13);
  }
}

TEST_CASE("C2. a common factor of r and of the direction's rate changes nothing", "[muown]") {
  // The rate of the direction alone is the scale: rms.
  const mat w0 = w_start(5, 4);
  stepper<exact> plain({}, w0), scaled({.scale = {.rms = 0.2 * 3}}, w0);
  auto r = scaled.state("direction_norm");
  for (index_t i = 0; i < 5; ++i) r(i, 0) *= 3;
  for (index_t t = 0; t < 20; ++t)
    REQUIRE(largest(plain.step(gradient(5, 4, t), .02) - scaled.step(gradient(5, 4, t), .02)) < 1e-12);
}

TEST_CASE("C2. r scheduled as 1 / kappa is AngularMuown with kappa, without momentum", "[muown]") {
  const mat w0 = w_start(5, 4);
  stepper<exact> m({.momentum = {.beta = 0}}, w0);
  using plain = angular::with_scale<match_rms>;
  stepper<plain> a(
      {.momentum = {.beta = 0}, .constraint = {.angle_decay_scale = .1, .angle_decay_degree = 1, .angle_warmup = 2}},
      w0);
  for (index_t t = 0; t < 30; ++t) {
    const double kappa = 1 / (1 + .1 * static_cast<double>(std::max<index_t>(0, t - 2)));
    auto r = m.state("direction_norm");
    for (index_t i = 0; i < 5; ++i) r(i, 0) = 1 / kappa;
    REQUIRE(largest(m.step(gradient(5, 4, t), .02) - a.step(gradient(5, 4, t), .02)) < 1e-12);
  }
}

TEST_CASE("C3. with fixed magnitudes it is Muon on the direction", "[muown]") {
  const index_t m = 5, n = 4;
  const mat w0 = w_start(m, n), target = random_mat(m, n, 8);
  const auto gradient_of = [&](const mat& w) { return w - target; };  // of |W - target|^2 / 2
  stepper<exact::with_constraint<weight_normalization<fixed_magnitude>>> constrained({}, w0);
  using free_muon = muon::with_momentum<nesterov_heavy_ball>::with_orthogonalizer<svd_polar>::with_scale<match_rms>;
  stepper<free_muon> direction({}, w0);  // R_0 = W_0: r = g
  mat w = w0, r = w0;
  for (int t = 0; t < 60; ++t) {
    mat lifted(m, n), g = gradient_of(w);
    for (index_t i = 0; i < m; ++i) {
      const double magnitude = row_norm_of(w0, i), length = row_norm_of(r, i);
      double along = 0;
      for (index_t j = 0; j < n; ++j) along += g(i, j) * r(i, j) / length;
      for (index_t j = 0; j < n; ++j) lifted(i, j) = magnitude / length * (g(i, j) - along * r(i, j) / length);
    }
    r = direction.step(lifted, .02);
    w = constrained.step(g, .02);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j)
        REQUIRE(w(i, j) == Approx(row_norm_of(w0, i) * r(i, j) / row_norm_of(r, i)).margin(1e-11));
  }
  for (index_t i = 0; i < m; ++i)
    CHECK(constrained.state("direction_norm")(i, 0) == Approx(row_norm_of(r, i)).epsilon(1e-11));
}

TEST_CASE("C4. a single row: closed forms", "[muown]") {
  const mat w0(1, 3, {0.3, -0.4, 1.2});  // norm 1.3
  const double lr = .02, s = 0.2 * std::sqrt(3.0);
  stepper<exact::with_constraint<weight_normalization<fixed_magnitude>>> m({.momentum = {.beta = 0}}, w0);
  stepper<angular::with_constraint<row_sphere<fixed_magnitude>>> a(
      {.momentum = {.beta = 0}, .constraint = {.angle_decay_degree = 0}}, w0);
  const auto turn = [](const mat& x, const mat& y) {
    return std::acos(std::min(1.0, dot(x, y) / frobenius(x) / frobenius(y)));
  };
  mat before = w0, before_a = w0;
  double r = 1.3;
  for (index_t t = 1; t <= 20; ++t) {
    const mat g = random_mat(1, 3, 40 + static_cast<std::uint64_t>(t));
    const mat w = m.step(g, lr), u = a.step(g, lr);
    CHECK(turn(before, w) == Approx(std::atan(lr * s / r)).epsilon(1e-8));
    r = std::sqrt(1.69 + static_cast<double>(t) * lr * s * lr * s);
    CHECK(m.state("direction_norm")(0, 0) == Approx(r).epsilon(1e-12));
    CHECK(turn(before_a, u) == Approx(std::atan(lr)).epsilon(1e-8));
    before = w, before_a = u;
  }
}

TEST_CASE("C5. row blocks are optimizers of their own; without them the result differs", "[muown]") {
  const mat w0 = w_start(9, 3);
  const mat fused = run(exact{}, w0, .02, 8, {.row_blocks = {3, 3, 3}}), whole = run(exact{}, w0, .02, 8);
  CHECK(largest(fused - whole) > 1e-4);
  for (index_t b = 0; b < 3; ++b) {
    const auto part = [&](const mat& x) {
      return to_mat(row_major(const_cast<double*>(x.a.data()), 9, 3).row_block(3 * b, 3));
    };
    stepper<exact> alone({}, part(w0));
    for (index_t t = 0; t < 8; ++t) alone.step(part(gradient(9, 3, t)), .02);
    CHECK(largest(alone.weight() - part(fused)) == 0);
  }
}

// --- D ---

TEST_CASE("D. zero rows get a direction and keep it", "[muown]") {
  mat w0 = random_mat(6, 8, 1);
  for (index_t j = 0; j < 8; ++j) w0(2, j) = 0;
  const mat g = random_mat(6, 8, 2);
  const auto check = [&]<class Rule>(const Rule& rule, double lr) {
    stepper<Rule> s(rule, w0);
    CHECK(s.state("magnitude")(2, 0) == Approx(std::sqrt(0.33)));
    mat before = s.step(g, lr);
    CHECK(row_norm_of(before, 2) > 0.5);
    for (std::uint64_t t = 0; t < 10; ++t) {
      const mat w = s.step(g + 0.3 * random_mat(6, 8, 10 + t), lr);
      double along = 0;
      for (index_t j = 0; j < 8; ++j) along += w(2, j) * before(2, j);
      const double angle = std::acos(std::min(1.0, along / row_norm_of(w, 2) / row_norm_of(before, 2)));
      CHECK(angle < 2 * 3.1416 / 180);
      CHECK(row_norm_of(w, 2) == Approx(std::abs(s.state("magnitude")(2, 0))));
      before = w;
    }
  };
  check(exact{}, 4e-3);
  check(angular{}, 4e-3);
}

TEST_CASE("D. a magnitude through zero turns no row around", "[muown]") {
  const auto flips = [&]<class Rule>(const Rule& rule) {
    const mat w0 = random_mat(3, 6, 1);
    stepper<Rule> s(rule, w0);
    mat before(3, 6);
    const auto directions = [&](const mat& w) {
      mat d = w;
      for (index_t i = 0; i < 3; ++i)
        for (index_t j = 0; j < 6; ++j) d(i, j) /= s.state("magnitude")(i, 0);
      return d;
    };
    before = directions(w0);
    int turned = 0;
    bool negative = false;
    for (int t = 0; t < 60; ++t) {
      const mat d = directions(s.weight());
      const mat w = s.step(d, .05);  // drives every g down and on below zero
      const mat now = directions(w);
      for (index_t i = 0; i < 3; ++i) {
        double along = 0;
        for (index_t j = 0; j < 6; ++j) along += now(i, j) * before(i, j);
        turned += along < 0;
        negative |= s.state("magnitude")(i, 0) < 0;
        REQUIRE(row_norm_of(w, i) == Approx(std::abs(s.state("magnitude")(i, 0))).margin(1e-12));
      }
      before = now;
    }
    CHECK(negative);
    return turned;
  };
  CHECK(flips(exact{}) == 0);
  CHECK(flips(decayed(.1)) == 0);
  CHECK(flips(decayed(.1, decay_target::magnitude)) == 0);
  CHECK(flips(angular{}) == 0);
}

TEST_CASE("D. a rank-deficient direction: Newton-Schulz and the exact polar agree on its null space", "[muown]") {
  const mat w0 = w_start(4, 6);
  mat g(4, 6);
  for (index_t j = 0; j < 6; ++j) g(0, j) = static_cast<double>(j + 1) - 3;  // one row only
  stepper<exact> a({}, w0);
  stepper<muown> b({.orthogonalizer = {.coefficients = coefficient_set::cubic, .steps = 40}}, w0);
  for (int t = 0; t < 3; ++t) CHECK(largest(a.step(g, .02) - b.step(g, .02)) < 1e-7);
}

TEST_CASE("D. tiny rows in float with decay stay finite", "[muown]") {
  mat w0 = random_mat(4, 6, 1);
  for (index_t j = 0; j < 6; ++j) w0(1, j) *= 1e-19, w0(2, j) = j == 0 ? 1e-30 : 0;
  for (const decay_target on : {decay_target::weight, decay_target::magnitude}) {
    stepper<muown, float> s({.constraint = {.decay = 0.1, .decay_on = on}}, w0);
    for (std::uint64_t t = 0; t < 200; ++t) s.step(random_mat(4, 6, t), .02);
    for (const double x : s.weight().a) REQUIRE(std::isfinite(x));
    CHECK(all_finite(s.state("magnitude")));
    CHECK(all_finite(s.state("direction_norm")));
  }
}

TEMPLATE_TEST_CASE("D. weights and rates that are next to nothing stay finite", "[muown]", float, double) {
  using T = TestType;
  const double tiny = static_cast<double>(std::numeric_limits<T>::min()) / 100;
  for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 1}, {1, 6}, {6, 1}, {4, 7}})
    for (const double size : {0.0, tiny, 1e10 * tiny})
      for (const double lr : {0.0, tiny, 1e-3}) {
        CAPTURE(m, n, size, lr);
        stepper<muown, T> s({}, size * w_start(m, n));
        for (index_t t = 0; t < 4; ++t) CHECK(largest(s.step(gradient(m, n, t), lr)) < 3);
      }
}

TEST_CASE("decay on the magnitude shrinks rows by exactly 1 - lr decay", "[muown]") {
  const mat w0 = w_start(3, 4);
  for (const decay_target on : {decay_target::weight, decay_target::magnitude}) {
    using still = exact::with_constraint<weight_normalization<fixed_magnitude>>;
    stepper<still> s({.constraint = {.decay = 0.5, .decay_on = on}}, w0);
    const mat w = s.step(mat(3, 4), .02);  // once, not twice as in the official data-parallel class
    for (index_t i = 0; i < 3; ++i) CHECK(row_norm_of(w, i) == Approx(0.99 * row_norm_of(w0, i)).epsilon(1e-12));
  }
}

TEMPLATE_TEST_CASE("D. a gradient along its row does not turn the row", "[muown]", float, double) {
  const auto check = [](const auto& rule, index_t m, index_t n, double size) {
    const mat w0 = size * random_mat(m, n, 5);
    stepper<std::decay_t<decltype(rule)>, TestType> s(rule, w0);
    mat w = s.weight();
    for (std::uint64_t t = 0; t < 30; ++t) {
      const mat along = random_mat(m, 1, 40 + t);
      mat g(m, n);
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < n; ++j) g(i, j) = along(i, 0) * w(i, j);
      w = s.step(g, .02);
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < n; ++j) {
          const double magnitude = static_cast<double>(s.state("magnitude")(i, 0));
          REQUIRE(w(i, j) == Approx(magnitude * w0(i, j) / row_norm_of(w0, i)).epsilon(1e-4));
        }
    }
  };
  for (const double size : {.05, 1.}) {
    check(muown{}, 100, 1, size);  // a row of one number has no other direction
    check(muown{}, 9, 6, size);
    check(angular_muown{}, 100, 1, size);
    check(angular_muown{}, 9, 6, size);
  }
}

TEST_CASE("D. weights and gradients whose products no float holds", "[muown]") {
  const mat w0 = random_mat(7, 5, 3);
  stepper<muown> expected({}, w0);
  stepper<muown, float> large({}, 1e25 * w0);
  for (std::uint64_t t = 0; t < 10; ++t) {
    const mat g = random_mat(7, 5, 20 + t);
    const mat w = expected.step(g, .02);
    REQUIRE(frobenius(1e-25 * large.step(1e18 * g, .02e25) - w) < 1e-3);
  }
  // The momentum of AngularMuown is of such products. Its magnitudes are left out: their steps do not grow with them.
  using turned = angular_muown::with_constraint<row_sphere<fixed_magnitude>>;
  struct sizes {
    double of_weights, of_gradients;
  };
  for (const auto& size : {sizes{1, 1e31}, {1e6, 1e31}, {1e25, 1e31}, {1e25, 1e8}, {1e25, 1e14}}) {
    const mat g = random_mat(7, 5, 21);
    stepper<turned> same({}, w0);
    stepper<turned, float> overflowing({}, size.of_weights * w0);
    for (int t = 0; t < 10; ++t) {
      const mat w = overflowing.step(size.of_gradients / largest(g) * g, .02);
      REQUIRE(frobenius((1 / size.of_weights) * w - same.step(g, .02)) < 1e-3);
    }
  }
}
