// Slots whose work is one elementwise formula share a pass over memory. What a rule computes must not depend on that.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/lion.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/namo.hpp>
#include <matopt/normuon.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/normalizer/element_norm.hpp>
#include <matopt/policy/normalizer/target_rms.hpp>

#include "../support/matrices.hpp"
#include "../support/tolerance.hpp"
#include "matopt/eigen.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// The same policies without their formulas: each writes its result to memory before the next one reads it.
template <class P>
struct apart_momentum : P {
  template <class E, class St, class G, class U>
  void accumulate(E& e, St& s, view<G> g, view<U> u) const {
    P::formula(e, s, as_const(g), [&](const auto& f) { run_formula(e, f, u); });
  }
  template <class... A>
  void formula(A...) const = delete;
};
template <class P>
struct apart_orthogonalizer : P {
  template <class E, class St, class U>
  void orthogonalize(E& e, St& s, view<U> u) const {
    P::orthogonalize(e, s, u);
  }
  void formula() const = delete;
};
template <class P>
struct apart_normalizer : P {
  template <class E, class St, class U>
  void normalize(E& e, St& s, view<U> u) const {
    if constexpr (requires { P::formula(e, s, as_const(u), detail::any_use{}); })
      P::formula(e, s, as_const(u), [&](const auto& f) { run_formula(e, f, u); });
  }
  template <class... A>
  void formula(A...) const = delete;
};
template <class P>
struct apart_constraint : P {
  static constexpr bool only_reads_update = false;
  template <class... A>
  void retract_formula(A...) const = delete;
  template <class... A>
  void lift_formula(A...) const = delete;
  template <class E, class St, class W, class U, class Rate>
  void retract(E& e, St& s, view<W> w, view<U> u, Rate lr, double scale) const {
    detail::retract(static_cast<const P&>(*this), e, s, w, u, lr, scale);
  }
  template <class E, class St, class W, class G, class U>
  auto lift(E& e, St& s, view<W> w, view<G> g, view<U> u) const {
    if constexpr (matopt::changes_gradient<P>) {
      run_formula(e, P::lift_formula(e, s, w, g), u);
      return as_const(u);
    } else {
      return g;
    }
  }
};
template <class R>
using apart = rule<apart_momentum<typename R::momentum_type>, apart_orthogonalizer<typename R::orthogonalizer_type>,
                   apart_normalizer<typename R::normalizer_type>, apart_constraint<typename R::constraint_type>,
                   typename R::scale_type, typename R::preset_type>;

template <class Rule, class T>
std::vector<T> trajectory(layout l) {
  eigen_backend cpu(1);
  stored<T> w(24, 40, l), g(24, 40, l);
  w.fill_random(1, 0.5);
  Rule rule;
  if constexpr (requires { rule.constraint.decay; }) rule.constraint.decay = 0.1;
  optimizer<Rule, eigen_backend, types<T>> opt(cpu, rule);
  opt.add("w", w.v(), g.cv());
  opt.finalize();
  for (std::uint64_t t = 0; t < 5; ++t) {
    g.fill_random(10 + t);
    opt.step(0.02);
  }
  return elements(w.cv());
}

template <class Rule>
void check() {
  const auto compare = [](auto zero) {
    using T = decltype(zero);
    for (const layout l : all_layouts) {
      CAPTURE(name_of(l), Rule::name());
      const auto joined = trajectory<Rule, T>(l), each = trajectory<apart<Rule>, T>(l);
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
  CHECK(scratch(apart<adamw>{}) >= 24 * 40 * sizeof(float));
}
