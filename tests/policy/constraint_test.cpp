// Decays, norm control and the rate penalty against closed forms. Spectral policies: spectral_constraint_test.cpp;
// layouts, types, stacks, skipped steps: constraint_contract_test.cpp.
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/constraint/cautious_decay.hpp>
#include <matopt/policy/constraint/cautious_decay_after.hpp>
#include <matopt/policy/constraint/clamped_decay.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/constraint/decay_after.hpp>
#include <matopt/policy/constraint/frank_wolfe.hpp>
#include <matopt/policy/constraint/independent_decay.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/norm_sphere.hpp>
#include <matopt/policy/constraint/radial_brake.hpp>
#include <matopt/policy/constraint/rate_penalty.hpp>
#include <matopt/policy/constraint/relative_update.hpp>

#include "constraint_support.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {
constexpr double tight = 1e-14;

mat absolute(mat x) {
  for (auto& e : x.a) e = std::abs(e);
  return x;
}
double row_dot(const mat& x, const mat& y, index_t i) {
  double s = 0;
  for (index_t j = 0; j < x.cols; ++j) s += x(i, j) * y(i, j);
  return s;
}
mat with_row_norms(mat x, const std::vector<double>& norms) {
  for (index_t i = 0; i < x.rows; ++i) {
    const double n = row_norm_of(x, i);
    for (index_t j = 0; j < x.cols; ++j) x(i, j) *= norms[static_cast<std::size_t>(i)] / n;
  }
  return x;
}
template <class F>
bool throws_naming(const std::string& what, F f) {
  try {
    f();
  } catch (const error& e) {
    return std::string(e.what()).find(what) != std::string::npos;
  }
  return false;
}

// A momentum whose learning rate is lr (j + 1) in column j.
struct column_rates {
  static constexpr bool rates_by_column = true;
  struct grow {
    double factor;
    template <class T>
    MATOPT_HD void operator()(T& r, T lr) const {
      r = T(factor) * lr;
    }
  };
  template <class S, class C>
  struct state {
    view<C> rates;  // scratch
  };
  template <class Layout, class St>
  void layout(Layout&, St&) const {}
  static std::string name() { return "column_rates"; }
  template <class E, class St, class G, class U>
  auto accumulate(E& e, St& s, view<G> g, U u) const {
    s.rates = e.take(1, g.cols);
    for (index_t j = 0; j < g.cols; ++j) e.for_each(grow{static_cast<double>(j + 1)}, s.rates.col_block(j, 1), e.lr());
    return elementwise(fn::assign{}, u, as_const(g));
  }
  template <class E, class St>
  auto rate(E&, St& s) const {
    return per_column(s.rates);
  }
};
}  // namespace

// --- decays ---

TEST_CASE("independent_decay: the three rates", "[constraint]") {
  const mat w = random_mat(4, 5, 1), u = random_mat(4, 5, 2);
  const double lr = 0.03;
  CHECK(largest(stepped(independent_decay{.decay = .1}, w, u, lr) - ((1 - .1) * w - lr * u)) < tight);
  const independent_decay coupled{.decay = .1, .rate = decay_rate::coupled};
  CHECK(largest(stepped(coupled, w, u, lr) - stepped(decoupled_decay{.decay = .1}, w, u, lr)) < tight);
  const independent_decay palm{.decay = .1, .rate = decay_rate::squared},
      adamc{.decay = .1, .rate = decay_rate::squared, .lr_max = .05};
  CHECK(largest(stepped(palm, w, u, lr) - ((1 - lr * lr * .1) * w - lr * u)) < tight);
  CHECK(largest(stepped(adamc, w, u, lr) - ((1 - lr * lr / .05 * .1) * w - lr * u)) < tight);
  auto set = bare_rule(independent_decay{});
  set_setting(set, "decay_rate", "squared");
  CHECK(set.constraint.rate == decay_rate::squared);
}

