// The directions of the family that are not Newton-Schulz, the problems that its rules solve, and published defaults.
#include <catch2/catch.hpp>

#include <matopt/adamuon.hpp>
#include <matopt/dion.hpp>
#include <matopt/lion.hpp>
#include <matopt/lion_k.hpp>
#include <matopt/luon.hpp>
#include <matopt/mars_m.hpp>
#include <matopt/mars_shampoo.hpp>
#include <matopt/moonlight.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_mvr.hpp>
#include <matopt/muon_nsr.hpp>
#include <matopt/muon_plus.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/muon_vs.hpp>
#include <matopt/namo.hpp>
#include <matopt/namo_d.hpp>
#include <matopt/normuon.hpp>
#include <matopt/optax_muon.hpp>
#include <matopt/polargrad.hpp>
#include <matopt/policy/normalizer/target_rms.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/reg.hpp>
#include <matopt/scion.hpp>
#include <matopt/soap.hpp>
#include <matopt/torch_muon.hpp>

#include "family_support.hpp"
#include "support/orthogonalize.hpp"
#include "support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

using exact_muon = muon::with_orthogonalizer<svd_polar>;

// --- lines and signs ---

TEST_CASE("lines: columns of norm sqrt(m), rows of norm 1 / sqrt(n), zero stays zero, sign(0) = 0", "[directions]") {
  for (const auto [m, n] : family_shapes) {
    mat x = random_mat(m, n, 5);
    const mat columns = orthogonalized(column_direction{}, x), rows = orthogonalized(row_direction{}, x),
              unit = orthogonalized(row_direction{.root_mean_square = false}, x);
    for (index_t j = 0; j < n; ++j) CHECK(column_length(columns, j) == Approx(root(as_double(m))).epsilon(1e-6));
    for (index_t i = 0; i < m; ++i) {
      CHECK(row_length(rows, i) == Approx(1 / root(as_double(n))).epsilon(1e-6));
      CHECK(row_length(unit, i) == Approx(1).epsilon(1e-6));
    }
    // where eps sits
    const double eps = 0.3, root_m = root(as_double(m)), root_n = root(as_double(n));
    CHECK(largest(orthogonalized(column_direction{.eps = eps}, x) -
                  by_column(x, [&](double l) { return 1 / (l / root_m + eps); })) < 1e-13);
    CHECK(largest(orthogonalized(row_direction{.eps = eps}, x) -
                  by_row(x, [&](double l) { return 1 / (l * root_n + eps); })) < 1e-13);

    for (index_t j = 0; j < n; ++j) x(0, j) = 0;
    CHECK(row_length(orthogonalized(row_direction{}, x), 0) == 0);
    CHECK(column_length(orthogonalized(column_direction{}, 0.0 * x), 0) == 0);
    CHECK(largest(orthogonalized(sign_direction{}, x) - signs(x)) == 0);
  }
}

TEST_CASE("target_rms gives every update its size", "[directions]") {
  using sized = muon::with_normalizer<target_rms>::with_scale<unit_scale>;
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const mat g = random_mat(w0.rows, w0.cols, seed), zero(w0.rows, w0.cols),
              o = keller(0.05 * 1.95 * g, negligible_norm);
    const mat y = runner<>(sized{.normalizer = {.rms = 0.3}}, zero).update(g);
    CHECK(largest(y - 0.3 / rms(o) * o) < 1e-12);
  });
}

// --- PolarGrad ---

TEST_CASE("PolarGrad steps by the nuclear norm times the polar factor", "[polargrad]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    runner<> run(polargrad{}, w0), first(polargrad_polar_first{}, w0), several(polargrad_qdwh{}, w0);
    mat m(w0.rows, w0.cols), mp = m, w = w0, wp = w0;
    for (std::uint64_t t = 0; t < 3; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + t), p = polar(g);
      m = 0.95 * m + 0.05 * g, mp = 0.95 * mp + 0.05 * p;
      w = w - 0.1 * nuclear_norm(m) * polar(m), wp = wp - 0.1 * nuclear_norm(g) * mp;
      CHECK(largest(run.step(g, 0.1) - w) < 1e-11);
      CHECK(largest(first.step(g, 0.1) - wp) < 1e-11);
      CHECK(largest(several.step(g, 0.1) - w) < 0.05 * 0.1 * as_double(static_cast<index_t>(t) + 1) * nuclear_norm(g));
    }
  });
}

