// Muown and AngularMuown: the golden values A and the invariants B of docs/requirements.md; equivalences C and
// degenerate inputs D are in muown_equivalence_test.cpp.
#include <catch2/catch.hpp>

#include "muown_support.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {
mat permuted_rows(const mat& x) {
  mat y = x;
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t j = 0; j < x.cols; ++j) y((i + 1) % x.rows, j) = x(i, j);
  return y;
}
}  // namespace

// --- A ---

TEST_CASE("A. golden values of the specification", "[muown]") {
  const auto check = [](const mat& w, double first, double last, double norm) {
    CHECK(w(0, 0) == Approx(first).margin(1e-10));
    CHECK(w(w.rows - 1, w.cols - 1) == Approx(last).margin(1e-10));
    CHECK(frobenius(w) == Approx(norm).margin(1e-10));
  };
  check(run(exact{}, w_start(3, 4), .02, 1), -.434759104509, .567397763753, 1.398576401904);
  check(run(exact{}, w_start(3, 4), .02, 10), -.355383405144, .557901368987, 1.283355979931);
  check(run(exact{}, w_start(5, 3), .02, 10), -.403129731445, .428264158514, 1.372740615859);
  check(run(exact{}, w_start(6, 2), .02, 10, {.row_blocks = {2, 2, 2}}), -.355200973054, -.561542403877,
        1.288390358345);
  check(run(exact::with_momentum<heavy_ball>{}, w_start(3, 4), .02, 10), -.352214879853, .553755557421, 1.283569808653);
  check(run(decayed(.1), w_start(3, 4), .02, 10), -.347499641939, .547026125780, 1.256949527667);
  check(run(exact::with_constraint<weight_normalization<sgd_magnitude>>{}, w_start(3, 4), .02, 10), -.417208044834,
        .563888615493, 1.371112217268);
  const angular warm{.constraint = {.angle_decay_scale = .1, .angle_decay_degree = 1, .angle_warmup = 2}};
  check(run(warm, w_start(3, 4), .04, 10), -.236861747223, .555955204029, 1.164139024777);
  check(run(warm, w_start(5, 3), .04, 10), -.284353273593, .399827562829, 1.256624769980);
  check(run(muown{}, w_start(3, 4), .02, 10), -.354839409771, .559729555042, 1.283341870763);
  check(run(angular_muown{}, w_start(3, 4), .04, 10), -.225782102567, .547868416937, 1.163082722328);
}

TEST_CASE("A. a zero row", "[muown]") {
  mat w0 = w_start(4, 3);
  for (index_t j = 0; j < 3; ++j) w0(2, j) = 0;
  stepper<angular> s({}, w0);
  for (index_t t = 0; t < 3; ++t) s.step(gradient(4, 3, t), .04);
  const mat w = s.weight();
  for (index_t j = 0; j < 3; ++j)
    CHECK(w(2, j) == Approx(std::array{-.2100588, -.46692757, -.04776094}[static_cast<std::size_t>(j)]).margin(1e-7));
  const auto g = s.state("magnitude");
  for (index_t i = 0; i < 4; ++i)
    CHECK(g(i, 0) ==
          Approx(std::array{.72467782, .55235843, .51422482, .76966439}[static_cast<std::size_t>(i)]).margin(1e-7));
}

// --- B ---

TEMPLATE_TEST_CASE("B1. row norms are the magnitudes after every step", "[muown]", float, double) {
  const double limit = std::is_same_v<TestType, float> ? 1e-5 : 1e-13;
  const auto check = [&]<class Rule>(const Rule& rule) {
    const mat w0 = random_mat(7, 9, 3);
    stepper<Rule, TestType> s(rule, w0);
    for (std::uint64_t t = 0; t < 30; ++t) {
      const mat& w = s.step(random_mat(7, 9, 20 + t), 0.02);
      for (index_t i = 0; i < 7; ++i)
        REQUIRE(row_norm_of(w, i) == Approx(std::abs(static_cast<double>(s.state("magnitude")(i, 0)))).epsilon(limit));
    }
  };
  check(muown{});
  check(muown{.constraint = {.decay = 0.1}});
  check(muown{.constraint = {.decay = 0.1, .decay_on = decay_target::magnitude}});
  check(angular_muown{});
}

