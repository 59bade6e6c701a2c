// Spectral constraints against an independent decomposition and the figures of their specification.
#include <matopt/policy/constraint/nuclear_budget.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/policy/constraint/spectral_normalize.hpp>
#include <matopt/policy/constraint/spectral_sphere.hpp>
#include <matopt/policy/constraint/spectral_threshold.hpp>
#include <matopt/policy/constraint/weight_polar.hpp>
#include <matopt/policy/orthogonalizer/block_krylov_polar.hpp>

#include "constraint_support.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {
// W with f on its singular values.
template <class F>
mat mapped(const mat& w, F f) {
  auto d = naive_svd(w);
  for (index_t j = 0; j < d.u.cols; ++j)
    for (index_t i = 0; i < d.u.rows; ++i) d.u(i, j) *= f(d.s[static_cast<std::size_t>(j)]);
  return d.u * transposed(d.v);
}
mat outer(const mat& u, const mat& v) { return u * transposed(v); }
mat polar(const mat& x) { return top_k_polar(x, std::min(x.rows, x.cols)); }
mat diagonal(const std::vector<double>& d) {
  const auto n = static_cast<index_t>(d.size());
  mat x(n, n);
  for (index_t i = 0; i < n; ++i) x(i, i) = d[static_cast<std::size_t>(i)];
  return x;
}
const mat& tall() {
  static const mat w = with_spectrum(7, 5, {3, 2, 1.5, .5, .1}, 1);
  return w;
}
const power_iteration thorough{.iterations = 100};
}  // namespace

// --- what compiles ---

namespace {
struct without_svd : eigen_backend {
  void svd() = delete;  // hides the real one
};
template <class Projection, class Inner>
concept composes = requires {
  typename projected<Projection, Inner>;
};
template <class Constraint>
concept runs_without_svd = constraint_policy<Constraint, without_svd, types<double>>;

static_assert(runs_without_svd<projected<soft_cap<>>> && runs_without_svd<projected<hard_cap<>>>);
static_assert(!runs_without_svd<projected<soft_cap<exact_norm>>> && !runs_without_svd<projected<exact_hard_cap>>);
static_assert(!runs_without_svd<projected<soft_cap<>, projected<nuclear_prox>>>);
// a budget would cut the weight's polar factor as well
static_assert(composes<polar_retraction<svd_polar>, decoupled_decay>);
static_assert(!composes<polar_retraction<svd_polar>, nuclear_budget<>>);
static_assert(composes<nuclear_polar_decay<>, nuclear_budget<>> && composes<nuclear_prox, nuclear_budget<>>);
static_assert(!composes<polar_retraction<svd_polar>, projected<soft_cap<>, nuclear_budget<>>>);
static_assert(norm_estimate<power_iteration> && norm_estimate<exact_norm> && !norm_estimate<newton_schulz<>>);
static_assert(!stateless_orthogonalizer<block_krylov_polar<true>> && stateless_orthogonalizer<svd_polar>);
}  // namespace

// --- through the estimate ---

