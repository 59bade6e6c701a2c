// Rules in the eigenbases of Shampoo's factors, on gradients without full rank: bases stay orthonormal, and steps as
// long as those on noise.
#include <catch2/catch.hpp>

#include <functional>
#include <limits>
#include <string>

#include <matopt/eigen.hpp>
#include <matopt/kl_shampoo.hpp>
#include <matopt/kl_soap.hpp>
#include <matopt/soap.hpp>
#include <matopt/soap_muon.hpp>

#include "../support/stepper.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

using gradients = std::function<mat(std::uint64_t step)>;
struct named_gradients {
  std::string name;
  gradients of;
};

mat without_rows(mat g, index_t every, index_t rest) {
  for (index_t i = 0; i < g.rows; ++i)
    if (i % every == rest)
      for (index_t j = 0; j < g.cols; ++j) g(i, j) = 0;
  return g;
}
mat scaled_rows(mat g, const std::function<double(index_t)>& f) {
  for (index_t i = 0; i < g.rows; ++i)
    for (index_t j = 0; j < g.cols; ++j) g(i, j) *= f(i);
  return g;
}
mat all(index_t m, index_t n, double x) {
  mat g(m, n);
  for (auto& e : g.a) e = x;
  return g;
}
mat in_pairs(mat g) {
  for (index_t i = 0; i < g.rows; ++i)
    for (index_t j = 0; j < g.cols; ++j) g(i, j) = g(i - i % 2, j);
  return g;
}

std::vector<named_gradients> kinds(index_t m, index_t n) {
  const auto noise = [m, n](std::uint64_t t) { return random_mat(m, n, 100 + t); };
  const index_t q = std::min(m, n);
  std::vector<double> falling, steep;
  for (index_t i = 0; i < q; ++i)
    falling.push_back(std::pow(10.0, -30.0 * static_cast<double>(i) / static_cast<double>(q - 1))),
        steep.push_back(i < 3 ? 1 : 1e-30);
  const mat once = random_mat(m, 1, 7) * random_mat(1, n, 8), fall = with_spectrum(m, n, falling, 9);
  return {
      {"noise", noise},
      {"a row that is dead", [=](auto t) { return scaled_rows(noise(t), [](index_t i) { return i == 0 ? 0 : 1; }); }},
      {"the last row dead", [=](auto t) { return scaled_rows(noise(t), [=](index_t i) { return i < m - 1; }); }},
      {"a dead column",
       [=](auto t) { return transposed(scaled_rows(transposed(noise(t)), [](index_t i) { return i == 3 ? 0 : 1; })); }},
      {"every other row dead", [=](auto t) { return without_rows(noise(t), 2, 1); }},
      {"two rows of all alive",
       [=](auto t) { return scaled_rows(noise(t), [](index_t i) { return i == 4 || i == 9; }); }},
      {"rows die and come back", [=](auto t) { return without_rows(noise(t), 3, static_cast<index_t>(t / 25 % 3)); }},
      {"equal rows", [=](auto t) { return in_pairs(noise(t)); }},
      {"equal columns", [=](auto t) { return transposed(in_pairs(transposed(noise(t)))); }},
      {"rank one, always the same", [=](auto) { return once; }},
      {"rank one", [=](auto t) { return random_mat(m, 1, 2 * t) * random_mat(1, n, 2 * t + 1); }},
      {"zero", [=](auto) { return mat(m, n); }},
      {"zero, then noise", [=](auto t) { return t < 35 ? mat(m, n) : noise(t); }},
      {"noise, then zero", [=](auto t) { return t < 35 ? noise(t) : mat(m, n); }},
      {"ones", [=](auto) { return all(m, n, 1); }},
      {"a constant of changing sign", [=](auto t) { return all(m, n, t % 2 ? 0.5 : -0.25); }},
      {"singular values down to 1e-30, always the same", [=](auto) { return fall; }},
      {"singular values down to 1e-30", [=](auto t) { return with_spectrum(m, n, falling, 3 * t); }},
      {"three singular values and 1e-30", [=](auto t) { return with_spectrum(m, n, steep, 3 * t); }},
      {"rows down to 1e-30",
       [=](auto t) {
         return scaled_rows(noise(t), [&](index_t i) {
           return std::pow(10.0, -30.0 * static_cast<double>(i) / static_cast<double>(m - 1));
         });
       }},
      {"noise of size 1e-15", [=](auto t) { return 1e-15 * noise(t); }},
      {"noise of size 1e15", [=](auto t) { return 1e15 * noise(t); }},
  };
}

