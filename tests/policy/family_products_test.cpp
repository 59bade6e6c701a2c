// Rules that take another input, or a part of it, to the orthogonalizer, or move on a sphere; and what looks ahead of
// the weight or averages it: by hand, at their invariants, and with gradients of few directions.
#include <catch2/catch.hpp>

#include <limits>

#include <matopt/adamuon.hpp>
#include <matopt/adamw.hpp>
#include <matopt/aurora.hpp>
#include <matopt/contra_muon.hpp>
#include <matopt/engine/rule_registry.hpp>
#include <matopt/muon2.hpp>
#include <matopt/muon_h.hpp>
#include <matopt/muon_plus.hpp>
#include <matopt/nordion2.hpp>
#include <matopt/normuon.hpp>
#include <matopt/normuon_h.hpp>
#include <matopt/policy/constraint/look_ahead.hpp>
#include <matopt/policy/constraint/tail_average.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/turbo_muon.hpp>
#include <matopt/with_projection.hpp>

#include "../support/orthogonalize.hpp"
#include "../support/tolerance.hpp"
#include "constraint_support.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

template <class T>
rule_registry<eigen_backend, types<T>> the_rules() {
  rule_registry<eigen_backend, types<T>> r;
  r.template add<muon2>("muon2").template add<turbo_muon>("turbo_muon").template add<muon_h>("muon_h");
  r.template add<normuon_h>("normuon_h").template add<aurora>("aurora").template add<contra_muon>("contra_muon");
  r.template add<dion2>("dion2").template add<nordion2>("nordion2");
  return r;
}
// Hands the gradient to the orthogonalizer as it is, and takes its direction as the step.
template <class Orthogonalizer>
using direct = rule<no_momentum, Orthogonalizer, no_normalizer, decoupled_decay, unit_scale>;

double row_sum(const mat& x, index_t i) {
  double sum = 0;
  for (index_t j = 0; j < x.cols; ++j) sum += std::abs(x(i, j));
  return sum;
}

}  // namespace

TEST_CASE("new rules: gradients of few directions, none, and none that is finite", "[products]") {
  const auto run = [](auto zero) {
    using T = decltype(zero);
    const auto rules = the_rules<T>();
    for (const std::string& name : rules.names())
      for (const auto& [m, n] : {std::pair<index_t, index_t>{6, 9}, {9, 6}, {7, 7}, {1, 5}, {5, 1}}) {
        mat zero_rows = random_mat(m, n, 1), equal_rows = zero_rows;
        for (index_t j = 0; j < n; ++j) {
          zero_rows(m / 2, j) = 0;
          for (index_t i = 0; i < m; ++i) equal_rows(i, j) = zero_rows(0, j);
        }
        for (const mat& g : {zero_rows, equal_rows, random_mat(m, 1, 2) * random_mat(1, n, 3), mat(m, n),
                             1e-30 * random_mat(m, n, 4), 1e15 * random_mat(m, n, 5)}) {
          CAPTURE(name, m, n, largest(g));
          eigen_backend cpu(1);
          stored<T> w(m, n), grad(m, n);
          const mat w0 = 0.1 * random_mat(m, n, 6);
          w.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
          auto opt = rules.make(name, cpu);
          opt.add("w", w.v(), grad.cv());
          opt.finalize();
          mat before = w0;
          for (int t = 0; t < 4; ++t) {
            grad.fill([&](index_t i, index_t j, index_t) { return g(i, j); });
            if (t == 2) grad.v()(0, 0) = std::numeric_limits<T>::quiet_NaN();  // this step does nothing
            opt.step(0.01);
            const mat now = to_mat(w.cv());
            if (t == 2) CHECK(same(now, before));
            // A step of rate 0.01, the scale of the shape included, and decay.
            CHECK(largest(now - before) < 0.06);
            CHECK(std::isfinite(largest(now)));
            if (largest(g) == 0 && t == 0) {
              // Only decay, and a sphere's rounding, move the weight.
              for (const setting& s : rules.settings(name))
                if (s.name == "decay")
                  CHECK(largest(now - (1 - 0.01 * std::stod(s.value)) * w0) <
                        4 * double(std::numeric_limits<T>::epsilon()) * largest(w0));
            }
            before = now;
          }
          const auto status = opt.poll_status();
          CHECK(status.skipped == 1);
          for (const auto& t : opt.state_tensors()) {
            std::vector<T> values(static_cast<std::size_t>(t.rows * t.cols));
            opt.read_state(t, values.data());
            for (const T v : values) CHECK(math::finite(v));
          }
        }
      }
  };
  run(float{});
  run(double{});
}

