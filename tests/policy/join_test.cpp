// Slots whose work is one elementwise formula share a pass over memory. What a rule computes must not depend on that.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/lion.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/namo.hpp>
#include <matopt/normuon.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/norm_sphere.hpp>
#include <matopt/policy/constraint/relative_update.hpp>
#include <matopt/policy/momentum/mars.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/momentum/sign_of.hpp>
#include <matopt/policy/normalizer/element_norm.hpp>
#include <matopt/policy/normalizer/target_rms.hpp>
#include <matopt/policy/orthogonalizer/nuclear_scaled.hpp>

#include "../support/matrices.hpp"
#include "../support/tolerance.hpp"
#include "matopt/eigen.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// The same policies without formulas that remain: each writes its result to memory before the next one reads it.
template <class P>
struct apart_momentum {
  using decorates = P;
  P inner{};
  static std::string name() { return P::name(); }
  template <class E, class St, class G, class U>
  void accumulate(E& e, St& s, view<G> g, view<U> u) const {
    detail::accumulate_all(inner, e, s, g, u);
  }
};
template <class P>
struct apart_orthogonalizer {
  using decorates = P;
  static constexpr bool takes_norm = false, gives_parts = false;
  P inner{};
  static std::string name() { return P::name(); }
  template <class E, class St, class U>
  void orthogonalize(E& e, St& s, view<U> u) const {
    detail::orthogonalize(inner, e, s, u);
  }
};
template <class P>
struct apart_normalizer {
  using decorates = P;
  P inner{};
  static std::string name() { return P::name(); }
  template <class E, class St, class U>
  void normalize(E& e, St& s, view<U> u) const {
    run_formula(e, detail::remains([&] { return inner.normalize(e, s, u); }), u);
  }
};
template <class P>
struct apart_constraint {
  using decorates = P;
  static constexpr bool only_reads_update = false;
  P inner{};
  static std::string name() { return P::name(); }
  template <class E, class St, class W, class G>
  requires detail::lifts<P, E, St, W, view<const G>> view<const G> lift(E& e, St& s, view<W> w, view<const G> g)
  const {
    const auto lifted = detail::lift(inner, e, s, w, g);
    if constexpr (!detail::changes_gradient<P, E, St, W, view<const G>>) return g;
    const auto u = e.take_like(w);
    run_formula(e, lifted, u);
    return u;
  }
  template <class E, class St, class W, class U, class Rate>
  void retract(E& e, St& s, view<W> w, view<U> u, Rate lr, double scale) const {
    run_formula(e, detail::retract(inner, e, s, w, u, lr, scale), u);
  }
};
template <class R>
using apart = rule<apart_momentum<typename R::momentum_type>, apart_orthogonalizer<typename R::orthogonalizer_type>,
                   apart_normalizer<typename R::normalizer_type>, apart_constraint<typename R::constraint_type>,
                   typename R::scale_type, typename R::preset_type>;

template <class R>
apart<R> taken_apart(const R& r) {
  apart<R> a;
  a.momentum.inner = r.momentum, a.orthogonalizer.inner = r.orthogonalizer;
  a.normalizer.inner = r.normalizer, a.constraint.inner = r.constraint;
  return a;
}

template <class T, class Rule>
std::vector<T> trajectory(const Rule& rule, layout l) {
  eigen_backend cpu(1);
  stored<T> w(24, 40, l), g(24, 40, l);
  w.fill_random(1, 0.5);
  optimizer<Rule, eigen_backend, types<T>> opt(cpu, rule);
  opt.add("w", w.v(), g.cv());
  opt.finalize();
  for (std::uint64_t t = 0; t < 5; ++t) {
    g.fill_random(10 + t);
    opt.step(0.02);
  }
  return elements(w.cv());
}

double largest_difference(const std::vector<double>& x, const std::vector<double>& y) {
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]));
  return worst;
}

template <class Rule>
void check(Rule rule = {}) {
  for (const setting& s : settings_of(rule))
    if (s.name == "decay") set_setting(rule, "decay", "0.1");
  const auto compare = [&](auto zero) {
    using T = decltype(zero);
    for (const layout l : all_layouts) {
      CAPTURE(name_of(l), Rule::name());
      const auto joined = trajectory<T>(rule, l), each = trajectory<T>(taken_apart(rule), l);
      double worst = 0;
      for (std::size_t i = 0; i < joined.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(joined[i]) - static_cast<double>(each[i])));
      CHECK(worst < tolerance<T>);
    }
  };
  compare(float{});
  compare(double{});
}

}  // namespace

TEST_CASE("joined formulas compute what the slots do one by one", "[join]") {
  check<muon>();
  check<adamw>();
  check<lion>();
  check<muown>();
  check<muon::with_constraint<coupled_decay>>();
  check<adamw::with_constraint<coupled_decay>>();
  check<normuon>();
  check<muon::with_normalizer<element_norm>>();
  check<muon::with_normalizer<target_rms>>();
  check(adamw{.momentum = {.amsgrad = true}});
  check(normuon{.normalizer = {.axis = neuron_axis::longer}});
  check<angular_muown>();
}

TEST_CASE("decorators join what the policies in them leave", "[join]") {
  check<adamw::with_constraint<projected<norm_control>>>();
  check<muon::with_constraint<projected<relative_update>>>();
  check<muon::with_constraint<projected<hyperball, coupled_decay>>>();
  check<muon::with_constraint<projected<norm_control, weight_normalization<>>>>();
  check<adamw::with_constraint<master_weights<projected<norm_control, coupled_decay>>>>();
  check<muon::with_momentum<mars<>>>();
  check<muon::with_momentum<sign_of<mars<>>>>();
  check<lion::with_momentum<sign_of<>>>();
  check<muon::with_orthogonalizer<nuclear_scaled<>>::with_normalizer<neuron_norm>>();
}