// The longest step, and how far the bases are from being orthonormal.
struct course {
  double longest = 0, off = 0;
};
template <class T, class Rule>
course run(Rule rule, index_t m, index_t n, const gradients& of, std::uint64_t steps) {
  if constexpr (requires { rule.constraint.decay; }) rule.constraint.decay = 0;
  stepper<Rule, T> s(rule, 0.1 * random_mat(m, n, 1));
  const double lr = 1e-3;
  course c;
  mat before = s.weight();
  for (std::uint64_t t = 0; t < steps; ++t) {
    const mat now = s.step(of(t), lr);
    c.longest = std::max(c.longest, largest(now - before) / lr);
    before = now;
    if (t % 10 == 0)
      for (const char* side : {"left_basis", "right_basis"}) {
        const mat q = to_mat(s.state(side));
        c.off = std::max(c.off, largest(transposed(q) * q - identity(q.rows)));
      }
  }
  return c;
}

}  // namespace

TEMPLATE_TEST_CASE("SOAP: bases are orthonormal and steps bounded on every gradient", "[soap]", float, double) {
  using T = TestType;
  for (const auto& [m, n] : {std::pair<index_t, index_t>{32, 48}, {24, 16}, {12, 64}})
    for (const auto& kind : kinds(m, n)) {
      CAPTURE(m, n, kind.name);
      const course c = run<T>(soap{}, m, n, kind.of, 301);
      CHECK(c.off < (std::is_same_v<T, float> ? 1e-5 : 1e-12));
      // On noise up to 4.6. A gradient that never changes, with singular values over all of the range, reaches 12.2 in
      // float: its small ones are turned with directions that L and R cannot tell from zero, and v is not.
      CHECK(c.longest < 16);
    }
}

TEMPLATE_TEST_CASE("SOAP: one gradient that is larger than all others leaves the same steps, however large", "[soap]",
                   float, double) {
  using T = TestType;
  const double beyond = 1e-4 * std::sqrt(static_cast<double>(std::numeric_limits<T>::max()));
  for (const auto& [m, n] : {std::pair<index_t, index_t>{12, 20}, {24, 16}})
    for (const std::uint64_t when : {1, 5})
      for (const index_t rank : {1, 12}) {
        const auto longest = [&, m = m, n = n](double size) {
          const auto spike = [&](std::uint64_t t) {
            return t == when ? size * (random_mat(m, rank, 7) * random_mat(rank, n, 8)) : random_mat(m, n, 100 + t);
          };
          return run<T>(soap{}, m, n, spike, 91).longest;
        };
        CAPTURE(m, n, when, rank);
        // m is turned into the spike's bases, and v is not: steps may be ten times as long as those on noise.
        const double usual = longest(1e10);
        CHECK(usual < 64);
        for (const double size : {beyond, 1e4 * beyond, 1e8 * beyond}) CHECK(longest(size) < 1.1 * usual);
      }
}

TEMPLATE_TEST_CASE("SOAP-Muon and KL rules: bases are orthonormal and steps bounded on every gradient", "[soap]", float,
                   double) {
  using T = TestType;
  const auto check = [](const auto& rule, const std::string& name, double longest) {
    for (const auto& [m, n] : {std::pair<index_t, index_t>{32, 48}, {24, 16}})
      for (const auto& kind : kinds(m, n)) {
        CAPTURE(name, m, n, kind.name);
        const course c = run<T>(rule, m, n, kind.of, 41);
        CHECK(c.off < (std::is_same_v<T, float> ? 1e-5 : 1e-12));
        CHECK(c.longest < longest);
      }
  };
  check(soap_muon{}, "soap_muon", 3);
  soap_muon gated;
  gated.momentum.trust_gate = true, gated.momentum.basis_start = 3;
  check(gated, "soap_muon, gated and late", 3);
  kl_soap often;
  often.momentum.frequency = 2;
  check(often, "kl_soap", 16);
  check(kl_soap_h{}, "kl_soap_h", 16);
  check(emerging_kl_soap{}, "emerging_kl_soap", 40);  // of RMS 1, and so none above sqrt(32 * 48)
  emerging_kl_soap decomposed;
  decomposed.momentum.method = basis_method::eigh;
  check(decomposed, "emerging_kl_soap, eigh", 40);
  check(kl_shampoo{}, "kl_shampoo", 1e17);  // its size follows the first gradients'
}

