// SOAP on gradients without full rank: its bases stay orthonormal, and its steps as long as those on noise.
#include <catch2/catch.hpp>

#include <functional>
#include <string>

#include <matopt/eigen.hpp>
#include <matopt/soap.hpp>

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
template <class T>
course run(index_t m, index_t n, const gradients& of, std::uint64_t steps) {
  soap rule;
  rule.constraint.decay = 0;
  stepper<soap, T> s(rule, random_mat(m, n, 1));
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
      const course c = run<T>(m, n, kind.of, 301);
      CHECK(c.off < (std::is_same_v<T, float> ? 1e-5 : 1e-12));
      // On noise up to 4.6. A gradient that never changes, with singular values over all of the range, reaches 12.2 in
      // float: its small ones are turned with directions that L and R cannot tell from zero, and v is not.
      CHECK(c.longest < 16);
    }
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