TEST_CASE("coupled_decay: Luon", "[constraint]") {
  using luon = muon::with_constraint<coupled_decay>;
  const mat w = random_mat(6, 4, 1);
  SECTION("without decay it is Muon, bit by bit") {
    stepper<luon> a({}, w);
    stepper<muon> b({}, w);
    for (std::uint64_t t = 0; t < 5; ++t) {
      const mat g = random_mat(6, 4, 10 + t);
      CHECK(same(a.step(g, .02), b.step(g, .02)));
    }
  }
  SECTION("without a gradient it steps along -polar(W)") {
    using exact = luon::with_orthogonalizer<svd_polar>::with_scale<unit_scale>;
    CHECK(largest(stepper<exact>({.constraint = {.decay = .5}}, w).step(zeros(6, 4), .02) -
                  (w - .02 * top_k_polar(w, 4))) < 1e-13);
  }
  SECTION("the gradient that enters the momentum") {
    CHECK(largest(stepped(coupled_decay{.decay = .5}, w, random_mat(6, 4, 3), .1) -
                  (w - .1 * (random_mat(6, 4, 3) + .5 * w))) < tight);
  }
}

TEST_CASE("cautious_decay: the mask", "[constraint]") {
  const mat w = random_mat(4, 5, 1), u = absolute(random_mat(4, 5, 2));
  const auto signed_like = [&](double s) {
    return entrywise(u, w, [&](double x, double y) { return std::copysign(x, s * y); });
  };
  const cautious_decay c{.decay = .1};
  CHECK(same(stepped(c, w, signed_like(-1), .2), stepped(decoupled_decay{}, w, signed_like(-1), .2)));
  CHECK(same(stepped(c, w, signed_like(1), .2), stepped(decoupled_decay{.decay = .1}, w, signed_like(1), .2)));
  // mixed signs, entry by entry
  const mat v = random_mat(4, 5, 7);
  const mat masked = entrywise(w, v, [](double x, double y) { return x - .2 * (y + (x * y >= 0 ? .1 * x : 0)); });
  CHECK(largest(stepped(c, w, v, .2) - masked) < tight);
  CHECK(largest(masked - stepped(decoupled_decay{.decay = .1}, w, v, .2)) > 1e-3);
  // u = 0
  CHECK(largest(stepped(c, w, zeros(4, 5), .2) - .98 * w) < tight);
  CHECK(same(stepped(cautious_decay{.decay = .1, .strict = true}, w, zeros(4, 5), .2), w));
  // a product that underflows has a sign all the same
  const mat tiny = 1e-200 * w;
  CHECK(same(stepped(c, tiny, -1e-200 * w, 1e-3), stepped(decoupled_decay{}, tiny, -1e-200 * w, 1e-3)));
}

TEST_CASE("cautious_decay_after: the mask of the step, on what the pin has left", "[constraint]") {
  const mat w = random_mat(4, 5, 1), u = random_mat(4, 5, 2);
  using pinned = projected<hyperball>;
  const projected<cautious_decay_after, pinned> c{.projection = {.decay = .3}};
  const mat pin = stepped(pinned{}, w, u, .9);
  mat expected = pin;
  for (std::size_t i = 0; i < w.a.size(); ++i)
    if (w.a[i] * u.a[i] > 0) expected.a[i] *= 1 - .9 * .3;
  CHECK(largest(stepped(c, w, u, .9) - expected) < tight);
  CHECK(largest(pin - expected) > .01);
  bool crossed = false;  // the mask is of the weight before the step
  for (std::size_t i = 0; i < w.a.size(); ++i) crossed |= w.a[i] * pin.a[i] < 0;
  CHECK(crossed);
  CHECK(same(stepped(c, zeros(4, 5), u, .9), zeros(4, 5)));
  CHECK(largest(stepped(c, w, zeros(4, 5), .9) - w) < tight);  // strict: no decay without an update

  const auto along = [&](double decay) {  // the step has the weight's signs
    return stepped(projected<cautious_decay_after, pinned>{.projection = {.decay = decay}}, w, w, .5);
  };
  CHECK(largest(along(3) + .5 * along(0)) < tight);
  CHECK(same(along(1e10), -1 * along(0)));  // no weight grows
}