TEST_CASE("SOAP: renewals can be spread over the steps", "[soap]") {
  constexpr index_t frequency = 4;
  soap rule;
  rule.momentum.frequency = frequency;
  const auto renewing_steps = [&](bool spread) {
    rule.momentum.spread_renewals = spread;
    eigen_backend cpu(1);
    optimizer<soap, eigen_backend> opt(cpu, rule);
    const std::pair<index_t, index_t> shapes[] = {{6, 4}, {5, 8}, {3, 3}};
    std::vector<stored<float>> w, g;
    for (const auto& [m, n] : shapes) {
      w.emplace_back(m, n), g.emplace_back(m, n);
      opt.add(std::to_string(w.size()), w.back().v(), g.back().cv());
    }
    opt.finalize();
    const auto basis = [&](std::size_t i) {
      for (const state_tensor& t : opt.state_tensors())
        if (t.name == std::to_string(i + 1) + ".left_basis") {
          std::vector<float> all(static_cast<std::size_t>(t.rows * t.cols));
          opt.read_state(t, all.data());
          return all;
        }
      throw error("no basis");
    };
    std::vector<std::vector<index_t>> steps(3);
    for (index_t t = 0; t < 13; ++t) {
      std::vector<std::vector<float>> before;
      for (std::size_t i = 0; i < 3; ++i)
        before.push_back(basis(i)), g[i].fill_random(static_cast<std::uint64_t>(10 * t) + i);
      opt.step(1e-3);
      for (std::size_t i = 0; i < 3; ++i)
        if (t > 0 && !same_bits(before[i], basis(i))) steps[i].push_back(t);
    }
    return steps;
  };
  using numbers = std::vector<std::vector<index_t>>;
  CHECK(renewing_steps(false) == numbers{{4, 8, 12}, {4, 8, 12}, {4, 8, 12}});
  auto spread = renewing_steps(true);  // a bucket's place is that of its shape, in whatever order
  std::sort(spread.begin(), spread.end());
  CHECK(spread == numbers{{2, 6, 10}, {3, 7, 11}, {4, 8, 12}});
}

// --- SOAP-Muon and the KL rules ---

namespace {

double norm(const mat& x) {
  double sum = 0;
  for (const double e : x.a) sum += e * e;
  return std::sqrt(sum);
}
// Weights after some steps on noise.
template <class Rule>
mat after(const Rule& rule, const mat& w0, double of_gradients, index_t steps = 5, double lr = 0.02) {
  stepper<Rule> s(rule, w0);
  for (index_t t = 0; t < steps; ++t)
    s.step(of_gradients * random_mat(w0.rows, w0.cols, 50 + static_cast<std::uint64_t>(t)), lr);
  return s.weight();
}
template <class Rule>
void check_first_step_only_measures(Rule rule) {
  stepper<Rule> s(rule, random_mat(6, 4, 1));
  const mat w0 = s.weight();
  CHECK(largest(s.step(random_mat(6, 4, 2), 0.1) - w0) < 1e-15);
  CHECK(largest(s.step(random_mat(6, 4, 3), 0.1) - w0) > 1e-4);
}
template <class Rule>
void check_signs_of_bases(Rule rule, double limit) {
  stepper<Rule> a(rule, random_mat(5, 5, 1)), b(rule, random_mat(5, 5, 1));
  a.step(random_mat(5, 5, 2), 0.02), b.step(random_mat(5, 5, 2), 0.02);
  for (const char* side : {"left_basis", "right_basis"}) {
    const auto q = b.state(side);
    for (index_t j = 0; j < q.cols; j += 2)
      for (index_t i = 0; i < q.rows; ++i) q(i, j) = -q(i, j);
  }
  for (std::uint64_t t = 0; t < 5; ++t)
    CHECK(largest(a.step(random_mat(5, 5, 10 + t), 0.02) - b.step(random_mat(5, 5, 10 + t), 0.02)) < limit);
}
template <class Rule>
void check_transposed(Rule rule, double limit) {
  stepper<Rule> a(rule, random_mat(5, 5, 1)), b(rule, transposed(random_mat(5, 5, 1)));
  for (std::uint64_t t = 0; t < 5; ++t) {
    const mat g = random_mat(5, 5, 10 + t);
    CHECK(largest(a.step(g, 0.02) - transposed(b.step(transposed(g), 0.02))) < limit);
  }
}
template <class Momentum>
using alone = rule<Momentum, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale>;

}  // namespace