TEST_CASE("new rules: settings that are not legal, and the rates of their authors", "[products]") {
  const auto rules = the_rules<double>();
  const auto refuses = [&](const char* rule, const char* name, const char* value, const char* legal) {
    CAPTURE(rule, name, value);
    eigen_backend cpu(1);
    CHECK_THROWS_WITH(rules.make(rule, cpu, {{name, value}}), Catch::Contains(name) && Catch::Contains(legal));
  };
  refuses("muon2", "moment_beta2", "1", "[0, 1)");
  refuses("muon2", "moment_eps", "-1", ">= 0");
  refuses("muon2", "moment_eps_place", "under", "outside, inside");
  refuses("muon2", "momentum", "-0.1", "[0, 1)");
  refuses("dion2", "slice_fraction", "0", "(0, 1]");
  refuses("dion2", "slice_fraction", "1.01", "(0, 1]");
  refuses("nordion2", "slice_decay", "1", "[0, 1)");
  refuses("nordion2", "slice_axis", "longer", "shorter, rows");
  refuses("aurora", "balance_iterations", "0", "[1, 10]");
  refuses("aurora", "balance_exponent", "1.5", "[0, 1]");
  refuses("aurora", "balance_eps", "0", "> 0");
  refuses("contra_muon", "contra", "1.1", "[0, 1]");
  refuses("contra_muon", "contra_iterations", "0", "[1, 100]");
  refuses("normuon_h", "neuron_root_floor", "least", "add, max");
  refuses("turbo_muon", "ns_bound", "aoi", "aol");
  refuses("turbo_muon", "ns_rows", "1,2,3,4,5,6", "2 to 5 numbers");
  CHECK_THROWS_AS(validate_settings(look_ahead{.decay = 1}), bad_value);
  CHECK_THROWS_AS(validate_settings(look_ahead{.ahead = -1}), bad_value);
  CHECK_THROWS_AS(validate_settings(look_ahead{.from = -1}), bad_value);
  CHECK_THROWS_AS(validate_settings(tail_average{.tau = 0.5}), bad_value);
  CHECK_THROWS_AS(validate_settings(tail_average{.weight = 1.5}), bad_value);
  for (const auto& [name, lr] : {std::pair<const char*, double>{"muon2", 0.1},
                                 {"turbo_muon", 0.02},
                                 {"muon_h", 0.018},
                                 {"normuon_h", 0.018},
                                 {"aurora", 0.05},
                                 {"dion2", 0.01},
                                 {"nordion2", 0.01}})
    CHECK(rules.published_lr(name) == lr);
  CHECK(muon2{}.constraint.decay == 0.0125);
  CHECK(aurora{}.constraint.decay == 0.025);
  CHECK(dion2{}.constraint.decay == 0.01);
  CHECK(nordion2{}.normalizer.skip_zero);
  CHECK(nordion2{}.orthogonalizer.inner.coefficients == coefficient_set::polar_express_1_02);
  CHECK(normuon_h{}.normalizer.axis == neuron_axis::longer);
  CHECK(turbo_muon{}.orthogonalizer.bound == spectral_bound::aol);
}

TEST_CASE("Muon^2 without averages is Muon on signs, and does not see the gradient's size", "[muon2]") {
  muon2 r;
  r.momentum = {.beta = 0, .beta2 = 0, .eps = 0}, r.constraint.decay = 0;
  const mat g = random_mat(6, 4, 1), w0 = random_mat(6, 4, 2);
  mat signs = g;
  for (double& x : signs.a) x = x > 0 ? 1 : -1;
  stepper<muon2> s(r, w0);
  const mat moved = w0 - s.step(g, 0.1);
  CHECK(largest(moved - (0.1 * std::sqrt(1.5)) * orthogonalized(r.orthogonalizer, signs)) < 1e-12);
  muon2 plain;
  stepper<muon2> a(plain, w0), b(plain, w0);
  for (std::uint64_t t = 0; t < 3; ++t) {
    mat x = random_mat(6, 4, 10 + t);
    x(1, 2) = 0;  // an entry without any gradient stays one
    CHECK(largest(a.step(x, 0.01) - b.step(1000.0 * x, 0.01)) < 1e-8);
  }
}