TEST_CASE("clamped_decay", "[constraint]") {
  const mat w = random_mat(4, 5, 1), u = random_mat(4, 5, 2);
  const clamped_decay c{.decay = .3};
  CHECK(largest(stepped(c, w, u, .2) - ((1 - .06) * w - .2 * u)) < tight);
  CHECK(largest(stepped(c, w, u, 7) - (.7 * w - u)) < tight);
  CHECK(largest(stepped(clamped_decay{.decay = 1.5}, w, u, .8) - (-.8) * u) < tight);
  // the step's clamp is on lr scale, the decay's on lr
  using scaled = bare<clamped_decay>::with_scale<match_rms>;
  scaled rule{.momentum = {.beta = 0}, .constraint = c, .scale = {.rms = 2}};
  CHECK(largest(stepper<scaled>(rule, w).step(u, .5) - ((1 - .15) * w - u)) < tight);
}

TEST_CASE("decay_after and frank_wolfe", "[constraint]") {
  const mat w = random_mat(4, 5, 1), u = random_mat(4, 5, 2);
  CHECK(largest(stepped(decay_after{.decay = .1}, w, u, .2) - (1 - .02) * (w - .2 * u)) < tight);
  CHECK(largest(stepped(frank_wolfe{.radius = 3}, w, u, .2) - (.8 * w - .6 * u)) < tight);
  CHECK(largest(stepped(frank_wolfe{.radius = 3, .constrained = false}, w, u, .2) - (w - .6 * u)) < tight);
}

TEST_CASE("decays take one rate per column", "[constraint]") {
  const mat w = random_mat(3, 4, 1), u = random_mat(3, 4, 2);
  const auto check = [&]<class C>(const C& c) {
    CAPTURE(C::name());
    using by_column = rule<column_rates, no_orthogonalizer, no_normalizer, C, unit_scale>;
    const mat all = stepper<by_column>({.constraint = c}, w).step(u, .3);
    for (index_t j = 0; j < 4; ++j) {
      const mat one = stepped(c, w, u, .3 * static_cast<double>(j + 1));
      for (index_t i = 0; i < 3; ++i) CHECK(all(i, j) == Approx(one(i, j)).margin(tight));
    }
  };
  check(independent_decay{.decay = .1, .rate = decay_rate::coupled});
  check(cautious_decay{.decay = .1}), check(clamped_decay{.decay = .1}), check(frank_wolfe{});
  check(decay_after{.decay = .1});
  check(projected<norm_control, clamped_decay>{.projection = {.rate = 0, .times_lr = true}, .inner = {.decay = .1}});
  check(projected<cautious_decay_after, decay_after>{.projection = {.decay = .3}, .inner = {.decay = .1}});
  static_assert(takes_column_rates<coupled_decay>);
  static_assert(!takes_column_rates<projected<hyperball>>);
  static_assert(!takes_column_rates<projected<rate_penalty, weight_normalization<>>>);
}

TEST_CASE("Lion-K: the spectral ball of decoupled decay and of frank_wolfe", "[constraint]") {
  const double lr = .05, lambda = .5;
  const auto check = [&]<class Rule>(const Rule& rule, double decay, double ball) {
    const mat g = random_mat(6, 4, 5), w0 = 3.0 * random_mat(6, 4, 6);
    stepper<Rule> wandering(rule, w0), fixed(rule, w0);
    double before = spectral_norm(w0);
    const mat rest = -ball * top_k_polar(g, 4);
    for (int t = 0; t < 100; ++t) {
      const double after = spectral_norm(wandering.step(random_mat(6, 4, 50 + static_cast<std::uint64_t>(t)), lr));
      REQUIRE(after - ball <= (1 - lr * decay) * (before - ball) + 1e-13);
      before = after;
      const mat& w = fixed.step(g, lr);
      REQUIRE(largest((w - rest) - std::pow(1 - lr * decay, t + 1) * (w0 - rest)) < 1e-13);
    }
    CHECK(before < ball);
  };
  using lion = muon::with_orthogonalizer<svd_polar>::with_scale<unit_scale>;
  check(lion{.constraint = {.decay = lambda}}, lambda, 1 / lambda);
  using scion = lion::with_constraint<frank_wolfe>;
  check(scion{.constraint = {.radius = 2.5}}, 1, 2.5);
}

// --- norms ---