TEST_CASE("B2, B5. the direction gradient is tangent, and magnitude and direction are independent", "[muown]") {
  // One step with SGD magnitudes and the buffer read back: M = grad_R, g' = g - lr grad_g.
  using sgd = exact::with_constraint<weight_normalization<sgd_magnitude>>;
  const mat w0 = random_mat(5, 7, 1), g = random_mat(5, 7, 2);
  const auto gradients = [&](const mat& gradient) {
    stepper<sgd> s({}, w0);
    s.step(gradient, 1e-3);
    mat r = to_mat(s.state("momentum")), d(5, 1);
    for (index_t i = 0; i < 5; ++i) d(i, 0) = (row_norm_of(w0, i) - s.state("magnitude")(i, 0)) / 1e-3;
    return std::pair{r, d};
  };
  const auto [r, d] = gradients(g);
  double energy = 0;
  for (index_t i = 0; i < 5; ++i) {
    double along = 0;
    for (index_t j = 0; j < 7; ++j) along += r(i, j) * w0(i, j) / row_norm_of(w0, i);
    CHECK(std::abs(along) <= 1e-13 * row_norm_of(r, i));
    energy += d(i, 0) * d(i, 0) + row_norm_of(r, i) * row_norm_of(r, i);  // r / g = 1 in the first step
  }
  CHECK(energy == Approx(dot(g, g)).epsilon(1e-9));

  mat shifted = g;
  for (index_t i = 0; i < 5; ++i)
    for (index_t j = 0; j < 7; ++j) shifted(i, j) += static_cast<double>(i + 1) * w0(i, j) / row_norm_of(w0, i);
  const auto [r2, d2] = gradients(shifted);
  CHECK(largest(r2 - r) < 1e-13);
  for (index_t i = 0; i < 5; ++i) CHECK(d2(i, 0) - d(i, 0) == Approx(static_cast<double>(i + 1)).epsilon(1e-8));
  const auto [r3, d3] = gradients(g + 2.0 * r);  // a tangent change
  CHECK(largest(d3 - d) < 1e-9);
  CHECK(largest(r3 - 3.0 * r) < 1e-12);
}

TEST_CASE("B3. chain rule, with magnitudes of both signs", "[muown]") {
  // L(W) = <A, W> + |W - B|^2 / 2 + sum sin W
  const mat a = random_mat(5, 7, 1), b = random_mat(5, 7, 2), start = random_mat(5, 7, 3);
  const auto loss = [&](const mat& w) {
    double l = dot(a, w) + dot(w - b, w - b) / 2;
    for (const double x : w.a) l += std::sin(x);
    return l;
  };
  mat magnitude(5, 1);
  for (index_t i = 0; i < 5; ++i) magnitude(i, 0) = (i % 2 ? -1 : 1) * (0.5 + 0.2 * static_cast<double>(i));
  const auto weight = [&](const mat& g, const mat& r) {
    mat w = r;
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < 7; ++j) w(i, j) *= g(i, 0) / row_norm_of(r, i);
    return w;
  };
  const mat direction = 2.0 * start, w = weight(magnitude, direction);
  mat grad = a + (w - b);
  for (std::size_t i = 0; i < grad.a.size(); ++i) grad.a[i] += std::cos(w.a[i]);
  using sgd = exact::with_constraint<weight_normalization<sgd_magnitude>>;
  stepper<sgd> s({}, w);
  for (index_t i = 0; i < 5; ++i) {
    s.state("magnitude")(i, 0) = magnitude(i, 0);
    s.state("direction_norm")(i, 0) = row_norm_of(direction, i);
  }
  s.step(grad, 1);
  const mat lifted = to_mat(s.state("momentum"));
  const double h = 1e-6;
  for (index_t i = 0; i < 5; ++i) {
    mat up = magnitude, down = magnitude;
    up(i, 0) += h, down(i, 0) -= h;
    const double moved = magnitude(i, 0) - s.state("magnitude")(i, 0);
    CHECK(moved == Approx((loss(weight(up, direction)) - loss(weight(down, direction))) / (2 * h)).margin(1e-7));
    for (index_t j = 0; j < 7; ++j) {
      mat plus = direction, minus = direction;
      plus(i, j) += h, minus(i, j) -= h;
      CHECK(lifted(i, j) ==
            Approx((loss(weight(magnitude, plus)) - loss(weight(magnitude, minus))) / (2 * h)).margin(1e-7));
    }
  }
}