// --- QDWH ---

TEST_CASE("QDWH: what 2, 3 and 4 steps from float's bound leave of the singular values", "[qdwh]") {
  for (const auto [m, n] : {matrix_shape{12, 12}, {20, 12}, {12, 20}}) {
    std::vector<double> s;
    for (int i = 0; i < 12; ++i) s.push_back(std::pow(10.0, -0.5 * i));  // down to 3e-6
    const mat x = with_spectrum(m, n, s, 3);
    const auto off = [&](index_t steps) {
      const auto left = singular_values(orthogonalized(qdwh_polar{.steps = steps}, x));
      CHECK(left.front() < 1 + 1e-5);
      return 1 - left.back();
    };
    CHECK(off(2) > 0.05);
    CHECK(off(2) < 0.28);
    CHECK(off(3) > 1e-6);
    CHECK(off(3) < 3e-5);
    CHECK(std::abs(off(4)) < 1e-13);
    CHECK(largest(orthogonalized(qdwh_polar{}, x) - orthogonalized(svd_polar{}, x)) < 1e-10);
    // From a bound that fits double, two steps are of no use.
    const auto useless = singular_values(orthogonalized(qdwh_polar{.steps = 2, .lower = 2.2e-16}, x));
    CHECK(useless.back() < 0.5);
  }
}

TEMPLATE_TEST_CASE("QDWH: well-conditioned, huge, tiny, rank-deficient and zero input", "[qdwh]", float, double) {
  const double limit = std::is_same_v<TestType, float> ? 1e-5 : 1e-12;
  const double far = std::is_same_v<TestType, float> ? 1e18 : 1e150;
  for (const auto [m, n] : family_shapes) {
    const mat x = random_mat(m, n, 5), p = polar(x);
    for (const double size : {1.0, far, 1 / far})
      CHECK(largest(orthogonalized<TestType>(qdwh_polar{}, size * x) - p) < 100 * limit);
    CHECK(largest(orthogonalized<TestType>(qdwh_polar{}, 0.0 * x)) == 0);
    const mat flat = random_mat(m, 1, 6) * random_mat(1, n, 7);
    const mat y = orthogonalized<TestType>(qdwh_polar{}, flat);
    CHECK(all_finite(mat(y).v()));
    CHECK(dot(y, top_k_polar(flat, 1)) == Approx(1).epsilon(100 * limit));
    CHECK(spectral_norm(y) < 1 + 100 * limit);
  }
}

TEST_CASE("QDWH of floats gives what it gives of doubles", "[qdwh]") {
  for (const auto [m, n] : {matrix_shape{40, 40}, {70, 40}, {40, 70}})
    // Beyond c = 1e10, which the other bounds ask for, Q comes from reflections.
    for (const double lower : {1.1920928955078125e-07, 1e-13, 1e-18}) {
      std::vector<double> graded, deficient;
      for (int i = 0; i < 40; ++i) graded.push_back(std::pow(10.0, -0.05 * i)), deficient.push_back(i < 20 ? 1 : 0);
      const mat x = with_spectrum(m, n, graded, 3), few = with_spectrum(m, n, deficient, 3);
      stored<float> rounded(m, n);
      rounded.fill([&](index_t i, index_t j, index_t) { return x(i, j); });
      for (const index_t steps : {1, 2, 3, 4}) {
        CAPTURE(m, n, steps, lower);
        const qdwh_polar q{.steps = steps, .lower = lower};
        CHECK(largest(orthogonalized<float>(q, x) - orthogonalized(q, to_mat(rounded.cv()))) < 2e-5);
      }
      // Directions that a matrix lacks, but for rounding, grow to 1 at most and spoil no other. Equal columns are told apart
      // by the unit matrix below them alone, which a factor in double loses beyond c = 1e16.
      mat equal(m, n);
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < n; ++j) equal(i, j) = 1 / std::sqrt(static_cast<double>(m * n));
      for (const auto& [deficient_one, rank] : {std::pair{few, 20}, {equal, 1}}) {
        const mat y = orthogonalized<float>(qdwh_polar{.lower = lower}, deficient_one);
        CHECK(spectral_norm(y) < 1 + 1e-5);
        CHECK(dot(y, deficient_one) == Approx(rank).epsilon(1e-5));
      }
    }
}