TEST_CASE("norm_control: closed forms", "[constraint]") {
  const mat start = random_mat(4, 3, 1), w = (5 / frobenius(start)) * start;
  const auto after = [&](const norm_control& c, int steps) {
    using held = projected<norm_control>;
    stepper<bare<held>> s(bare_rule(held{.projection = c}), w);
    for (int t = 0; t < steps; ++t) s.step(zeros(4, 3), .5);
    return s.weight();
  };
  CHECK(frobenius(after({.rate = .1, .target = 2}, 3)) == Approx(4.187).epsilon(1e-14));
  CHECK(frobenius(after({.rate = .1, .target = 20}, 3)) == Approx(9.065).epsilon(1e-14));
  CHECK(frobenius(after({.rate = .1, .ratio = .4}, 3)) == Approx(4.187).epsilon(1e-14));
  CHECK(frobenius(after({.rate = .2, .ratio = 4, .times_lr = true}, 3)) == Approx(9.065).epsilon(1e-14));
  CHECK(largest(after({.rate = 1, .ratio = .3}, 1) - .3 * w) < tight);
  CHECK(largest((5 / frobenius(after({.rate = .1, .target = 20}, 3))) * after({.rate = .1, .target = 20}, 3) - w) <
        tight);
  // ratio 0 is decay
  const mat u = random_mat(4, 3, 2);
  CHECK(largest(stepped(projected<norm_control>{.projection = {.rate = .1, .ratio = 0, .times_lr = true}}, w, u, .2) -
                stepped(decay_after{.decay = .1}, w, u, .2)) < tight);
}

TEST_CASE("norm_control: by rows and by columns", "[constraint]") {
  mat w = random_mat(4, 3, 1);
  for (index_t j = 0; j < 3; ++j) w(2, j) = 0;
  mat u = random_mat(4, 3, 2);
  for (index_t j = 0; j < 3; ++j) u(2, j) = 0;
  using held = projected<norm_control>;
  held rows{.projection = {.rate = 1, .axis = norm_axis::rows}}, columns = rows;
  columns.projection.axis = norm_axis::columns;
  const mat moved = stepped(rows, w, u, .2);
  for (index_t i = 0; i < 4; ++i) {
    CHECK(row_norm_of(moved, i) == Approx(row_norm_of(w, i)).margin(tight));
    if (i != 2) CHECK(row_dot(moved, w - .2 * u, i) == Approx(row_norm_of(moved, i) * row_norm_of(w - .2 * u, i)));
  }
  CHECK(largest(moved - w) > .01);
  CHECK(same(transposed(stepped(columns, transposed(w), transposed(u), .2)), moved));
  const held absolute_rows{.projection = {.rate = 1, .target = 2, .axis = norm_axis::rows}};
  for (const index_t i : {0, 1, 3}) CHECK(row_norm_of(stepped(absolute_rows, w, u, .2), i) == Approx(2));
  CHECK(row_norm_of(stepped(absolute_rows, w, u, .2), 2) == 0);
}

TEST_CASE("hyperball", "[constraint]") {
  using ball = projected<hyperball>;
  const mat w = random_mat(5, 7, 1), u = random_mat(5, 7, 2);
  const double r = frobenius(w);
  const mat moved = w - (.1 * r / frobenius(u)) * u;
  CHECK(largest(stepped(ball{}, w, u, .1) - (r / frobenius(moved)) * moved) < tight);
  CHECK(largest(stepped(ball{}, w, 1e300 * u, .1) - (r / frobenius(moved)) * moved) < tight);
  CHECK(largest(stepped(ball{}, w, zeros(5, 7), .1) - w) < tight);
  CHECK(same(stepped(ball{}, zeros(5, 7), u, .1), zeros(5, 7)));
  stepper<bare<ball>> s(bare_rule(ball{}), w);
  for (std::uint64_t t = 0; t < 1000; ++t) {
    const mat& now = s.step(random_mat(5, 7, 10 + t), .1);
    REQUIRE(std::abs(frobenius(now) - r) < 1e-13);
  }
  CHECK(largest(s.weight() - w) > .1);
}