namespace {

// A policy derived from another one, with an operation of its own: that one runs, and not what it inherits.
struct twice_the_gradient : ema {
  template <class E, class St, class G, class U>
  void accumulate(E& e, St&, view<G> g, view<U> u) const {
    e.for_each(fn::multiple{2}, u, as_const(g));
  }
};
struct halved : no_normalizer {
  template <class E, class St, class U>
  void normalize(E& e, St&, view<U> u) const {
    e.for_each(fn::multiple{0.5}, u, as_const(u));
  }
};
struct twice_the_sign : sign_direction {
  template <class E, class St, class U>
  void orthogonalize(E& e, St&, view<U> u) const {
    e.for_each(fn::multiple{2}, u, as_const(u));
  }
};
struct by_ones : decoupled_decay {
  template <class E, class St, class W, class U, class Rate>
  void retract(E& e, St&, view<W> w, view<U> u, Rate, double) const {
    e.for_each(fn::assign{}, w, as_const(u));
  }
};

}  // namespace

TEST_CASE("what a derived policy does in its own way is what runs", "[join]") {
  const auto weight = [](const auto& rule) { return trajectory<double>(rule, layout::row_major); };
  using plain = adamw::with_momentum<no_momentum>;
  const auto once = weight(plain::with_constraint<by_ones>{});
  const auto expect = [&](double factor, const std::vector<double>& w) {
    double off = 0;
    for (std::size_t i = 0; i < w.size(); ++i) off = std::max(off, std::abs(w[i] - factor * once[i]));
    CHECK(off < 1e-12);
  };
  stored<double> g(24, 40);
  g.fill_random(14);
  CHECK(once == elements(g.cv()));
  expect(2, weight(plain::with_momentum<twice_the_gradient>::with_constraint<by_ones>{}));
  expect(2, weight(plain::with_orthogonalizer<twice_the_sign>::with_constraint<by_ones>{}));
  expect(0.5, weight(plain::with_normalizer<halved>::with_constraint<by_ones>{}));
  CHECK(largest_difference(weight(muon::with_normalizer<halved>{}), weight(muon{})) > 1e-3);
}

namespace {

// A backend that wants products of so many matrices at a time.
struct in_parts : eigen_backend {
  index_t most;
  explicit in_parts(index_t n) : eigen_backend(1), most(n) {}
  template <class T>
  index_t product_batch(index_t, index_t, index_t) const {
    return most;
  }
};

// Stacked, or each by itself in an order that is not memory's.
template <class Rule, class T>
std::pair<std::vector<T>, std::size_t> five_matrices(index_t at_once, newton_schulz_form form, index_t steps,
                                                     index_t rows, index_t cols, bool stacked = true) {
  in_parts cpu(at_once);
  stored<T> w(rows, cols, layout::row_major, 5), g(rows, cols, layout::row_major, 5);
  w.fill_random(1), g.fill_random(2);
  Rule rule;
  rule.orthogonalizer.form = form, rule.orthogonalizer.steps = steps;
  optimizer<Rule, in_parts, types<T>> opt(cpu, rule);
  if (stacked)
    opt.add("w", w.v(), g.cv());
  else
    for (const index_t b : {3, 0, 4, 1, 2}) opt.add("w." + std::to_string(b), w.v().matrix(b), g.cv().matrix(b));
  opt.finalize();
  opt.step(0.02), opt.step(0.02);
  return {elements(w.cv()), opt.memory().scratch_bytes};
}

template <class Rule, class T>
void check_parts() {
  for (const auto form : {newton_schulz_form::standard, newton_schulz_form::gram})
    for (const index_t steps : {1, 4, 5})
      for (const auto& [rows, cols] : {std::pair<index_t, index_t>{24, 40}, {40, 24}, {16, 16}}) {
        CAPTURE(Rule::name(), static_cast<int>(form), steps, rows, cols);
        const auto whole = five_matrices<Rule, T>(5, form, steps, rows, cols);
        for (const bool stacked : {true, false}) {
          const auto parts = five_matrices<Rule, T>(2, form, steps, rows, cols, stacked);
          CHECK(same_bits(whole.first, parts.first));
          CHECK(parts.second < whole.second);
        }
      }
}

}  // namespace

TEST_CASE("Newton-Schulz on parts of a bucket gives the same bits, and takes less scratch", "[join]") {
  check_parts<muon, float>();
  check_parts<muon, double>();
  check_parts<namo, float>();     // a learning rate for each matrix
  check_parts<normuon, float>();  // a normalizer, for which the result is kept
}

TEST_CASE("a rule that is elementwise throughout takes no scratch", "[join]") {
  std::vector<float> w(24 * 40, 1.0F), g(24 * 40, 0.5F);
  const auto scratch = [&]<class Rule>(Rule rule) {
    eigen_backend cpu(1);
    optimizer<Rule, eigen_backend> opt(cpu, rule);
    opt.add("w", row_major(w.data(), 24, 40), row_major<const float>(g.data(), 24, 40));
    return opt.memory().scratch_bytes;
  };
  CHECK(scratch(adamw{}) == 0);
  CHECK(scratch(lion{}) == 0);
  CHECK(scratch(taken_apart(adamw{})) >= 24 * 40 * sizeof(float));
}