TEMPLATE_TEST_CASE("spectral_normalize, hammer, decay", "[constraint]", power_iteration, exact_norm) {
  TestType estimate{};
  if constexpr (std::is_same_v<TestType, power_iteration>) estimate = thorough;
  for (const mat& w : {tall(), transposed(tall())}) {
    const mat none = zeros(w.rows, w.cols);
    const double unit = std::sqrt(static_cast<double>(w.rows) / static_cast<double>(w.cols));
    const auto d = naive_svd(w);
    const mat top = outer(columns(d.u, 0, 1), columns(d.v, 0, 1));

    using normalize = projected<spectral_normalize<TestType>>;
    normalize n{.projection = {.estimate = estimate, .most = .9}};
    CHECK(largest(stepped(n, w, none, .1) - (.9 * unit / 3) * w) < 1e-12);
    n.projection.relative = false;
    CHECK(largest(stepped(n, w, none, .1) - (.9 / 3) * w) < 1e-12);
    n.projection.most = 3.1;
    CHECK(same(stepped(n, w, none, .1), w));

    using hammer = projected<spectral_hammer<TestType>>;
    hammer h{.projection = {.estimate = estimate, .most = .5, .relative = false}};
    CHECK(largest(stepped(h, w, none, .1) - (w + (.5 - 3) * top)) < 1e-12);
    h.projection.most = 4;
    CHECK(largest(stepped(h, w, none, .1) - (w + top)) < 1e-12);
    h.projection.relative = true;
    CHECK(spectral_norm(stepped(h, w, none, .1)) == Approx(4 * unit));

    using decay = projected<spectral_decay<TestType>>;
    decay c{.projection = {.estimate = estimate, .strength = .2}};
    CHECK(largest(stepped(c, w, none, .1) - (w - .02 * 3 * top)) < 1e-12);
    c.projection.times_lr = false;
    CHECK(largest(stepped(c, w, none, .1) - (w - .2 * 3 * top)) < 1e-12);
  }
}

TEST_CASE("power_iteration: warm starts, scale, zero", "[constraint]") {
  using decay = projected<spectral_decay<>>;
  const mat w = with_spectrum(9, 6, {1, .9, .5, .4, .2, .1}, 3), none = zeros(9, 6);
  const auto v = columns(naive_svd(w).v, 0, 1);
  const auto error_after = [&](index_t iterations, int steps) {
    stepper<bare<decay>> s(bare_rule(decay{.projection = {.estimate = {.iterations = iterations}, .strength = 0}}), w);
    for (int t = 0; t < steps; ++t) s.step(none, .1);
    const mat found = to_mat(s.state("spectral_direction"));
    return std::sqrt(std::max(0.0, 1 - std::pow(dot(found, v), 2)));
  };
  CHECK(error_after(1, 1) > .1);
  CHECK(error_after(1, 120) < 1e-7);  // one iteration per step gets there
  CHECK(error_after(120, 1) < 1e-7);
  for (const double scale : {1e-180, 1e180}) {
    using normalize = projected<spectral_normalize<>>;
    const normalize n{.projection = {.estimate = thorough, .most = .5 * scale, .relative = false}};
    CHECK(largest((1 / scale) * stepped(n, scale * w, none, .1) - .5 * w) < 1e-12);
  }
  stepper<bare<decay>> s(bare_rule(decay{}), none);
  CHECK(same(s.step(none, .1), none));
  CHECK(largest(to_mat(s.state("spectral_direction"))) == 0);
  s.step(-1.0 * w, 1);  // and starts afresh when there is a weight
  CHECK(frobenius(to_mat(s.state("spectral_direction"))) == Approx(1));
}

// --- caps ---

TEST_CASE("soft_cap: the coefficient", "[constraint]") {
  double shrink = -1, k = -1;
  const auto alpha = [&](double most, double step, double decay = 0, double sigma = 0) {
    double a = -1;
    fn::soft_cap_coefficient{most, decay / .1, step / .1}(a, k, shrink, sigma, .1);
    return a;
  };
  CHECK(alpha(1, .1) == Approx(.158864419151).epsilon(1e-11));
  CHECK(alpha(1, .05, .01) == Approx(.111314920582).epsilon(1e-11));
  CHECK(alpha(2, .1) == Approx(.030609832084).epsilon(1e-10));
  CHECK(alpha(1, 0) == 0);
  CHECK(alpha(1, .1, .2) == 0);  // the decay wins
  CHECK(alpha(1, .1, 0, 1.1) == alpha(1, .1));
  CHECK(shrink == 1);
  alpha(1, .1, 0, 2.2);
  CHECK(shrink == Approx(.5));
  alpha(1, .1, .2, 2);
  CHECK(shrink == Approx(.5));
  for (const double k : {1.01, 1.1, 1.3}) {
    const double a = alpha(1, k - 1);
    // the quartic of the paper
    CHECK(-std::pow(k, 9) * std::pow(a, 4) + 3 * std::pow(k, 7) * std::pow(a, 3) - 3 * std::pow(k, 5) * a * a + k - 1 ==
          Approx(0).margin(1e-13));
    const auto f = [&](double x) {
      const double y = x - a * x * x * x;
      return y + a * y * y * y;
    };
    CHECK(f(k) == Approx(1).epsilon(1e-12));
    double before = 0;
    for (int i = 1; i <= 1000; ++i) {
      const double now = f(k * i / 1000);
      REQUIRE(now >= before);
      before = now;
    }
  }
}