// --- Dion ---

namespace {
struct dion_by_hand {
  mat m, q;
  double mu;
  bool flip;
  int iterations;
  mat update(const mat& g) {
    m = m + g;
    const mat b = flip ? transposed(m) : m;
    mat p, r, from = q;
    for (int i = 0; i < iterations; ++i) p = orthonormal(b * from), r = from = transposed(b) * p;
    const mat kept = (1 - mu) * (p * transposed(r));
    m = m - (flip ? transposed(kept) : kept);
    q = by_column(r, [](double n) { return 1 / (n + 1e-8); });
    const mat u = p * transposed(q);
    return flip ? transposed(u) : u;
  }
};
}  // namespace

TEST_CASE("Dion: update, error feedback and basis by an independent computation", "[dion]") {
  const auto check = [](dion rule, bool may_flip) {
    for (const auto [m, n] : {matrix_shape{6, 6}, {5, 8}, {8, 5}, {1, 6}, {6, 1}}) {
      const mat w0 = random_mat(m, n, 1);
      runner<> run(rule, w0);
      const bool flip = may_flip && m < n;
      dion_by_hand hand{mat(m, n), run.state_matrix("dion_basis"), rule.orthogonalizer.mu, flip,
                        static_cast<int>(rule.orthogonalizer.power_iterations)};
      REQUIRE(hand.q.rows == (flip ? m : n));
      mat w = w0;
      for (std::uint64_t t = 0; t < 4; ++t) {
        const mat g = random_mat(m, n, 10 + t);
        w = (1 - 0.1 * 0.01) * w - 0.1 * root(as_double(m) / as_double(n)) * hand.update(g);
        CHECK(largest(run.step(g, 0.1) - w) < 1e-11);
        CHECK(largest(run.state_matrix("dion_momentum") - hand.m) < 1e-12);
      }
    }
  };
  check({}, true);
  check({.orthogonalizer = {.mu = 0.8, .rank_fraction = 0.5}}, true);
  check({.orthogonalizer = {.rank_fraction = 0.5, .power_iterations = 3}}, true);
  check({.orthogonalizer = {.rank_fraction = 0.6, .transpose = dion_transpose::never}}, false);
}

TEST_CASE("Dion does not depend on the signs of its basis", "[dion]") {
  for (const auto [m, n] : {matrix_shape{6, 6}, {5, 8}, {8, 5}}) {
    const dion rule{.orthogonalizer = {.rank_fraction = 0.7}};
    const mat w0 = random_mat(m, n, 1);
    runner<> a(rule, w0), b(rule, w0);
    for (std::uint64_t t = 0; t < 4; ++t) {
      const auto q = b.state("dion_basis");
      for (index_t j = 0; j < q.cols; j += 2)
        for (index_t i = 0; i < q.rows; ++i) q(i, j) = -q(i, j);
      const mat g = random_mat(m, n, 10 + t);
      CHECK(largest(a.step(g, 0.1) - b.step(g, 0.1)) < 1e-12);
    }
  }
}

TEST_CASE("Dion: a fixed gradient leads to its polar factor", "[dion]") {
  const mat g = with_spectrum(8, 8, {3, 2.5, 2, 1.6, 1.3, 1, 0.7, 0.4}, 3), p = polar(g);
  runner<> run(dion{.constraint = {.decay = 0}}, mat(8, 8));
  std::vector<double> off;
  for (int t = 0; t < 40; ++t) off.push_back(frobenius(run.update(g) - p));
  CHECK(off[0] > 0.05);
  CHECK(off[4] < 0.7 * off[0]);
  CHECK(off[19] < 0.3 * off[4]);
  CHECK(off[39] < 0.3 * off[19]);
}