TEST_CASE("SOAP-Muon: size of gradients, signs, zero", "[soap]") {
  const mat w0 = random_mat(5, 5, 1), w = after(soap_muon{}, w0, 1);
  for (const double size : {1e-3, 1e3}) CHECK(largest(after(soap_muon{}, w0, size) - w) < 1e-12);
  CHECK(largest(after(soap_muon{}, -1 * w0, -1) + w) == 0);
  CHECK(largest(after(soap_muon{}, w0, 0) - w0) < 1e-14);
  check_signs_of_bases(soap_muon{}, 1e-11);
  soap_muon gated;
  gated.momentum.trust_gate = true;
  for (const double size : {1e-3, 1e3}) CHECK(largest(after(gated, w0, size) - after(gated, w0, 1)) < 1e-12);
}

TEST_CASE("SOAP-Muon: norms of the weight, and of a weight that begins at zero", "[soap]") {
  soap_muon rule;
  set_setting(rule, "cautious_after_decay", "0");
  set_setting(rule, "floor_ratio", "0");
  // The part of the step along W alone counts, and half of it where W would grow.
  for (const double sign : {1.0, -1.0}) {
    const mat w0 = with_spectrum(6, 4, {1, 1, 1, 1}, 3);
    stepper<soap_muon> s(rule, w0);
    const double lr = 0.05, along = std::sqrt(6.0 / 4) * 4;  // <O, W>, and ||W|| = 2
    CHECK(norm(s.step(sign * w0, lr)) == Approx(2 - lr * (sign > 0 ? along : -along / 2) / 2).epsilon(1e-4));
  }
  set_setting(rule, "floor_ratio", "0.3825");
  const mat free = after(rule, mat(5, 4), 1, 3);
  CHECK(norm(free) > 0.02);
  set_setting(rule, "radius_least", "1e-8");
  CHECK(norm(after(rule, mat(5, 4), 1, 1)) == Approx(1e-8));
}

TEST_CASE("SOAP-Muon: rows of the update reach their floor, the scale counted", "[soap]") {
  using bare = soap_muon::with_constraint<projected<update_floor>>;
  bare floored;
  floored.constraint.projection = soap_muon{}.constraint.inner.projection;
  const mat w0 = 20 * random_mat(8, 4, 1);
  stepper<bare> s(floored, w0);
  const mat step = w0 - s.step(random_mat(8, 4, 2), 1);
  for (index_t i = 0; i < 8; ++i) CHECK(row_norm_of(step, i) == Approx(0.3825 * row_norm_of(w0, i)));
}

TEST_CASE("eigen_whitened: the power, and the norm that comes back", "[soap]") {
  using rule = alone<eigen_whitened<ema>>;
  const mat g1 = random_mat(5, 5, 2), g2 = random_mat(5, 5, 3);
  for (const double power : {0.0, 0.25, 1.0})
    for (const auto bound : {spectral_bound::frobenius, spectral_bound::schatten4, spectral_bound::schatten8}) {
      rule r;
      r.momentum.inner.beta = 0, r.momentum.power = power, r.momentum.norm = bound;
      stepper<rule> s(r, mat(5, 5));
      const mat first = -1 * s.step(g1, 1);
      CHECK(largest(first - g1) < 1e-14);
      const mat ql = to_mat(s.state("left_basis")), qr = to_mat(s.state("right_basis"));
      mat p = transposed(ql) * g2 * qr;
      for (double& x : p.a) x /= std::pow(0.1 * x * x, power);
      const mat d = ql * p * transposed(qr);
      const auto size = [&](const mat& x) {
        const mat a = x * transposed(x);
        return bound == spectral_bound::frobenius   ? norm(x)
               : bound == spectral_bound::schatten4 ? std::sqrt(norm(a))
                                                    : std::pow(norm(a * a), 0.25);
      };
      const mat second = -1 * (s.step(g2, 1) - (-1 * first));
      CHECK(largest(second - (size(g2) / size(d)) * d) < 1e-11);
    }
}