TEST_CASE("soft_cap: the matrix", "[constraint]") {
  using cap = projected<soft_cap<>>;
  for (const mat& base : {tall(), transposed(tall())}) {
    const mat w = (1.0 / 3) * base, none = zeros(w.rows, w.cols);
    const cap c{.projection = {.estimate = thorough, .relative = false, .update_norm = 1, .decay = .1}};
    const auto f = [](double a) {
      return [a](double x) {
        const double y = x - a * x * x * x;
        return y + a * y * y * y;
      };
    };
    double a = 0, k = 0, one = 0;
    fn::soft_cap_coefficient{1, .1, 1}(a, k, one, 1.0, .1);
    CHECK(largest(stepped(c, w, none, .1) - mapped(w, f(a))) < 1e-12);
    // the scale of the rule is part of the step's bound
    using doubled = bare<cap>::with_scale<match_rms>;
    doubled r{.momentum = {.beta = 0},
              .constraint = c,
              .scale = {.rms = .5 / std::sqrt(7.0)}};  // 0.05 of a step, 0.01 of decay
    CHECK(largest(stepper<doubled>(r, w).step(none, .1) - mapped(w, f(.111314920582))) < 1e-11);
    // relative: the map in units of sqrt(m / n)
    cap relative = c;
    relative.projection.decay = 0;
    relative.projection.relative = true;
    const double unit = std::sqrt(static_cast<double>(w.rows) / static_cast<double>(w.cols));
    double shrink = 0;
    fn::soft_cap_coefficient{1, 0, 1 / unit}(a, k, shrink, 1 / unit, .1);
    CHECK(largest(stepped(relative, w, none, .1) - unit * mapped((shrink / unit) * w, f(a))) < 1e-12);
    // far outside of the bound: at it after one step
    CHECK(spectral_norm(stepped(c, base, none, .1)) == Approx(1).epsilon(1e-12));
    CHECK(spectral_norm(stepped(c, 1e9 * base, none, .1)) == Approx(1).epsilon(1e-12));
  }
  // It holds the bound over a run.
  using capped = muon::with_orthogonalizer<svd_polar>::with_scale<unit_scale>::with_constraint<cap>;
  stepper<capped> s({.constraint = {.projection = {.relative = false, .update_norm = 1}}}, zeros(6, 4));
  const mat g = random_mat(6, 4, 5);
  for (int t = 0; t < 100; ++t) REQUIRE(spectral_norm(s.step(g, .05)) <= 1 + 1e-9);
  CHECK(spectral_norm(s.weight()) > .9);
}

TEST_CASE("hard_cap: four quintics", "[constraint]") {
  using cap = projected<hard_cap<exact_norm>>;
  const cap c{.projection = {.relative = false}};
  const mat x = stepped(c, diagonal({.1, .5, 1, 3}), zeros(4, 4), .1);
  const double table[] = {.095, .498, .966, 1.001};
  for (index_t i = 0; i < 4; ++i) CHECK(x(i, i) == Approx(table[i]).margin(6e-4));
  const auto f = [](double s) {
    for (const odd_polynomial q : hard_cap<>::quintics) s = q.a * s + q.b * s * s * s + q.c * s * s * s * s * s;
    return s;
  };
  for (const mat& w : {tall(), transposed(tall())}) {
    const mat none = zeros(w.rows, w.cols);
    CHECK(largest(stepped(c, w, none, .1) - mapped(w, f)) < 1e-12);
    const double unit = std::sqrt(static_cast<double>(w.rows) / static_cast<double>(w.cols));
    const cap relative{.projection = {.most = 2}};
    CHECK(largest(stepped(relative, w, none, .1) - 2 * unit * mapped((1 / (2 * unit)) * w, f)) < 1e-12);
    CHECK(largest(stepped(c, w, none, .1) - mapped(w, [](double s) { return std::min(1.0, s); })) < .06);
    // beyond the polynomial's range: to 3 first
    CHECK(largest(stepped(c, 50.0 * w, none, .1) - mapped(w, f)) < 1e-12);
  }
}