TEST_CASE("Dion: a direction that the input lacks comes back", "[dion]") {
  // The first gradient has rank 1, the second the other directions; the basis keeps a full rank.
  const mat w0 = random_mat(5, 5, 1);
  runner<> run(dion{}, w0);
  run.step(random_mat(5, 1, 2) * random_mat(1, 5, 3), 0.1);
  for (index_t j = 0; j < 5; ++j) CHECK(column_length(run.state_matrix("dion_basis"), j) > 0.5);
  run.step(mat(5, 5), 0.1);
  run.step(random_mat(5, 5, 4), 0.1);
  CHECK(all_finite(run.weight().v()));
  runner<> zero(dion{}, w0);
  CHECK(largest(zero.step(mat(5, 5), 0.1) - (1 - 0.001) * w0) < 1e-15);
}

TEST_CASE("Dion: the rank is rounded up to a multiple, and is not more than the matrix has", "[dion]") {
  const auto rank = [](double fraction, index_t multiple, index_t m, index_t n) {
    return dion_polar{.rank_fraction = fraction, .rank_multiple = multiple}.rank(m, n);
  };
  CHECK(rank(1, 1, 6, 9) == 6);
  CHECK(rank(0.5, 1, 7, 9) == 4);
  CHECK(rank(0.5, 4, 10, 20) == 8);
  CHECK(rank(0.25, 8, 64, 32) == 8);
  CHECK(rank(0.26, 8, 64, 32) == 16);
  CHECK(rank(0.5, 16, 10, 20) == 10);
  CHECK(rank(0.01, 1, 10, 20) == 1);
  CHECK(rank(0.3, 1, 10, 20) == 3);  // 0.3 * 10 is 3.0000000000000004 or not
}

// --- Lion-K ---

namespace {
double largest_entry(const mat& x) { return largest(x); }
double longest_row(const mat& x) {
  double n = 0;
  for (index_t i = 0; i < x.rows; ++i) n = std::max(n, row_length(x, i));
  return n;
}
double sum_of_entries(const mat& x) {
  double s = 0;
  for (const double e : x.a) s += std::abs(e);
  return s;
}

// Each step contracts the distance from the ball, and a constant gradient leads to the ball's solution at the rate
// 1 - lr decay.
template <class Rule, class Norm, class Dual, class Direction>
void check_ball(const Rule& rule, double lr, double decay, Norm norm, Dual dual, Direction direction) {
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    const double s = rule.scale.factor(w0.rows, w0.cols), radius = feasible_radius(rule, w0.rows, w0.cols);
    REQUIRE(radius == Approx(s / decay));
    for (const double size : {0.1, 50.0}) {
      runner<> run(rule, size * w0);
      for (std::uint64_t t = 0; t < 30; ++t) {
        const double before = norm(run.weight());
        const mat w = run.step(random_mat(w0.rows, w0.cols, seed + t), lr);
        CHECK(norm(w) - radius <= (1 - lr * decay) * (before - radius) + 1e-12 * (radius + before));
      }
    }
    const mat g = random_mat(w0.rows, w0.cols, seed + 77), end = -radius * direction(g);
    runner<> run(rule, w0);
    for (int t = 1; t < 20; ++t) {
      const mat w = run.step(g, lr);
      CHECK(largest(w - end - std::pow(1 - lr * decay, t) * (w0 - end)) < 1e-11 * (radius + 1));
    }
    CHECK(std::abs(frank_wolfe_gap(dual(g), dot(g, end), radius)) < 1e-11 * dual(g));
    const mat inside = 0.9 * radius / norm(w0) * w0;
    CHECK(frank_wolfe_gap(dual(g), dot(g, inside), radius) > 0);
    CHECK(frank_wolfe_gap(dual(g), dot(g, -1.0 * end), radius) == Approx(2 * dual(g)));
  });
}
}  // namespace