TEST_CASE("MuonH and NorMuonH keep the norm, and a step is as long as its rate says", "[muon_h]") {
  const auto check = [](auto rule) {
    for (const auto& [m, n] : {std::pair<index_t, index_t>{6, 9}, {9, 6}}) {
      const mat w0 = random_mat(m, n, 1);
      stepper<decltype(rule)> s(rule, w0);
      mat before = w0;
      for (std::uint64_t t = 0; t < 4; ++t) {
        const mat& now = s.step(random_mat(m, n, 10 + t), 0.1);
        CHECK(frobenius(now) == Approx(frobenius(w0)).epsilon(1e-13));
        CHECK(frobenius(now - before) < 0.1 * frobenius(w0) * (1 + 1e-12) * 1.01);
        CHECK(frobenius(now - before) > 0.08 * frobenius(w0));
        before = now;
      }
      stepper<decltype(rule)> zero(rule, mat(m, n));
      CHECK(largest(zero.step(random_mat(m, n, 3), 0.1)) == 0);
    }
  };
  check(muon_h{}), check(normuon_h{});
  // Rows of an exact polar factor of a square matrix are equally long, so that there is nothing to even out.
  using exact_h = muon_h::with_orthogonalizer<svd_polar>;
  using exact_normuon_h = normuon_h::with_orthogonalizer<svd_polar>;
  const mat w0 = random_mat(5, 5, 1);
  stepper<exact_h> plain({}, w0);
  stepper<exact_normuon_h> even({}, w0);
  for (std::uint64_t t = 0; t < 3; ++t) {
    const mat g = random_mat(5, 5, 20 + t);
    CHECK(largest(plain.step(g, 0.02) - even.step(g, 0.02)) < 1e-12);
  }
}

TEST_CASE("neuron_norm: a floor under the root, and lines of zeros", "[normuon]") {
  using only = rule<no_momentum, no_orthogonalizer, neuron_norm, decoupled_decay, unit_scale>;
  mat g(2, 2);
  g(0, 0) = 3, g(0, 1) = 4;
  for (const bool skip : {false, true}) {
    only r{.normalizer = {.beta2 = 0.5, .eps = 1e-2, .root_floor = norm_floor::max, .skip_zero = skip}};
    stepper<only> s(r, mat(2, 2));
    // v = 0.5 12.5: a root of 2.5; only the direction is left, the norm is restored
    const mat first = -1.0 * s.step(g, 1);
    CHECK(first(0, 0) == Approx(3).epsilon(0.01));
    CHECK(s.state("neuron_mean_square")(0, 0) == Approx(6.25));
    CHECK(s.state("neuron_mean_square")(1, 0) == 0);
    s.step(mat(2, 2), 1);
    CHECK(s.state("neuron_mean_square")(0, 0) == Approx(skip ? 6.25 : 3.125));
  }
  // Below the floor of 1e-2 the root is 0.1: rows keep the ratio of their lengths.
  only r{.normalizer = {.beta2 = 0, .eps = 1e-2, .root_floor = norm_floor::max}};
  mat small(2, 1);
  small(0, 0) = 1e-3, small(1, 0) = 2e-3;
  stepper<only> s(r, mat(2, 1));
  const mat moved = -1.0 * s.step(small, 1);
  CHECK(moved(1, 0) / moved(0, 0) == Approx(2).epsilon(1e-9));
}

