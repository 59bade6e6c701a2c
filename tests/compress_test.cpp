// Metrics and compression: golden vectors and T-27 to T-33 of docs/requirements.md.
#include <catch2/catch.hpp>

#include <cmath>
#include <numbers>
#include <random>
#include <span>

#include <matopt/compress/truncate.hpp>
#include <matopt/eigen.hpp>
#include <matopt/metrics/rows.hpp>
#include <matopt/metrics/spectrum.hpp>
#include <matopt/metrics/subspace.hpp>
#include <matopt/metrics/weight_rate.hpp>

#include "support/golden.hpp"
#include "support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

dense<double> matrix(index_t rows, index_t cols, std::initializer_list<double> values) {
  dense<double> m(rows, cols);
  auto v = values.begin();
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) m(i, j) = *v++;
  return m;
}
dense<double> random_matrix(index_t rows, index_t cols, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal;
  dense<double> m(rows, cols);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) m(i, j) = normal(rng);
  return m;
}
// X X^T
dense<double> gram_of(const dense<double>& x) {
  dense<double> h(x.rows(), x.rows());
  for (index_t i = 0; i < x.rows(); ++i)
    for (index_t j = 0; j < x.rows(); ++j)
      for (index_t k = 0; k < x.cols(); ++k) h(i, j) += x(i, k) * x(j, k);
  return h;
}
double loss(const dense<double>& w, const factored& f, const dense<double>& h) {
  const dense<double> p = f.product();
  return output_loss(w.view(), p.view(), h.view());
}

}  // namespace

TEST_CASE("golden: compression", "[golden][compress]") {
  eigen_backend cpu(1);
  int seen = 0;
  for (const auto& c : golden_cases("compression.json")) {
    CAPTURE(c.at("label").get<std::string>(), c.at("shape").dump());
    dense_matrix w = matrix_of(c.at("W0")), h = matrix_of(c.at("H"));
    const index_t k = rank_for(c.at("settings").at("keep"), w.rows, w.cols);
    CHECK(k == c.at("settings").at("rank").get<index_t>());
    const factored f = c.at("label") == "truncated_svd" ? truncation::plain(cpu, w.as_view()).at(k)
                                                        : truncation::whitened(cpu, w.as_view(), h.as_view()).at(k);
    const dense<double> p = f.product();
    CHECK(relative_error(p.view(), matrix_of(c.at("W"))) < tolerance<double>);
    CHECK(output_loss(w.as_view(), p.view(), h.as_view()) == Approx(c.at("loss").get<double>()).epsilon(1e-11));
    CHECK(f.ridge == 0);
    ++seen;
  }
  CHECK(seen == 12);
}

TEST_CASE("rank table, parameter and byte counts", "[compress]") {  // T-28
  const auto row = [](index_t m, index_t n) {
    return std::vector<index_t>{rank_for(0.8, m, n), rank_for(0.6, m, n), rank_for(0.4, m, n), rank_for(0.2, m, n)};
  };
  CHECK(row(768, 768) == std::vector<index_t>{307, 230, 153, 76});
  CHECK(row(768, 2048) == std::vector<index_t>{446, 335, 223, 111});
  CHECK(row(1024, 3072) == std::vector<index_t>{614, 460, 307, 153});
  CHECK(row(64, 64) == std::vector<index_t>{25, 19, 12, 6});
  CHECK(rank_for(1, 64, 48) == 48);
  CHECK(rank_for(1e-6, 64, 48) == 1);
  CHECK(rank_for(0.9, 1, 5) == 1);
  CHECK(rank_for(0.5, 2, 2) == 2);  // factors of rank 1 would be as large as the matrix
  for (const double keep : {0.8, 0.5, 0.2}) CHECK(static_cast<double>(rank_for(keep, 100, 60) * 160) <= keep * 6000);
  CHECK_THROWS_WITH(rank_for(0, 4, 4), Catch::Contains("keep") && Catch::Contains("(0, 1]"));
  CHECK_THROWS_AS(rank_for(std::nan(""), 4, 4), bad_value);
  eigen_backend cpu(1);
  const dense<double> w = random_matrix(64, 48, 1);
  CHECK(truncation::plain(cpu, w.view()).at(10).bytes(4) == 10 * (64 + 48) * 4);
  CHECK(truncation::plain(cpu, w.view()).at(48).parameters() == 64 * 48);
  CHECK_THROWS_WITH(truncation::plain(cpu, w.view()).at(49),
                    Catch::Contains("rank is 49") && Catch::Contains("[1, 48]"));
  CHECK_THROWS_AS(truncation::plain(cpu, w.view()).at(0), bad_value);
}