TEST_CASE("Lion-K: each rule with decay solves the problem on its ball", "[lion_k]") {
  check_ball(exact_muon{.constraint = {.decay = 0.5}}, 0.2, 0.5, spectral_norm, nuclear_norm, polar);
  check_ball(exact_muon::with_scale<match_rms>{.constraint = {.decay = 0.5}}, 0.2, 0.5, spectral_norm, nuclear_norm,
             polar);
  check_ball(exact_muon::with_momentum<lion_momentum>{.constraint = {.decay = 0.5}}, 0.2, 0.5, spectral_norm,
             nuclear_norm, polar);
  check_ball(lion{.constraint = {.decay = 0.5}}, 0.2, 0.5, largest_entry, sum_of_entries, signs);
  const auto sum_of_rows = [](const mat& x) {
    double s = 0;
    for (index_t i = 0; i < x.rows; ++i) s += row_length(x, i);
    return s;
  };
  using rows = lion::with_orthogonalizer<row_direction>;
  check_ball(rows{.orthogonalizer = {.eps = 1e-15, .root_mean_square = false}, .constraint = {.decay = 0.5}}, 0.2, 0.5,
             longest_row, sum_of_rows, [](const mat& x) { return by_row(x, [](double n) { return 1 / n; }); });
}

TEST_CASE("Lion-K: Newton-Schulz stays in a ball that is larger by its overshoot", "[lion_k]") {
  const muon rule{.constraint = {.decay = 0.5}};
  for_shapes([&](const mat& w0, std::uint64_t seed) {
    const double radius = 1.21 * feasible_radius(rule, w0.rows, w0.cols);
    runner<> run(rule, 0.1 * w0);
    for (std::uint64_t t = 0; t < 40; ++t)
      CHECK(spectral_norm(run.step(random_mat(w0.rows, w0.cols, seed + t % 3), 0.3)) <= radius);
  });
}

TEST_CASE("Lion-K: radii", "[lion_k]") {
  const double none = std::numeric_limits<double>::infinity();
  CHECK(feasible_radius(muon{}, 8, 2) == none);
  CHECK(feasible_radius(muon{.constraint = {.decay = 0.5}}, 8, 2) == Approx(4));
  CHECK(feasible_radius(moonlight{}, 9, 4) == Approx(6));
  CHECK(feasible_radius(lion{.constraint = {.decay = 0.25}}, 8, 2) == Approx(4));
  CHECK(feasible_radius(scion{}, 8, 2) == Approx(100));
  CHECK(feasible_radius(scion_sign{}, 8, 2) == Approx(1500));
  scion free;
  free.constraint.constrained = false;
  CHECK(feasible_radius(free, 8, 2) == none);
}

// --- Scion ---

TEST_CASE("Scion: constrained weights stay in the ball, others leave it", "[scion]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    const double m = as_double(w0.rows), n = as_double(w0.cols);
    const auto farthest = [&](auto rule, auto norm, bool constrained) {
      rule.constraint.radius = 2, rule.constraint.constrained = constrained;
      runner<> run(rule, mat(w0.rows, w0.cols));
      double far = 0;
      for (std::uint64_t t = 0; t < 30; ++t)
        far = std::max(far, norm(run.step(random_mat(w0.rows, w0.cols, seed), 0.3)));
      return far;
    };
    const auto column = [](const mat& x) { return longest_row(transposed(x)); };
    using exact = scion::with_orthogonalizer<svd_polar>;
    for (const bool constrained : {true, false}) {
      const auto ball = [&](double far, double radius) {
        CHECK((far <= radius * (1 + 1e-9)) == constrained);
        CHECK(far > 0.99 * radius);  // a constant gradient reaches the boundary
      };
      ball(farthest(exact{}, spectral_norm, constrained), 2 * root(m / n));
      ball(farthest(scion_sign{}, largest_entry, constrained), 2 / n);
      ball(farthest(scion_column{}, column, constrained), 2 * root(m) / n);
      ball(farthest(scion_row{}, longest_row, constrained), 2 / root(n));
    }
  });
}

TEST_CASE("Scion by hand", "[scion]") {
  for_shapes([](const mat& w0, std::uint64_t seed) {
    scion rule;
    rule.constraint.radius = 3;
    scion free = rule;
    free.constraint.constrained = false;
    runner<> run(rule, w0), run_free(free, w0), head(scion_sign{}, w0);
    mat d(w0.rows, w0.cols), w = w0, wf = w0, wh = w0;
    for (std::uint64_t t = 0; t < 3; ++t) {
      const mat g = random_mat(w0.rows, w0.cols, seed + t);
      d = 0.9 * d + 0.1 * g;
      const mat lmo = root(as_double(w.rows) / as_double(w.cols)) * keller(d);
      w = 0.9 * w - 0.1 * 3 * lmo, wf = wf - 0.1 * 3 * lmo;
      wh = 0.9 * wh - 0.1 * 3000 / as_double(w.cols) * signs(d);
      CHECK(largest(run.step(g, 0.1) - w) < 1e-11);
      CHECK(largest(run_free.step(g, 0.1) - wf) < 1e-11);
      CHECK(largest(head.step(g, 0.1) - wh) < 1e-9);
    }
  });
}