TEST_CASE("divisors next to nothing and sizes next to the largest: lines of zeros move nothing", "[normuon]") {
  const auto moves = [](auto rule) {
    for (const auto& [m, n] : {std::pair<index_t, index_t>{5, 8}, {8, 5}, {1, 1}})
      for (const bool zero : {false, true}) {
        mat g = zero ? mat(m, n) : random_mat(m, n, 3);
        for (index_t j = 0; j < n; ++j) g(0, j) = 0;
        stepper<decltype(rule), float> s(rule, mat(m, n));
        for (int t = 0; t < 3; ++t) {
          const mat& w = s.step(g, 1e-3);
          for (index_t i = 0; i < m; ++i)
            for (index_t j = 0; j < n; ++j) CHECK(std::isfinite(w(i, j)));
          CHECK((largest(w) == 0 || (!zero && m > 1)));
        }
      }
  };
  constexpr double least = 1.5e-45, most = 1e31;
  normuon r;
  r.normalizer.eps = least;
  moves(r);
  r.normalizer.restore = restored_size::rms;
  moves(r);
  r.normalizer.rms = most;
  moves(r);
  adamuon a;
  a.normalizer.rms = most;
  moves(a);
  a.normalizer = {.norm_eps = least};
  moves(a);
}

TEST_CASE("Dion2: which slices move, and what waits", "[dion2]") {
  using exact = dion2::with_orthogonalizer<sliced_polar<svd_polar>>::with_scale<unit_scale>;
  const auto check = [](index_t m, index_t n, slice_axis axis) {
    CAPTURE(m, n);
    exact r;
    r.orthogonalizer.fraction = 0.3, r.orthogonalizer.axis = axis, r.constraint.decay = 0.5;
    const bool columns = axis == slice_axis::shorter && m > n;
    const auto lines = [&](const mat& x) { return columns ? transposed(x) : x; };
    const index_t count = columns ? n : m;
    const index_t k = static_cast<index_t>(std::ceil(0.3 * static_cast<double>(count)));
    stepper<exact> s(r, random_mat(m, n, 1));
    mat buffer(m, n), before = s.weight();
    for (std::uint64_t t = 0; t < 6; ++t) {
      const mat g = random_mat(m, n, 30 + t);
      const mat now = s.step(g, 0.1);
      buffer = buffer + g;
      mat sum = lines(buffer);
      const mat moved = lines(0.95 * before - now);
      std::vector<index_t> order(static_cast<std::size_t>(count));
      std::iota(order.begin(), order.end(), index_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](index_t a, index_t b) { return row_sum(sum, a) > row_sum(sum, b); });
      mat chosen(k, sum.cols);
      std::sort(order.begin(), order.begin() + k);
      for (index_t i = 0; i < k; ++i)
        for (index_t j = 0; j < sum.cols; ++j) chosen(i, j) = sum(order[static_cast<std::size_t>(i)], j);
      const mat polar = top_k_polar(chosen, std::min(k, sum.cols));
      mat expected(count, sum.cols);
      for (index_t i = 0; i < k; ++i)
        for (index_t j = 0; j < sum.cols; ++j) {
          expected(order[static_cast<std::size_t>(i)], j) = 0.1 * polar(i, j);
          sum(order[static_cast<std::size_t>(i)], j) *= 0.95;
        }
      CHECK(largest(moved - expected) < 1e-12);
      buffer = columns ? transposed(sum) : sum;
      const auto kept = s.state("momentum");
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < n; ++j) CHECK(kept(i, j) == Approx(buffer(i, j)).epsilon(1e-12));
      before = now;
    }
  };
  check(5, 9, slice_axis::shorter), check(9, 5, slice_axis::shorter), check(9, 5, slice_axis::rows);
  check(1, 4, slice_axis::shorter), check(4, 1, slice_axis::shorter), check(7, 7, slice_axis::rows);
  CHECK(sliced_polar<>{.fraction = 0.55}.selected(100) == 56);
  CHECK(sliced_polar<>{.fraction = 0.25}.selected(8) == 2);
  CHECK(sliced_polar<>{.fraction = 1e-9}.selected(8) == 1);
  CHECK(sliced_polar<>{.fraction = 1}.selected(8) == 8);
  // Of equal slices those with the lower numbers.
  exact r;
  r.orthogonalizer.fraction = 0.5;
  mat g(4, 4);
  for (index_t i = 0; i < 4; ++i) g(i, i) = i == 1 ? 2 : -1;
  stepper<exact> s(r, mat(4, 4));
  const mat moved = s.step(g, 1);
  CHECK(moved(1, 1) == Approx(-1));
  CHECK(moved(0, 0) == Approx(1));
  CHECK(row_sum(moved, 2) + row_sum(moved, 3) == 0);
}