TEST_CASE("SOAP-Muon: settings that do not fit are refused", "[soap]") {
  soap_muon r;
  CHECK_THROWS_WITH(set_setting(r, "basis_start", "0"), Catch::Contains("basis_start") && Catch::Contains(">= 1"));
  CHECK_THROWS_WITH(set_setting(r, "whitening_power", "2"), Catch::Contains("[0, 1]"));
  r.momentum.trust_cap = 0.3;
  CHECK_THROWS_WITH(r.validate(), Catch::Contains("trust_cap is 0.3") && Catch::Contains("trust_floor, 0.45"));
  r = {};
  r.momentum.trust_fade_end = 3;
  CHECK_THROWS_WITH(r.validate(), Catch::Contains("trust_fade_end is 3") && Catch::Contains("1375"));
  // Schedules may take both to where neither could go alone; where they disagree, nothing changes.
  r = {};
  stepper<soap_muon> s(r, random_mat(3, 4, 1));
  s.optimizer().schedule("trust_floor", [](index_t t) { return t < 2 ? 0.9 : 0.95; });
  s.optimizer().schedule("trust_cap", [](index_t t) { return t < 2 ? 0.95 : 0.9; });
  s.step(random_mat(3, 4, 2), 0.01), s.step(random_mat(3, 4, 3), 0.01);
  CHECK_THROWS_WITH(s.step(random_mat(3, 4, 4), 0.01), Catch::Contains("trust_cap is 0.9"));
  CHECK(s.optimizer().rule().momentum.trust_floor == 0.9);
  CHECK(s.optimizer().rule().momentum.trust_cap == 0.95);
  CHECK(s.optimizer().steps() == 2);
  r = {};
  r.momentum.norm = spectral_bound::aol;
  CHECK_THROWS_WITH(r.validate(), Catch::Contains("whitening_norm is aol") && Catch::Contains("schatten4"));
  kl_shampoo k;
  CHECK_THROWS_WITH(set_setting(k, "initial_eigenvalue", "0"), Catch::Contains("> 0"));
  CHECK_THROWS_WITH(set_setting(k, "shampoo_beta", "-1"), Catch::Contains("[0, 1)"));
}

TEST_CASE("KL rules: the first step only measures; signs and transposition", "[soap]") {
  kl_shampoo shampoo;
  kl_soap soap;
  shampoo.momentum.frequency = soap.momentum.frequency = 2;
  check_first_step_only_measures(shampoo), check_first_step_only_measures(soap);
  check_first_step_only_measures(kl_soap_h{}), check_first_step_only_measures(emerging_kl_soap{});
  check_signs_of_bases(shampoo, 1e-11), check_signs_of_bases(soap, 1e-11), check_signs_of_bases(kl_soap_h{}, 1e-11);
  check_signs_of_bases(emerging_kl_soap{}, 1e-9);
  check_transposed(shampoo, 1e-11), check_transposed(soap, 1e-11), check_transposed(kl_soap_h{}, 1e-11);
  check_transposed(emerging_kl_soap{}, 1e-9);
  const mat w0 = random_mat(5, 5, 1);
  for (const double size : {norm(after(kl_soap_h{}, w0, 1)), norm(after(kl_soap_h{}, w0, 1e3))})
    CHECK(size == Approx(norm(w0)));
}

TEST_CASE("NVIDIA's KL-SOAP: eps relative to the largest eigenvalue, and the limit of updates", "[soap]") {
  using rule = alone<emerging_kl_direction>;
  rule r;
  r.momentum.eps = 0.01, r.momentum.shampoo_beta = 0.75;
  const mat once = random_mat(4, 1, 2) * random_mat(1, 4, 3), g = random_mat(4, 4, 4);
  stepper<rule> s(r, mat(4, 4));
  s.step(once, 1);
  const mat first = to_mat(s.state("left")), q = to_mat(s.state("right_basis"));
  CHECK(largest(first - 0.25 * (once * transposed(once))) < 1e-13);  // eigenvalues are 1 while there are none
  mat h = g * q;
  const double top = to_mat(s.state("right_eigenvalues"))(0, 0);
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 4; ++j) h(i, j) /= std::sqrt(j == 0 ? top : 0.01 * top);
  s.step(g, 1);
  const double take = 0.25 / (1 - 0.75 * 0.75);
  CHECK(largest(to_mat(s.state("left")) - ((1 - take) * first + take / 4 * (h * transposed(h)))) < 1e-11);

  r.momentum.max_update_rms = 0.01;
  stepper<rule> limited(r, mat(4, 4));
  limited.step(once, 1);
  CHECK(norm(limited.step(g, 1)) == Approx(0.04));
}