TEST_CASE("exact_hard_cap and spectral_clipped_decay", "[constraint]") {
  using cap = projected<exact_hard_cap>;
  const double beta = 1.7;
  const cap c{.projection = {.most = beta, .relative = false}};
  for (const mat& w : {tall(), transposed(tall())}) {
    const mat none = zeros(w.rows, w.cols), capped = stepped(c, w, none, .1);
    CHECK(largest(capped - mapped(w, [&](double s) { return std::min(s, beta); })) < 1e-13);
    // the form by matrix signs
    const mat o = polar(w), rest = beta * o - w;
    CHECK(largest(capped - .5 * (beta * o + w - rest * (transposed(polar(rest)) * o))) < 1e-12);
    CHECK(same(stepped(cap{.projection = {.most = 3.1, .relative = false}}, w, none, .1), w));
    const double unit = std::sqrt(static_cast<double>(w.rows) / static_cast<double>(w.cols));
    CHECK(spectral_norm(stepped(cap{.projection = {.most = .5}}, w, none, .1)) == Approx(.5 * unit));

    using decay = projected<spectral_clipped_decay>;
    const decay d{.projection = {.decay = 2, .most = beta, .relative = false}};
    CHECK(largest(stepped(d, w, none, .1) - (.8 * w + .2 * capped)) < 1e-13);
    CHECK(largest(stepped(d, w, none, .9) - capped) < 1e-13);
  }
}

TEST_CASE("nuclear_prox and nuclear_polar_decay", "[constraint]") {
  const mat z = diagonal({3, 1, .2}), none = zeros(3, 3);
  const projected<nuclear_prox> prox{.projection = {.strength = 5}};
  const projected<nuclear_polar_decay<svd_polar>> cheap{.projection = {.strength = 5}};
  CHECK(largest(stepped(prox, z, none, .1) - diagonal({2.5, .5, 0})) < 1e-14);
  CHECK(largest(stepped(cheap, z, none, .1) - diagonal({2.5, .5, -.3})) < 1e-14);
  for (const mat& w : {tall(), transposed(tall())}) {
    const mat u = random_mat(w.rows, w.cols, 4), moved = w - .1 * u;
    CHECK(largest(stepped(prox, w, u, .1) - mapped(moved, [](double s) { return std::max(s - .5, 0.0); })) < 1e-13);
    CHECK(largest(stepped(cheap, w, u, .1) - (moved - .5 * polar(moved))) < 1e-12);
  }
}

// --- spheres and manifolds ---

TEST_CASE("stiefel", "[constraint]") {
  using spel = muon::with_orthogonalizer<svd_polar>::with_scale<unit_scale>::with_constraint<stiefel<>>;
  const mat w = polar(random_mat(6, 4, 1)), g = random_mat(6, 4, 2);
  stepper<spel> s({.constraint = {.inner = {.decay = .5}}}, w);
  CHECK(largest(s.step(g, .2) - polar(.9 * w - .2 * polar(g))) < 1e-13);
  for (std::uint64_t t = 0; t < 30; ++t) s.step(random_mat(6, 4, 9 + t), .2);
  const mat q = s.weight();
  CHECK(largest(transposed(q) * q - identity(4)) < 1e-13);
  CHECK(same(stepped(stiefel<>{}, zeros(3, 2), zeros(3, 2), .1), zeros(3, 2)));
  // Newton-Schulz inside has settings of its own
  spel::with_constraint<stiefel<newton_schulz<>>>::with_orthogonalizer<newton_schulz<>> both{};
  set_setting(both, "weight_ns_steps", "9"), set_setting(both, "ns_steps", "3");
  CHECK(both.constraint.projection.orthogonalizer.steps == 9);
  CHECK(both.orthogonalizer.steps == 3);
}