TEST_CASE("oblique: tangent updates and constant norms", "[constraint]") {
  const mat w = random_mat(4, 6, 1), u = random_mat(4, 6, 2);
  using rows = projected<oblique>;
  mat tangent = u;
  std::vector<double> norms;
  for (index_t i = 0; i < 4; ++i) {
    norms.push_back(row_norm_of(w, i));
    const double c = row_dot(u, w, i) / row_dot(w, w, i);
    for (index_t j = 0; j < 6; ++j) tangent(i, j) -= c * w(i, j);
  }
  const mat expected = with_row_norms(w - .3 * tangent, norms), moved = stepped(rows{}, w, u, .3);
  CHECK(largest(moved - expected) < tight);
  CHECK(largest(with_row_norms(w - .3 * u, norms) - expected) > .01);  // the projection shows
  CHECK(same(transposed(stepped(rows{.projection = {.axis = norm_axis::columns}}, transposed(w), transposed(u), .3)),
             moved));
  CHECK(largest(stepped(rows{}, w, 2.0 * w, .3) - w) < tight);  // a radial update does nothing
  stepper<bare<rows>> s(bare_rule(rows{}), w);
  for (std::uint64_t t = 0; t < 200; ++t) s.step(random_mat(4, 6, 10 + t), .1);
  for (index_t i = 0; i < 4; ++i)
    CHECK(row_norm_of(s.weight(), i) == Approx(norms[static_cast<std::size_t>(i)]).epsilon(1e-13));
}

TEST_CASE("relative_update and update_floor", "[constraint]") {
  const mat w = random_mat(4, 6, 1), u = random_mat(4, 6, 2);
  const auto moved_by = [&](const auto& c, const mat& update) { return (1 / .1) * (w - stepped(c, w, update, .1)); };
  CHECK(largest(moved_by(projected<relative_update>{}, u) - (frobenius(w) / frobenius(u)) * u) < 1e-13);
  using floor = projected<update_floor>;
  const mat small = .01 * u;
  CHECK(largest(moved_by(floor{}, small) - (.35 * frobenius(w) / frobenius(u)) * u) < 1e-13);
  CHECK(largest(moved_by(floor{.projection = {.ratio = .1}}, u) - u) < 1e-13);
  CHECK(same(stepped(floor{}, w, zeros(4, 6), .1), w));
  const mat uneven = with_row_norms(u, {.1, 3, .2, 3});
  const mat lifted = moved_by(floor{.projection = {.ratio = .8, .axis = norm_axis::rows}}, uneven);
  for (const index_t i : {0, 2}) CHECK(row_norm_of(lifted, i) == Approx(.8 * row_norm_of(w, i)).epsilon(1e-12));
  for (const index_t i : {1, 3}) CHECK(row_norm_of(lifted, i) == Approx(3).epsilon(1e-12));
}

TEST_CASE("brakes on the norm", "[constraint]") {
  const mat w = random_mat(4, 6, 1), v = random_mat(4, 6, 2);
  const double n = frobenius(w), c = dot(v, w) / (n * n), lr = .2;
  const mat tangent = v - c * w;
  const mat inward = tangent + .4 * w, outward = tangent - .4 * w;
  using brake = projected<radial_brake>;
  CHECK(largest(stepped(brake{}, w, inward, lr) - (w - lr * inward)) < tight);
  CHECK(largest(stepped(brake{}, w, outward, lr) - (w - lr * (tangent - .2 * w))) < tight);
  CHECK(largest(stepped(brake{.projection = {.outward = 1, .inward = .25}}, w, inward, lr) -
                (w - lr * (tangent + .1 * w))) < tight);
  using record = projected<radial_brake, projected<update_floor, projected<first_order_radius>>>;
  record r{};
  for (const double ratio : {.01, 5.0}) {
    r.inner.projection.ratio = ratio;
    const mat braked = tangent - .2 * w, floored = std::max(1.0, ratio * n / frobenius(braked)) * braked;
    const mat moved = w - lr * floored;
    CHECK(largest(stepped(r, w, outward, lr) - ((n - lr * dot(floored, w) / n) / frobenius(moved)) * moved) < 1e-13);
  }
  using eo = projected<norm_brake>;
  for (const mat& u : {inward, outward}) {
    const mat moved = w - lr * u;
    const double grown = frobenius(moved) - n;
    CHECK(largest(stepped(eo{}, w, u, lr) - ((n + (grown > 0 ? .5 : 1) * grown) / frobenius(moved)) * moved) < tight);
    CHECK((grown > 0) == (dot(u, w) < 0));
  }
  CHECK(same(stepped(eo{}, zeros(4, 6), v, lr), -lr * v));
  CHECK(same(stepped(projected<first_order_radius>{}, zeros(4, 6), v, lr), -lr * v));
}