TEST_CASE("Dion2 with all slices and an exact factor moves by the rate; NorDion2 counts selections", "[dion2]") {
  using exact = dion2::with_orthogonalizer<sliced_polar<svd_polar>>;
  exact r;
  r.orthogonalizer.fraction = 1, r.constraint.decay = 0;
  const mat w0 = random_mat(4, 9, 1);
  stepper<exact> s(r, w0);
  CHECK(spectral_norm(s.step(random_mat(4, 9, 2), 0.3) - w0) == Approx(0.3 * std::sqrt(4.0 / 9)));
  using nor = nordion2::with_orthogonalizer<sliced_polar<svd_polar>>;
  nor q;
  q.orthogonalizer.axis = slice_axis::rows, q.orthogonalizer.fraction = 0.25;
  stepper<nor> t(q, mat(8, 9));
  std::vector<int> times(8);
  for (std::uint64_t step = 0; step < 5; ++step) {
    const mat before = t.weight(), now = t.step(random_mat(8, 9, 40 + step), 1);
    for (index_t i = 0; i < 8; ++i) times[static_cast<std::size_t>(i)] += row_sum(now - 0.99 * before, i) > 1e-9;
  }
  // Rows of an exact factor have length 1: v = (1 - 0.95^times) / 9.
  for (index_t i = 0; i < 8; ++i)
    CHECK(t.state("neuron_mean_square")(i, 0) ==
          Approx((1 - std::pow(0.95, times[static_cast<std::size_t>(i)])) / 9).margin(1e-15));
}

TEST_CASE("Contra: what it makes of singular values, and of rows that the constant vector does not see", "[contra]") {
  contra_polar<svd_polar> o{.contra = 0.6, .iterations = 60};
  const std::vector<double> s{3, 2, 0.5, 0.1};
  for (const auto& [m, n] : {std::pair<index_t, index_t>{4, 7}, {7, 4}, {4, 4}}) {
    std::vector<double> expected;
    double norm = 0;
    for (const double x : s) expected.push_back(1 - 0.3 * x / 3), norm += expected.back() * expected.back();
    for (double& x : expected) x *= std::sqrt(4 / norm);
    CHECK(largest(orthogonalized(o, with_spectrum(m, n, s, 5)) - with_spectrum(m, n, expected, 5)) < 1e-10);
    CHECK(largest(orthogonalized<float>(o, 1e25 * with_spectrum(m, n, s, 5)) - with_spectrum(m, n, expected, 5)) <
          1e-4);
  }
  const mat x = random_mat(5, 8, 1);
  CHECK(largest(orthogonalized(contra_polar<>{.contra = 0}, x) - orthogonalized(newton_schulz<>{}, x)) < 1e-14);
  CHECK(largest(orthogonalized(o, mat(3, 4))) == 0);
  // Rows that sum to zero: the power iteration finds nothing, and ||x||_F / sqrt(q) takes its place.
  mat balanced(2, 4);
  for (index_t j = 0; j < 4; ++j) balanced(0, j) = j % 2 ? 1 : -1, balanced(1, j) = j < 2 ? 3 : -3;
  const mat y = orthogonalized(o, balanced);
  CHECK(frobenius(y) == Approx(std::sqrt(2.0)));
  // ||x||_F / sqrt(2) = sqrt(20): 1 - 0.3 sigma / sqrt(20) for sigma = 2 and 6, before the norm is restored
  CHECK(y(0, 1) / y(1, 0) == Approx((1 - 0.3 * 2 / std::sqrt(20.0)) / (1 - 0.3 * 6 / std::sqrt(20.0))));
}