TEST_CASE("spectral_retraction: hard, dynamic, at the end", "[constraint]") {
  const mat w = tall(), u = random_mat(7, 5, 2);
  const double r = .8 * std::sqrt(7.0 / 5);
  using sphere = projected<spectral_retraction<exact_norm>>;
  sphere c{.projection = {.radius = .8}};
  CHECK(largest(stepped(c, w, u, .1) - ((r / (3 + 1e-8)) * w - .1 * u)) < 1e-13);
  c.projection.finish = true;
  CHECK(spectral_norm(stepped(c, w, u, .1)) == Approx(r).epsilon(2e-8));
  sphere d{.projection = {.radius = .8, .how = sphere_retraction::dynamic, .strength = .05}};
  CHECK(largest(stepped(d, w, u, .1) - ((1 - .005) * w - .1 * u)) < 1e-14);
  CHECK(largest(stepped(d, .1 * w, u, .1) - ((1 + .005) * (.1 * w) - .1 * u)) < 1e-14);
  // MuonSphere: Muon under it
  using muon_sphere = muon::with_orthogonalizer<svd_polar>::with_scale<spectral_ratio>::with_constraint<sphere>;
  stepper<muon_sphere> s({}, w);
  const mat g = random_mat(7, 5, 3);
  CHECK(largest(s.step(g, .1) - (std::sqrt(1.4) * ((1 / (3 + 1e-8)) * w) - .1 * std::sqrt(1.4) * polar(g))) < 1e-13);
}

namespace {
using sso_constraint = projected<spectral_sphere<svd_polar, exact_norm>>;
using sso = rule<ema, no_orthogonalizer, no_normalizer, sso_constraint, spectral_ratio>;
sso sso_rule(index_t bisections, index_t doublings = 10) {
  return {.momentum = {.beta = 0}, .constraint = {.projection = {.doublings = doublings, .bisections = bisections}}};
}
}  // namespace

TEST_CASE("spectral_sphere: the root", "[constraint]") {
  const mat w0 = random_mat(6, 5, 1), m = random_mat(6, 5, 2);
  const double radius = std::sqrt(6.0 / 5);
  const auto d = naive_svd(w0);
  const mat top = outer(columns(d.u, 0, 1), columns(d.v, 0, 1)), unit = (1 / frobenius(m)) * m;
  const auto f = [&](double lambda) { return dot(top, polar(unit + lambda * top)); };
  double before = -2;
  for (int i = 0; i < 41; ++i) {
    const double now = f(-1 + .05 * i);
    REQUIRE(now >= before);
    before = now;
  }
  const mat start = (radius / (d.s[0] + 1e-8)) * w0;
  for (const double sign : {1.0, -1.0}) {
    const mat o = (1 / radius) * (start - stepper<sso>(sso_rule(60), w0).step(sign * m, 1));
    CHECK(std::abs(dot(top, o)) < 1e-12);
    for (const double s : singular_values(o)) CHECK(s == Approx(1).epsilon(1e-12));
    // 20 bisections of a bracket that is at most 0.512 wide
    const mat rough = (1 / radius) * (start - stepper<sso>(sso_rule(20), w0).step(sign * m, 1));
    CHECK(std::abs(dot(top, rough)) < 1e-5);
    CHECK(std::abs(dot(top, rough)) > 1e-13);
  }
  CHECK(std::abs(f(0)) > .01);  // plain Muon is not tangent
  // no bracket: plain Muon
  const mat steep = 5.0 * top + m;  // needs lambda beyond 2e-3
  CHECK(largest((start - stepper<sso>(sso_rule(20, 1), w0).step(steep, 1)) - radius * polar(steep)) < 1e-12);
}