// --- BackSlash ---

TEST_CASE("rate_penalty: the shape of a generalised Gaussian", "[constraint]") {
  const auto rho = [](double nu) { return std::exp(fn::gaussian_shape::log_ratio(nu)); };
  CHECK(rho(2) == Approx(3.14159265358979324 / 2).epsilon(1e-12));
  CHECK(rho(1) == Approx(2).epsilon(1e-12));
  CHECK(rho(.5) == Approx(10.0 / 3).epsilon(1e-12));
  for (double x = .34; x < 31; x += .37)
    CHECK(fn::gaussian_shape::log_gamma(x) == Approx(std::lgamma(x)).epsilon(1e-12).margin(1e-12));
  // Quantiles of a known distribution as weights.
  using penalty = projected<rate_penalty>;
  const auto shape_of = [](auto quantile) {
    mat w(300, 300);
    for (std::size_t i = 0; i < w.a.size(); ++i)
      w.a[i] = quantile((static_cast<double>(i) + .5) / static_cast<double>(w.a.size()));
    stepper<bare<penalty>> s(bare_rule(penalty{.projection = {.lambda = 0}}), w);
    s.step(zeros(300, 300), .1);
    return s.state("penalty_shape")(0, 0);
  };
  const auto laplace = [](double p) { return p < .5 ? std::log(2 * p) : -std::log(2 * (1 - p)); };
  const auto gauss = [](double p) { return philox::normal_of(static_cast<std::uint32_t>(p * 0x1p32)); };
  CHECK(shape_of(laplace) == Approx(1).margin(.005));
  CHECK(shape_of(gauss) == Approx(2).margin(.005));
  CHECK(shape_of([&](double p) { return 1e-200 * gauss(p); }) == Approx(2).margin(.005));
  CHECK(shape_of([](double p) { return 2 * p - 1; }) == Approx(3).margin(.005));  // uniform: beyond the range
  CHECK(shape_of([](double) { return 0.0; }) == 2);
}

TEST_CASE("rate_penalty: the step", "[constraint]") {
  using penalty = projected<rate_penalty>;
  mat w = random_mat(4, 5, 1);
  w(1, 2) = 0;
  const auto expected = [&](double nu, double lambda, double eps, double lr) {
    return entrywise(w, w, [&](double x, double) {
      return x == 0 ? 0 : x - lr * lambda * nu / 20 * std::copysign(std::pow(std::abs(x) + eps, nu - 1), x);
    });
  };
  penalty p{.projection = {.lambda = 3, .eps = .5, .estimate = false, .shape = .7}};
  CHECK(largest(stepped(p, w, zeros(4, 5), .1) - expected(.7, 3, .5, .1)) < tight);
  p.projection.estimate = true;
  double squares = 0, sum = 0;
  for (const double x : w.a) squares += x * x, sum += std::abs(x);
  double low = .1, high = 3;  // an estimate of its own, by the C library's gamma function
  for (int i = 0; i < 60; ++i) {
    const double nu = (low + high) / 2;
    (std::tgamma(1 / nu) * std::tgamma(3 / nu) / std::pow(std::tgamma(2 / nu), 2) > 20 * squares / (sum * sum) ? low
                                                                                                               : high) =
        nu;
  }
  CHECK(largest(stepped(p, w, zeros(4, 5), .1) - expected(low, 3, .5, .1)) < 1e-11);
}