TEST_CASE("Aurora: equally long rows of a tall update, columns of a wide one", "[aurora]") {
  const auto spread = [](const mat& y) {
    double low = 1e9, high = 0;
    for (index_t i = 0; i < y.rows; ++i)
      low = std::min(low, row_norm_of(y, i)), high = std::max(high, row_norm_of(y, i));
    return high / low;
  };
  balanced_polar<svd_polar> o;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const mat x = random_mat(12, 4, seed);
    const mat once = orthogonalized(balanced_polar<svd_polar>{.iterations = 1}, x), twice = orthogonalized(o, x);
    const mat often = orthogonalized(balanced_polar<svd_polar>{.iterations = 10}, x);
    CHECK(spread(twice) < spread(once));
    CHECK(spread(often) < 1.2);
    CHECK(largest(orthogonalized(o, transposed(x)) - transposed(twice)) < 1e-12);
    CHECK(largest(orthogonalized(o, 1e-9 * x) - twice) < 1e-11);
    CHECK(spectral_norm(twice) == Approx(1));
    CHECK(row_norm_of(often, 0) == Approx(std::sqrt(4.0 / 12)).epsilon(0.1));
  }
  // Rows near the smallest numbers, with an eps that lets them through: nothing becomes infinite.
  mat tiny = random_mat(6, 3, 8);
  for (index_t j = 0; j < 3; ++j) tiny(0, j) *= 1e-6, tiny(3, j) = 0.001 * tiny(2, j);
  CHECK(std::isfinite(
      largest(orthogonalized<float>(balanced_polar<svd_polar>{.iterations = 10, .eps = 1e-38}, 1e-37 * tiny))));
  const mat square = random_mat(5, 5, 4);
  CHECK(largest(orthogonalized(o, square) - orthogonalized(svd_polar{}, square)) == 0);
  mat x = random_mat(6, 3, 5);
  for (index_t j = 0; j < 3; ++j) x(2, j) = 0;
  for (const mat& y : {orthogonalized(o, x), to_mat(stored<double>(6, 3).cv()), orthogonalized<float>(o, x)}) {
    CHECK(row_norm_of(y, 2) == 0);
    CHECK(std::isfinite(largest(y)));
  }
}

TEST_CASE("look_ahead by hand: when it acts, by which rate, and what it leaves to evaluate", "[look_ahead]") {
  using ahead = bare<projected<look_ahead>>;
  ahead r =
      bare_rule(projected<look_ahead>{.projection = {.ahead = 0.5, .decay = 0.8, .lr = 0.2, .from = 2, .until = 4}});
  const mat w0 = random_mat(3, 4, 1);
  stepper<ahead> s(r, w0);
  mat w = w0, settled = w0, mean(3, 4);
  for (int t = 0; t < 6; ++t) {
    const double lr = 0.1 + 0.02 * t;
    const mat g = random_mat(3, 4, 10 + static_cast<std::uint64_t>(t));
    w = w - lr * g;
    mean = 0.8 * mean + 0.2 * (w - settled);
    settled = w;
    const int made = t + 1;
    if (made >= 2 && made < 4) w = w + (0.5 * lr / 0.2) * mean;
    CHECK(largest(s.step(g, lr) - w) < 1e-14);
    const auto kept = s.state("look_ahead_weight");
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 4; ++j) CHECK(kept(i, j) == Approx(settled(i, j)).margin(1e-14));
    if (t == 3) {
      // A gradient that is not finite leaves no trace, neither in the mean nor in the count.
      mat bad(3, 4);
      bad(1, 1) = std::numeric_limits<double>::infinity();
      CHECK(same(s.step(bad, lr), s.weight()));
      CHECK(s.state("look_ahead_count")(0, 0) == made);
    }
  }
  // Without one of its own the rate does not enter.
  r.constraint.projection.lr = 0, r.constraint.projection.from = 0;
  stepper<ahead> plain(r, w0);
  const mat g = random_mat(3, 4, 30);
  CHECK(largest(plain.step(g, 0.3) - (w0 - (0.3 * (1 + 0.5 * 0.2)) * g)) < 1e-14);
}

TEST_CASE("look_ahead: a rate that is 0 in float is left out, as 0 is", "[look_ahead]") {
  using ahead = bare<projected<look_ahead>>;
  auto r = bare_rule(projected<look_ahead>{.projection = {.lr = 1e-50, .from = 0}});
  auto plain = r;
  plain.constraint.projection.lr = 0;
  stepper<ahead, float> a(r, random_mat(3, 4, 1)), b(plain, random_mat(3, 4, 1));
  for (std::uint64_t t = 0; t < 3; ++t)
    CHECK(largest(a.step(random_mat(3, 4, t), 0.1) - b.step(random_mat(3, 4, t), 0.1)) == 0);
}