TEST_CASE("plain truncation is the nearest matrix of its rank", "[compress]") {  // T-29
  eigen_backend cpu(1);
  const dense<double> w = random_matrix(9, 13, 2);
  const spectrum s(cpu, w.view());
  for (const index_t k : {1, 4, 9}) {
    const dense<double> p = truncation::plain(cpu, w.view()).at(k).product();
    double error = 0, tail = 0;
    for (index_t i = 0; i < 9; ++i)
      for (index_t j = 0; j < 13; ++j) error += std::pow(w(i, j) - p(i, j), 2);
    for (std::size_t i = static_cast<std::size_t>(k); i < s.values().size(); ++i) tail += s.values()[i] * s.values()[i];
    CHECK(error == Approx(tail).margin(1e-12));
  }
}

TEST_CASE("whitening: worked examples", "[compress]") {  // T-30, T-31
  eigen_backend cpu(1);
  {
    const dense<double> w = matrix(2, 2, {3, 0, 0, 1}), h = matrix(2, 2, {1, 0, 0, 100});
    CHECK(loss(w, truncation::plain(cpu, w.view()).at(1), h) == Approx(10));
    CHECK(loss(w, truncation::whitened(cpu, w.view(), h.view()).at(1), h) == Approx(3));
  }
  const dense<double> w = matrix(2, 2, {2, 0, 0, 1}), h = matrix(2, 2, {1, 2, 2, 5});
  const factored f = truncation::whitened(cpu, w.view(), h.view()).at(1);
  const dense<double> p = f.product();
  CHECK(p(0, 0) == Approx(0.87596527).epsilon(1e-7));
  CHECK(p(0, 1) == Approx(0.49613894).epsilon(1e-7));
  CHECK(p(1, 0) == Approx(0.99227788).epsilon(1e-7));
  CHECK(p(1, 1) == Approx(0.56201737).epsilon(1e-7));
  CHECK(loss(w, f, h) == Approx(0.68474165).epsilon(1e-7));
  CHECK(loss(w, truncation::plain(cpu, w.view()).at(1), h) == Approx(std::sqrt(5.0)));
}

TEST_CASE("whitening is optimal on its inputs, whatever their number", "[compress]") {  // T-32
  eigen_backend cpu(2);
  const dense<double> w = random_matrix(10, 14, 3), x = random_matrix(14, 40, 4), h = gram_of(x);
  std::vector<double> magnitude;
  for (index_t j = 0; j < 14; ++j) {
    double sum = 0;
    for (index_t t = 0; t < 40; ++t) sum += std::abs(x(j, t)) / 40;
    magnitude.push_back(sum);
  }
  for (const index_t k : {1, 3, 7}) {
    const double whitened = loss(w, truncation::whitened(cpu, w.view(), h.view()).at(k), h);
    CHECK(whitened <= loss(w, truncation::plain(cpu, w.view()).at(k), h) * (1 + 1e-12));
    CHECK(whitened <= loss(w, truncation::asvd(cpu, w.view(), magnitude).at(k), h) * (1 + 1e-12));
  }
  // H = c 1: plain truncation; and a multiple of H changes nothing
  dense<double> one(14, 14), tenth(h);
  for (index_t i = 0; i < 14; ++i) one(i, i) = 7;
  for (index_t i = 0; i < 14; ++i)
    for (index_t j = 0; j < 14; ++j) tenth(i, j) /= 10;
  const dense<double> plain = truncation::plain(cpu, w.view()).at(4).product(),
                      white = truncation::whitened(cpu, w.view(), one.view()).at(4).product();
  CHECK(relative_error(white.view(), plain.view()) < 1e-11);
  CHECK(relative_error(truncation::whitened(cpu, w.view(), tenth.view()).at(4).product().view(),
                       truncation::whitened(cpu, w.view(), h.view()).at(4).product().view()) < 1e-10);
  // alpha = 0 is plain truncation up to the 1e-6 that all scales share
  CHECK(relative_error(truncation::asvd(cpu, w.view(), magnitude, 0).at(4).product().view(), plain.view()) < 1e-11);
  // a dead channel weighs little, and nothing is divided by zero
  magnitude[3] = 0;
  const dense<double> whole = truncation::asvd(cpu, w.view(), magnitude).at(10).product();
  for (index_t i = 0; i < 10; ++i) CHECK(std::abs(whole(i, 3) - w(i, 3)) < 1e-8);  // false of NaN, too
}