TEST_CASE("rate_penalty: no entry grows, however few there are", "[constraint]") {
  for (const index_t n : {1, 2, 5}) {
    CAPTURE(n);
    const mat w0 = random_mat(n, n, 3);
    stepper<bare<projected<rate_penalty>>> s(bare_rule(projected<rate_penalty>{}), w0);
    for (int t = 0; t < 20; ++t) {
      const mat w = s.step(zeros(n, n), .02);
      for (std::size_t i = 0; i < w.a.size(); ++i) CHECK(std::abs(w.a[i]) <= std::abs(w0.a[i]));
    }
  }
}

// --- the mechanism ---

TEST_CASE("projected: what it passes on", "[constraint]") {
  using inner_muown = projected<norm_control, weight_normalization<>>;
  static_assert(changes_gradient<inner_muown, eigen_backend, types<double>>);
  static_assert(!changes_gradient<projected<norm_control>, eigen_backend, types<double>>);
  static_assert(!limits_rank<projected<norm_control>>);
  static_assert(weight_projection<hyperball> && !weight_projection<decoupled_decay>);
  using inner_numuon = projected<norm_control, nuclear_budget<>>;
  static_assert(limits_rank<inner_numuon>);

  SECTION("settings, of both, with their ranges") {
    auto r = bare_rule(projected<norm_control>{});
    set_setting(r, "norm_rate", "0.25"), set_setting(r, "decay", "0.5"), set_setting(r, "norm_axis", "rows");
    CHECK(r.constraint.projection.rate == .25);
    CHECK(r.constraint.inner.decay == .5);
    CHECK(r.constraint.projection.axis == norm_axis::rows);
    CHECK(throws_naming("norm_ratio", [&] { set_setting(r, "norm_ratio", "-1"); }));
    CHECK(r.name() == "rule<ema,none,none,projected<norm_control,decoupled_decay>,unit_scale>");
    r.constraint.projection.rate = -1;
    CHECK(throws_naming("norm_rate", [&] { r.validate(); }));
    projected<norm_control, nuclear_budget<piecewise_rank>> inner{};  // the inner policy's own check
    inner.inner.rank.fractions = {.5, .25};
    CHECK_THROWS_AS(detail::validate(inner), error);
    CHECK_THROWS_AS(bare_rule(inner).validate(), error);
  }
  SECTION("the order: outer before, inner before, step, inner after, outer after") {
    // the floor lifts what the relative update has set to ||W||, and the control that acts last has the last word
    using nest = projected<norm_control, projected<update_floor, projected<relative_update>>>;
    nest c{.projection = {.rate = 1, .target = 7}};
    CHECK(frobenius(stepped(c, random_mat(3, 4, 1), random_mat(3, 4, 2), .1)) == Approx(7));
  }
  SECTION("Muown's row norms inside: rate 0 changes nothing, and the state has both parts") {
    const mat w = random_mat(5, 4, 1);
    stepper<muown::with_constraint<inner_muown>> a({.constraint = {.projection = {.rate = 0}}}, w);
    stepper<muown> b({}, w);
    for (std::uint64_t t = 0; t < 4; ++t)
      CHECK(same(a.step(random_mat(5, 4, 9 + t), .02), b.step(random_mat(5, 4, 9 + t), .02)));
    CHECK(a.state("control_norm")(0, 0) == Approx(frobenius(w)));
    CHECK(a.state("magnitude").rows == 5);
  }
  SECTION("NuMuon's budget inside, and outside") {
    const mat w = random_mat(8, 6, 1), g = random_mat(8, 6, 2);
    using exact = numuon::with_orthogonalizer<svd_polar>;
    using constant = nuclear_budget<fixed_rank>;
    const auto rank_of_step = [&]<class C>(const C& c) {
      stepper<exact::with_constraint<C>> s({.constraint = c}, w);
      const auto values = singular_values(s.step(g, .1) - w);
      return std::count_if(values.begin(), values.end(), [](double x) { return x > 1e-12; });
    };
    projected<update_floor, constant> in{};
    in.inner.rank.rank_fraction = .5;
    CHECK(rank_of_step(in) == 3);
    nuclear_budget<fixed_rank, projected<update_floor>> out{};
    out.rank.rank_fraction = .5;
    CHECK(rank_of_step(out) == 3);
  }
}