TEST_CASE("look_ahead takes a weight that was written as one without a shift", "[look_ahead]") {
  using ahead = with_projection<look_ahead, adamw>;
  ahead r;
  r.constraint.projection.from = 0, r.constraint.projection.ahead = 0.5;
  const mat w0 = random_mat(3, 4, 1), g = random_mat(3, 4, 2), written = random_mat(3, 4, 3);
  eigen_backend cpu(1);
  stored<double> w(3, 4), grad(3, 4);
  w.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
  grad.fill([&](index_t i, index_t j, index_t) { return g(i, j); });
  optimizer<ahead, eigen_backend, types<double>> opt(cpu, r);
  opt.add("w", w.v(), grad.cv());
  opt.finalize();
  const auto state = [&](const std::string& name) {
    stored<double> out(3, 4);
    for (const auto& t : opt.state_tensors())
      if (t.name == "w.look_ahead_" + name) opt.read_state(t, out.v().data);
    return to_mat(out.cv());
  };
  for (int t = 0; t < 3; ++t) opt.step(0.1);
  // Nobody wrote: the mean goes on from the weight without the shift, to which a step of rate 0 adds the shift alone.
  mat mean = state("mean"), shift = to_mat(w.cv()) - state("weight");
  CHECK(largest(shift) > 1e-4);
  opt.resync(), opt.step(0);
  CHECK(largest(state("mean") - (0.99 * mean + 0.01 * shift)) < 1e-15);
  // A weight that was written has not moved.
  mean = state("mean");
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 4; ++j) w.v()(i, j) = written(i, j);
  opt.resync(), opt.step(0);
  CHECK(largest(state("mean") - 0.99 * mean) < 1e-15);
  CHECK(largest(state("weight") - written) == 0);
}

TEST_CASE("projections around a rule keep its defaults, and act on a master copy", "[look_ahead]") {
  CHECK(with_projection<look_ahead, muon_plus>{}.constraint.inner.decay == 0.1);
  CHECK(with_projection<look_ahead, muon_plus>{}.orthogonalizer.eps == 1e-7);
  CHECK(with_projection<look_ahead, muon_plus>::published_lr() == 1e-3);
  CHECK(with_projection<look_ahead, with_projection<tail_average, muon2>>{}.constraint.inner.inner.decay == 0.0125);
  CHECK(with_projection<tail_average, muon_h>::published_lr() == 0.018);
  using mixed = with_projection<look_ahead, muon_plus::with_constraint<master_weights<>>>;
  static_assert(keeps_master<mixed::constraint_type>);
  static_assert(rule_for<mixed, eigen_backend, types<bfloat16, float, float>>);
  static_assert(rule_for<with_projection<tail_average, adamw>, eigen_backend, types<float>>);
}

TEST_CASE("tail_average by hand, inside of a look-ahead", "[tail_average]") {
  using both = bare<projected<look_ahead, projected<tail_average>>>;
  both r = bare_rule(
      projected<look_ahead, projected<tail_average>>{.projection = {.ahead = 0.5, .from = 0, .until = 9},
                                                     .inner = {.projection = {.tau = 4, .weight = 0.6, .start = 2}}});
  const mat w0 = random_mat(3, 4, 1);
  stepper<both> s(r, w0);
  mat average = w0;
  const auto differs = [&](const mat& expected) {
    const auto r_now = s.state("tail_readout");
    double worst = 0;
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 4; ++j) worst = std::max(worst, std::abs(r_now(i, j) - expected(i, j)));
    return worst;
  };
  CHECK(differs(w0) == 0);
  for (int step = 1; step <= 5; ++step) {
    s.step(random_mat(3, 4, 10 + static_cast<std::uint64_t>(step)), 0.1);
    mat now(3, 4);
    const auto settled = s.state("look_ahead_weight");
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 4; ++j) now(i, j) = settled(i, j);
    average = step <= 2 ? now : average + 0.25 * (now - average);
    CHECK(differs(0.4 * now + 0.6 * average) < 1e-14);
  }
}