TEST_CASE("whitening with a singular Gram matrix reports its ridge", "[compress]") {  // T-33
  eigen_backend cpu(1);
  dense<double> w = random_matrix(10, 12, 5), x = random_matrix(12, 8, 6);
  for (index_t t = 0; t < 8; ++t) x(5, t) = 0;  // a dead channel, and fewer inputs than channels
  const dense<double> h = gram_of(x);
  const factored f = truncation::whitened(cpu, w.view(), h.view()).at(4);
  CHECK(f.ridge == 1e-6);  // the least that is tried is enough here
  CHECK(loss(w, f, h) < loss(w, truncation::plain(cpu, w.view()).at(4), h));
  for (index_t r = 0; r < 4; ++r) CHECK(std::abs(f.right(r, 5)) < 100);
  const dense<double> zero(12, 12);
  CHECK_THROWS_WITH(truncation::whitened(cpu, w.view(), zero.view()).at(4), Catch::Contains("gram"));
  dense<double> negative(12, 12);
  for (index_t i = 0; i < 12; ++i) negative(i, i) = i == 3 ? -50 : 1;
  CHECK_THROWS_AS(truncation::whitened(cpu, w.view(), negative.view()).at(4), bad_value);
  w(2, 2) = std::nan("");
  CHECK_THROWS_WITH(truncation::plain(cpu, w.view()).at(4), Catch::Contains("not finite"));
}

TEST_CASE("metrics: worked examples", "[metrics]") {  // T-27
  eigen_backend cpu(1);
  const dense<double> d = matrix(3, 3, {2, 0, 0, 0, 1, 0, 0, 0, 1});
  const spectrum s(cpu, d.view());
  CHECK(s.spectral_norm() == Approx(2));
  CHECK(s.stable_rank() == Approx(1.5));
  CHECK(s.effective_rank() == Approx(2 * std::numbers::sqrt2));
  CHECK(s.frobenius_norm() == Approx(std::sqrt(6.0)));
  CHECK(s.energy_rank(0.6) == 1);
  CHECK(s.energy_rank(0.7) == 2);
  CHECK(s.energy_rank(1) == 3);
  CHECK_THROWS_AS(s.energy_rank(0), bad_value);
  const dense<double> zero(3, 2);
  CHECK(spectrum(std::vector{2.0, 1.0}).stable_rank() == 1.25);
  CHECK_THROWS_WITH(spectrum(std::vector{1.0, 2.0}),
                    Catch::Contains("a singular value") && Catch::Contains("the greatest first"));
  CHECK_THROWS_AS(spectrum(std::vector{-1.0}), matopt::bad_value);
  CHECK(spectrum(cpu, zero.view()).stable_rank() == 0);
  CHECK(spectrum(cpu, zero.view()).effective_rank() == 0);

  const dense<double> a = matrix(4, 2, {1, 0, 0, 1, 0, 0, 0, 0}), b = matrix(4, 2, {0, 0, 0, 0, 1, 0, 0, 1});
  const thin_svd da = thin_svd::of(cpu, a), db = thin_svd::of(cpu, b);
  CHECK(grassmann_distance(cpu, da, db, 2) == Approx(std::numbers::pi / std::numbers::sqrt2));
  CHECK(grassmann_distance(cpu, da, da, 2) == Approx(0).margin(1e-7));
  CHECK_THROWS_AS(grassmann_distance(cpu, da, db, 3), bad_value);
}