// --- scales and presets ---

TEST_CASE("scales", "[scale]") {
  CHECK(fan_ratio{}.factor(8, 2) == 2);
  CHECK(fan_ratio{}.factor(2, 8) == 1);
  CHECK(spectral_ratio{}.factor(2, 8) == 0.5);
  CHECK(fan_out_root{}.factor(9, 4) == 3);
  CHECK(inverse_fan_in{}.factor(9, 4) == 0.25);
  CHECK(convolution_ratio{9}.factor(16, 27) == Approx(std::sqrt(16.0 / 3) / 9));
  CHECK(convolution_ratio{3}.factor(16, 12) == Approx(2.0 / 3));
  CHECK(match_rms{}.factor(4, 9) == Approx(0.6));
  CHECK(match_rms{.rms = 1}.factor(9, 4) == Approx(3));
  CHECK(unit_scale{}.factor(9, 4) == 1);
}

TEST_CASE("published defaults, and what with_*<> keeps of them", "[presets]") {
  CHECK(torch_muon{}.orthogonalizer.eps_rule == eps_rule::max);
  CHECK(torch_muon{}.constraint.decay == 0.1);
  CHECK(torch_muon::published_lr() == 1e-3);
  CHECK(torch_muon_match_rms{}.orthogonalizer.eps_rule == eps_rule::max);
  CHECK(muon{}.orthogonalizer.eps_rule == eps_rule::add);
  CHECK(muon{}.constraint.decay == 0);
  CHECK(muon::published_lr() == 0.02);
  CHECK(moonlight{}.constraint.decay == 0.1);
  CHECK(luon{}.constraint.decay == 0.5);
  CHECK(luon{}.orthogonalizer.coefficients == coefficient_set::cubic);
  // Rules that reproduce a code have its eps beside the norm; the others' is as good as none.
  CHECK(muon{}.orthogonalizer.eps == negligible_norm);
  CHECK(normuon_paper{}.orthogonalizer.eps == negligible_norm);
  CHECK(adamuon_paper{}.orthogonalizer.eps == negligible_norm);
  CHECK(namo_paper{}.orthogonalizer.eps == negligible_norm);
  CHECK(namo_d_paper{}.orthogonalizer.eps == negligible_norm);
  CHECK(muon_storm{}.orthogonalizer.eps == negligible_norm);
  CHECK(reg{}.orthogonalizer.eps == negligible_norm);
  for (const double eps : {torch_muon{}.orthogonalizer.eps,
                           torch_muon_match_rms{}.orthogonalizer.eps,
                           moonlight{}.orthogonalizer.eps,
                           normuon{}.orthogonalizer.eps,
                           normuon_speedrun{}.orthogonalizer.eps,
                           adamuon{}.orthogonalizer.eps,
                           adamuon_megatron{}.orthogonalizer.eps,
                           muon_plus{}.orthogonalizer.eps,
                           muon_nsr{}.orthogonalizer.eps,
                           muon_nsr_suite_a{}.orthogonalizer.eps,
                           muon_vs{}.orthogonalizer.eps,
                           muon_vs_suite_a{}.orthogonalizer.eps,
                           namo{}.orthogonalizer.eps,
                           namo_d{}.orthogonalizer.eps,
                           scion{}.orthogonalizer.eps,
                           luon{}.orthogonalizer.eps,
                           mars_m{}.orthogonalizer.eps,
                           mars_m_exact{}.orthogonalizer.eps,
                           muon_mvr1{}.orthogonalizer.eps,
                           muon_mvr2{}.orthogonalizer.eps})
    CHECK(eps == 1e-7);
  CHECK(scion_column{}.orthogonalizer.eps == 1e-8);
  CHECK(scion_row{}.orthogonalizer.eps == 1e-8);
  CHECK(normuon_dion{}.orthogonalizer.eps == 1e-8);
  CHECK(optax_muon{}.orthogonalizer.eps == 1e-8);
  CHECK(optax_muon_adaptive{}.orthogonalizer.inner.eps == 1e-8);
  CHECK(adamuon{}.constraint.decay == 0.01);
  CHECK(adamuon{}.normalizer.norm_eps == 1e-8);
  CHECK(adamuon_paper{}.constraint.decay == 0.01);
  CHECK(adamuon_paper{}.normalizer.norm_eps == 0);
  CHECK(muon_nsr{}.momentum.alpha == 10);
  CHECK(muon_nsr_suite_a{}.momentum.alpha == 1000);
  CHECK(muon_nsr_suite_b{}.orthogonalizer.eps == 1e-5);
  CHECK(namo{}.constraint.decay == 0.1);
  CHECK(namo_paper{}.constraint.decay == 0.1);
  CHECK(normuon_paper{}.normalizer.restore == restored_size::rms);
  CHECK(normuon_dion{}.normalizer.eps == 1e-8);
  CHECK(normuon_dion{}.orthogonalizer.coefficients == coefficient_set::polar_express_1_02);
  CHECK(muon_storm{}.momentum.gamma == 1);
  CHECK(!muon_storm{}.momentum.clip);
  CHECK(mars_m{}.momentum.clip);
  CHECK(mars_m{}.momentum.gamma == 0.025);
  CHECK(mars_shampoo{}.orthogonalizer.eps == 1e-8);
  CHECK(scion{}.constraint.radius == 50);
  CHECK(scion_sign{}.constraint.radius == 3000);
  CHECK(scion_column{}.momentum.beta == 0.9);
  CHECK(polargrad_qdwh{}.orthogonalizer.inner.steps == 2);
  CHECK(soap{}.constraint.decay == 0.01);
  CHECK(dion{}.constraint.decay == 0.01);
  CHECK(reg{}.constraint.decay == 0.1);

  CHECK(lion::published_lr() == 1e-4);
  CHECK(moonlight::published_lr() == 1e-3);
  CHECK(normuon::published_lr() == 0.02);
  CHECK(normuon_dion::published_lr() == 0.01);
  CHECK(normuon_paper::published_lr() == 0.02);
  CHECK(adamuon::published_lr() == 0.02);
  CHECK(adamuon_paper::published_lr() == 0.02);
  CHECK(muon_nsr::published_lr() == 6e-4);
  CHECK(muon_nsr_suite_a::published_lr() == 1e-3);
  CHECK(muon_nsr_suite_b::published_lr() == 8e-3);
  CHECK(namo::published_lr() == 0.01);
  CHECK(mars_m::published_lr() == 1e-3);
  CHECK(mars_shampoo::published_lr() == 3e-3);
  CHECK(polargrad::published_lr() == 0.02);
  CHECK(scion::published_lr() == 3.6e-4);
  CHECK(soap::published_lr() == 3e-3);
  CHECK(dion::published_lr() == 0.01);

  using swapped = torch_muon::with_normalizer<target_rms>;
  CHECK(swapped{}.orthogonalizer.eps_rule == eps_rule::max);
  CHECK(swapped{}.constraint.decay == 0.1);
  CHECK(swapped::published_lr() == 1e-3);
  CHECK(torch_muon::with_momentum<ema>{}.orthogonalizer.eps_rule == eps_rule::max);
  CHECK(torch_muon::with_orthogonalizer<svd_polar>{}.constraint.decay == 0.1);
  CHECK(torch_muon::with_scale<unit_scale>{}.constraint.decay == 0.1);
  CHECK(torch_muon::with_constraint<frank_wolfe>{}.orthogonalizer.eps_rule == eps_rule::max);
  CHECK(swapped{.constraint = {.decay = 0.3}}.constraint.decay == 0.3);
  CHECK(swapped::name() == muon::with_normalizer<target_rms>::name());  // a preset is not part of a checkpoint
  CHECK(only<ema>::published_lr() == 0);
}