TEST_CASE("spectral_sphere: the norm changes in second order", "[constraint]") {
  const mat w0 = random_mat(6, 5, 1), m = random_mat(6, 5, 2);
  const double radius = std::sqrt(6.0 / 5);
  const auto off = [&](const auto& rule, double lr) {
    stepper<std::decay_t<decltype(rule)>> s(rule, (radius / spectral_norm(w0)) * w0);
    return std::abs(spectral_norm(s.step(m, lr)) - radius + 1e-8 * 1);  // hard retraction leaves R s / (s + 1e-8)
  };
  const double ratio = off(sso_rule(50), 1e-2) / off(sso_rule(50), 1e-3);
  CHECK(ratio > 95);
  CHECK(ratio < 105);
  using muon_sphere = rule<ema, svd_polar, no_normalizer, projected<spectral_retraction<exact_norm>>, spectral_ratio>;
  const muon_sphere plain{.momentum = {.beta = 0}};
  CHECK(off(plain, 1e-2) / off(plain, 1e-3) < 20);
  sso finished = sso_rule(50);
  finished.constraint.projection.retraction.finish = true;
  CHECK(off(finished, 1e-2) < 3e-8);
}

TEST_CASE("spectral_sphere: zeros, defaults, settings", "[constraint]") {
  const mat w = tall(), none = zeros(7, 5);
  stepper<sso> s(sso_rule(20), w);
  CHECK(largest(s.step(none, .1) - (std::sqrt(1.4) / (3 + 1e-8)) * w) < 1e-14);  // the retraction, no step
  stepper<sso> z(sso_rule(20), none);
  const mat g = random_mat(7, 5, 3);
  CHECK(largest(z.step(g, .1) - -.1 * std::sqrt(1.4) * polar(g)) < 1e-13);  // no direction: plain Muon
  // as published: Newton-Schulz and a power iteration
  using published = sso::with_constraint<projected<spectral_sphere<>>>;
  published r{};
  set_setting(r, "sphere_ns_steps", "8"), set_setting(r, "sphere_ns_coefficients", "polar_express");
  set_setting(r, "power_iterations", "100"), set_setting(r, "sphere_how", "dynamic");
  CHECK(r.constraint.projection.orthogonalizer.steps == 8);
  CHECK(r.constraint.projection.retraction.how == sphere_retraction::dynamic);
  set_setting(r, "sphere_how", "hard");
  stepper<published> p(r, w);
  for (std::uint64_t t = 0; t < 20; ++t) p.step(random_mat(7, 5, 8 + t), 1e-3);
  CHECK(spectral_norm(p.weight()) == Approx(std::sqrt(1.4)).epsilon(1e-4));
  r.constraint.projection.doublings = 0;
  CHECK_THROWS_AS(r.validate(), error);
}

TEST_CASE("coefficients that diverge are refused inside of constraints, too", "[constraint]") {
  using Catch::Contains;
  const auto refuses = [](auto constraint, const char* name) {
    CHECK_THROWS_WITH(detail::validate(constraint), Contains("ns_rows"));
    using ruled = muon::with_orthogonalizer<no_orthogonalizer>::with_constraint<decltype(constraint)>;
    eigen_backend cpu(1);
    optimizer<ruled, eigen_backend> opt(cpu);
    opt.set(name, "1.5,-0.5");
    CHECK_THROWS_WITH(opt.set(name, "3.4445,4.775,2.0315"), Contains("ns_rows"));
  };
  const newton_schulz<> grows = newton_schulz<>::with_rows({{3.4445, 4.7750, 2.0315}});
  refuses(projected<spectral_sphere<>>{.projection = {.orthogonalizer = grows}}, "sphere_ns_rows");
  refuses(projected<nuclear_polar_decay<>>{.projection = {.orthogonalizer = grows}}, "weight_ns_rows");
  refuses(projected<polar_retraction<newton_schulz<>>>{.projection = {.orthogonalizer = grows}}, "weight_ns_rows");
}