TEST_CASE("the rate of weights, as BackSlash defines it", "[metrics]") {  // T-35
  const auto rho = [](double nu) { return std::exp(fn::gaussian_shape::log_ratio(nu)); };
  CHECK(rho(2) == Approx(std::numbers::pi / 2).epsilon(1e-12));
  CHECK(rho(1) == Approx(2).epsilon(1e-12));
  CHECK(rho(.5) == Approx(10.0 / 3).epsilon(1e-12));
  // Draws from known distributions.
  std::mt19937 rng(7);
  std::normal_distribution<double> normal;
  std::exponential_distribution<double> exponential;
  dense<double> gauss(1000, 1000), laplace(1000, 1000);
  for (index_t i = 0; i < 1000; ++i)
    for (index_t j = 0; j < 1000; ++j)
      gauss(i, j) = 0.02 * normal(rng), laplace(i, j) = (rng() % 2 ? 0.02 : -0.02) * exponential(rng);
  const weight_rate g = weight_rate::of(gauss.view()), l = weight_rate::of(laplace.view());
  CHECK(g.shape == Approx(2).margin(.02));
  CHECK(l.shape == Approx(1).margin(.02));
  // E (|x| + 1)^2 of a normal, E (|x| + 1) of a Laplace distribution
  CHECK(g.rate == Approx(1 + 2 * 0.02 * std::sqrt(2 / std::numbers::pi) + 0.0004).epsilon(2e-3));
  CHECK(l.rate == Approx(1.02).epsilon(2e-3));
  // The shape does not depend on the scale, whatever that is; transposed views and several matrices give the same.
  for (const double scale : {1e-200, 1e200, 5e-324 * 1e12}) {
    dense<double> scaled(100, 100), piece(100, 100);
    for (index_t i = 0; i < 100; ++i)
      for (index_t j = 0; j < 100; ++j) piece(i, j) = laplace(i, j), scaled(i, j) = scale * laplace(i, j);
    CHECK(weight_rate::of(scaled.view()).shape == Approx(weight_rate::of(piece.view()).shape).epsilon(1e-6));
  }
  const view<double> parts[] = {{laplace.view().data, 400, 1000, 1000, 1}, {&laplace(400, 0), 600, 1000, 1000, 1}};
  CHECK(weight_rate::of(std::span<const view<double>>(parts)).rate == Approx(l.rate).epsilon(1e-12));
  const std::vector<float> few{0.5F, -1, 0, 2};
  const auto r = weight_rate::of(row_major(few.data(), 2, 2), 0.25);
  double sum = 0;
  for (const double x : few) sum += std::pow(std::abs(x) + 0.25, r.shape) / 4;
  CHECK(r.rate == Approx(sum));
  CHECK(std::exp(fn::gaussian_shape::log_ratio(r.shape)) == Approx(4 * 5.25 / (3.5 * 3.5)).epsilon(1e-9));

  // What has no shape: zeros, entries of one size, a single one.
  CHECK(weight_rate::of(dense<double>(3, 4).view()).shape == 2);
  CHECK(weight_rate::of(dense<double>(3, 4).view()).rate == 1);
  CHECK(weight_rate::of(matrix(2, 2, {3, -3, 3, 3}).view()).shape == Approx(3));
  CHECK(weight_rate::of(matrix(2, 2, {3, -3, 3, 3}).view()).rate == Approx(64));
  CHECK(weight_rate::of(matrix(1, 1, {-1}).view()).shape == Approx(3));
  CHECK(weight_rate::of(matrix(1, 1, {-1}).view()).rate == Approx(8));
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL})
    CHECK_THROWS_WITH(weight_rate::of(matrix(2, 2, {1, bad, 2, 3}).view()),
                      Catch::Contains("an entry of the weights") && Catch::Contains("finite"));
  CHECK_THROWS_WITH(weight_rate::of(dense<double>(0, 4).view()), Catch::Contains("number of entries"));
  CHECK_THROWS_WITH(weight_rate::of(std::span<const view<double>>()), Catch::Contains("number of entries"));
  for (const double eps : {-1.0, std::nan(""), HUGE_VAL})
    CHECK_THROWS_WITH(weight_rate::of(gauss.view(), eps), Catch::Contains("eps"));
}

TEST_CASE("the spectral norm is the largest row norm times the coherence", "[metrics]") {
  eigen_backend cpu(1);
  const dense<double> w = random_matrix(7, 11, 8);
  const spectrum s(cpu, w.view());
  // coherence from its definition: the root of the largest eigenvalue of P D D^T P, whose entries are w_i . w_j / max^2
  const double greatest = row_norm_extremes(w.view()).greatest;
  dense<double> pcp = gram_of(w);
  for (index_t i = 0; i < 7; ++i)
    for (index_t j = 0; j < 7; ++j) pcp(i, j) /= greatest * greatest;
  const double coherence = std::sqrt(thin_svd::of(cpu, pcp).s(0, 0));
  CHECK(row_coherence(s, w.view()) == Approx(coherence).epsilon(1e-12));
  const dense<double> parallel = matrix(3, 2, {1, 2, 1, 2, 1, 2}), orthogonal = matrix(2, 2, {0, 3, -3, 0});
  CHECK(row_coherence(spectrum(cpu, parallel.view()), parallel.view()) == Approx(std::sqrt(3.0)));
  CHECK(row_coherence(spectrum(cpu, orthogonal.view()), orthogonal.view()) == Approx(1));
  CHECK(row_norm_extremes(matrix(2, 2, {3, 4, 0, 1}).view()).least == Approx(1));
}