TEST_CASE("B4. spectral norm = largest magnitude times row coherence", "[muown]") {
  // Directions and magnitudes come from the step's equations, run here; only the weight is the library's.
  const index_t m = 6, n = 9;
  const double lr = 0.02, mu = 0.95;
  mat w0 = random_mat(m, n, 1);
  for (index_t j = 0; j < n; ++j) w0(2, j) *= 0.2;
  stepper<exact> s({}, w0);
  mat r = w0, buffer(m, n), g(m, 1), first(m, 1), second(m, 1), w = w0;
  for (index_t i = 0; i < m; ++i) g(i, 0) = row_norm_of(w0, i);
  const auto unit_rows = [&](mat d) {
    for (index_t i = 0; i < m; ++i) {
      const double length = row_norm_of(d, i);
      for (index_t j = 0; j < n; ++j) d(i, j) /= length;
    }
    return d;
  };
  for (int t = 1; t <= 60; ++t) {
    const mat gradient = random_mat(m, n, 10 + static_cast<std::uint64_t>(t));
    const mat d = unit_rows(r);
    mat lifted(m, n), pushed = gradient;
    for (index_t j = 0; j < n; ++j) pushed(2, j) += d(2, j);  // drives this magnitude down and on below zero
    for (index_t i = 0; i < m; ++i) {
      double along = 0;
      for (index_t j = 0; j < n; ++j) along += pushed(i, j) * d(i, j);
      for (index_t j = 0; j < n; ++j) lifted(i, j) = g(i, 0) / row_norm_of(r, i) * (pushed(i, j) - along * d(i, j));
      first(i, 0) = 0.9 * first(i, 0) + 0.1 * along;
      second(i, 0) = 0.95 * second(i, 0) + 0.05 * along * along;
    }
    buffer = mu * buffer + lifted;
    r = r - lr * 0.2 * std::sqrt(static_cast<double>(n)) * top_k_polar(lifted + mu * buffer, m);
    for (index_t i = 0; i < m; ++i)
      g(i, 0) -= lr * first(i, 0) / (1 - std::pow(0.9, t)) / (std::sqrt(second(i, 0) / (1 - std::pow(0.95, t))) + 1e-8);
    w = s.step(pushed, lr);

    double top = 0;
    for (index_t i = 0; i < m; ++i) top = std::max(top, std::abs(g(i, 0)));
    mat scaled = unit_rows(r);  // P D, so that P C P = (P D) (P D)^T
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) scaled(i, j) *= std::abs(g(i, 0)) / top;
    const double coherence = std::sqrt(spectral_norm(scaled * transposed(scaled)));
    REQUIRE(spectral_norm(w) == Approx(top * coherence).epsilon(1e-10));
    REQUIRE(coherence >= 1 - 1e-12);
    REQUIRE(coherence <= std::sqrt(6.0));
  }
  CHECK(g(2, 0) < 0);  // and the sign of a magnitude does not matter
}

TEST_CASE("B6. momentum conventions", "[muown]") {
  // Both without Nesterov, and with it, a mean is a sum up to a factor, and the polar factor drops that.
  const mat w0 = w_start(4, 6);
  CHECK(largest(run(exact::with_momentum<ema>{}, w0, .02, 8) - run(exact::with_momentum<heavy_ball>{}, w0, .02, 8)) <
        1e-11);
  CHECK(largest(run(exact::with_momentum<nesterov_ema>{}, w0, .02, 8) - run(exact{}, w0, .02, 8)) < 1e-11);
}

TEST_CASE("B7. what the step commutes with", "[muown]") {
  const mat w0 = random_mat(5, 7, 1), q = random_orthonormal(7, 7, 2), p = random_orthonormal(5, 5, 3);
  const auto trajectory = [&]<class Rule>(const Rule& rule, auto map) {
    stepper<Rule> s(rule, map(w0));
    for (std::uint64_t t = 0; t < 5; ++t) s.step(map(random_mat(5, 7, 10 + t)), .02);
    return s.weight();
  };
  const auto same = [](const mat& x) { return x; };
  const auto check = [&]<class Rule>(const Rule& rule) {
    const mat plain = trajectory(rule, same);
    CHECK(largest(trajectory(rule, [&](const mat& x) { return x * q; }) - plain * q) < 1e-11);
    CHECK(largest(trajectory(rule, permuted_rows) - permuted_rows(plain)) < 1e-11);
    CHECK(largest(trajectory(rule, [&](const mat& x) { return p * x; }) - p * plain) > 1e-3);  // rows are special
  };
  check(exact{});
  check(angular{});
}
