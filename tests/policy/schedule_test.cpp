// Rank and learning-rate schedules, and the range of every hyperparameter.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/schedule/learning_rate.hpp>
#include <matopt/policy/schedule/rank.hpp>
#include <matopt/policy/schedule/setting.hpp>

using namespace matopt;
using Catch::Matchers::Contains;

// --- T-17 of docs/requirements.md ---

TEST_CASE("T-17 cosine rank: the golden table", "[schedule]") {
  const nuclear_budget<cosine_rank> b{.rank = {.start = 1, .end = 0.25, .hold = 100, .total = 800}};
  struct row {
    index_t t;
    double fraction, k;
  };
  for (const auto& [t, fraction, k] : {row{0, 1, 64}, row{99, 1, 64}, row{100, 1, 64}, row{275, .890165, 57},
                                       row{450, .625, 40},  // 40 exactly: rounding must not make it 41
                                       row{625, .359835, 24}, row{799, .250004, 17}, row{800, .25, 16},
                                       row{801, .25, 16}, row{1500, .25, 16}}) {  // the bare cosine would rise again
    CAPTURE(t);
    CHECK(b.rank.fraction(t) == Approx(fraction).margin(5e-7));
    CHECK(b.rank_budget(t, 64) == k);
  }
}

TEST_CASE("T-17 cosine rank: edges", "[schedule]") {
  CHECK(cosine_rank{.hold = 0, .total = 10}.fraction(0) == 1);
  CHECK(cosine_rank{.hold = 0, .total = 10}.fraction(5) == Approx(0.625));
  CHECK(cosine_rank{.hold = 10, .total = 10}.fraction(9) == 1);
  CHECK(cosine_rank{.hold = 10, .total = 10}.fraction(10) == 0.25);
  CHECK(cosine_rank{.hold = 20, .total = 10}.fraction(15) == 1);
  CHECK(cosine_rank{.hold = 20, .total = 10}.fraction(20) == 0.25);
  CHECK(cosine_rank{.total = 1}.fraction(0) == 1);
  CHECK(cosine_rank{.total = 1}.fraction(1) == 0.25);
  const cosine_rank flat{.start = 0.5, .end = 0.5, .hold = 3, .total = 30};
  for (index_t t = 0; t < 40; ++t) CHECK(flat.fraction(t) == 0.5);
  const cosine_rank rising{.start = 0.1, .end = 1, .total = 50};
  for (index_t t = 0; t < 60; ++t) CHECK(rising.fraction(t) <= rising.fraction(t + 1));
}

TEST_CASE("T-17 ranks stay within 1 and q", "[schedule]") {
  for (const double end : {1e-9, 0.01, 0.25, 1.0})
    for (const index_t q : {1, 2, 3, 7, 64, 4096}) {
      const nuclear_budget<cosine_rank> whole{.rank = {.end = end, .hold = 2, .total = 20}};
      auto rest = whole;
      rest.residual = true;
      for (index_t t = 0; t < 25; ++t) {
        const double k = whole.rank_budget(t, q), tau = rest.rank_budget(t, q);
        REQUIRE((k >= 1 && k <= static_cast<double>(q) && k == std::floor(k)));
        REQUIRE((tau > 0 && tau <= static_cast<double>(q)));
        REQUIRE(k == std::max(1.0, std::ceil(tau - 1e-9)));
      }
    }
}

TEST_CASE("T-17 fixed and piecewise rank", "[schedule]") {
  CHECK(fixed_rank{0.3}.fraction(12345) == 0.3);
  CHECK(nuclear_budget<fixed_rank>{.rank = {0.05}}.rank_budget(0, 768) == 39);
  const piecewise_rank p{{10, 20}, {1, 0.5, 0.25}};
  p.validate();
  for (const auto& [t, r] : {std::pair<index_t, double>{0, 1}, {9, 1}, {10, 0.5}, {19, 0.5}, {20, 0.25}, {999, 0.25}})
    CHECK(p.fraction(t) == r);  // intervals closed on the left
  CHECK_THROWS_WITH((piecewise_rank{{10, 20}, {1, 0.5}}.validate()), Contains("rank_fractions"));
  CHECK_THROWS_WITH((piecewise_rank{{20, 10}, {1, 0.5, 0.2}}.validate()),
                    Contains("rank_boundaries") && Contains("increasing"));
  CHECK_THROWS_WITH((piecewise_rank{{10, 10}, {1, 0.5, 0.2}}.validate()), Contains("increasing"));
}

TEST_CASE("schedules by fractions of a training", "[schedule]") {
  const cosine_rank paper = cosine_rank::over(1000);
  CHECK((paper.hold == 100 && paper.total == 800 && paper.start == 1 && paper.end == 0.25));
  const cosine_rank quick = cosine_rank::over(10, 0, 0.5);
  CHECK((quick.hold == 0 && quick.total == 5));
  CHECK(cosine_rank::over(1).total == 1);  // a step is the least
  CHECK_THROWS_WITH(cosine_rank::over(0), Contains("total") && Contains("legal: >= 1"));
  CHECK_THROWS_WITH(cosine_rank::over(10, 0.1, 1.5), Contains("1.5") && Contains("legal: [0, 1]"));
  CHECK_THROWS_WITH(cosine_rank::over(10, 0.6, 0.5), Contains("0.6") && Contains("legal: [0, 0.5]"));

  const auto momentum = piecewise_linear::over(200, {{0, 0.85}, {0.1, 0.95}, {0.9, 0.95}, {1, 0.85}});
  const piecewise_linear steps({{0, 0.85}, {20, 0.95}, {180, 0.95}, {200, 0.85}});
  for (index_t t = 0; t < 220; ++t) REQUIRE(momentum(t) == steps(t));
  CHECK_THROWS_WITH(piecewise_linear::over(0, {{0, 1}}), Contains("total") && Contains("legal: >= 1"));
  CHECK_THROWS_WITH(piecewise_linear::over(10, {{-0.1, 1}}), Contains("-0.1") && Contains("legal: [0, 1]"));
  CHECK_THROWS_WITH(piecewise_linear::over(10, {{0.5, 1}, {0.4, 2}}), Contains("0.4") && Contains("increase"));
  CHECK_THROWS_WITH(piecewise_linear::over(10, {{0.5, 1}, {0.51, 2}}), Contains("0.51") && Contains("increase"));
}

// --- learning rates ---

TEST_CASE("learning rate: warm-up, constant, cosine, stable and decay", "[schedule]") {
  const constant_rate c{.warmup = 4};
  CHECK(c.factor(0) == 0.25);
  CHECK(c.factor(3) == 1);
  CHECK(c.factor(400) == 1);
  CHECK(constant_rate{}.factor(0) == 1);

  const cosine_rate cosine{.warmup = 10, .total = 110, .floor = 0.1};
  CHECK(cosine.factor(0) == Approx(0.1));
  CHECK(cosine.factor(9) == 1);
  CHECK(cosine.factor(10) == 1);
  CHECK(cosine.factor(60) == Approx(0.55));
  CHECK(cosine.factor(110) == Approx(0.1));
  CHECK(cosine.factor(500) == Approx(0.1));

  const warmup_stable_decay w{.warmup = 5, .total = 100, .decay = 20, .floor = 0.2};
  CHECK(w.factor(0) == Approx(0.2));
  CHECK(w.factor(5) == 1);
  CHECK(w.factor(79) == 1);
  CHECK(w.factor(80) == 1);
  CHECK(w.factor(90) == Approx(0.6));
  CHECK(w.factor(99) == Approx(0.24));
  CHECK(w.factor(100) == Approx(0.2));
  CHECK(warmup_stable_decay{.total = 10}.factor(9) == 1);  // no decay phase
}

TEST_CASE("the schedule of a setting: straight lines between its points", "[schedule]") {
  const piecewise_linear s({{2, 1.0}, {6, 3.0}, {10, 2.0}});
  CHECK(s(0) == 1);
  CHECK(s(2) == 1);
  CHECK(s(3) == 1.5);
  CHECK(s(6) == 3);
  CHECK(s(8) == 2.5);
  CHECK(s(10) == 2);
  CHECK(s(99) == 2);
  CHECK(linear(0.5, 1.5, 4)(1) == 0.75);
  CHECK_THROWS_WITH(piecewise_linear(std::vector<piecewise_linear::point>{}), Contains("at least one"));
  CHECK_THROWS_WITH(piecewise_linear({{2, 1.0}, {2, 2.0}}), Contains("steps that increase"));
  CHECK_THROWS_WITH(linear(0, 1, 0), Contains(">= 1"));
}

TEST_CASE("scales", "[schedule]") {
  CHECK(unit_scale{}.factor(3, 500) == 1);
  CHECK(fan_ratio{}.factor(64, 16) == 2);
  CHECK(fan_ratio{}.factor(16, 64) == 1);
  CHECK(spectral_ratio{}.factor(16, 64) == 0.5);
  CHECK(match_rms{}.factor(16, 64) == Approx(1.6));
  CHECK(match_rms{.rms = 1}.factor(64, 16) == 8);
}

// --- hyperparameters ---

namespace {
// The error of an optimizer made with this rule.
template <class Rule>
std::string refused(const Rule& rule) {
  try {
    rule.validate();
  } catch (const bad_value& e) {
    return e.what();
  }
  return "accepted";
}
template <class Rule>
std::string refused(const char* key, double value) {
  Rule rule{};
  Rule::settings(rule, [&](std::string_view name, auto& field, range = {}) {
    using V = std::decay_t<decltype(field)>;
    if constexpr (std::is_same_v<V, double> || std::is_same_v<V, index_t>)
      if (name == key) field = static_cast<V>(value);
  });
  return refused(rule);
}
const double not_a_number = std::nan("");
}  // namespace

TEST_CASE("hyperparameters outside their range: name, value, legal range", "[settings]") {
  CHECK_THAT(refused<muon>("momentum", 1), Contains("momentum is 1;") && Contains("[0, 1)"));
  CHECK_THAT(refused<muon>("momentum", -0.1), Contains("momentum is -0.1") && Contains("[0, 1)"));
  CHECK_THAT(refused<muon>("momentum", not_a_number), Contains("momentum is nan"));
  CHECK_THAT(refused<muon>("decay", -1), Contains("decay is -1") && Contains(">= 0"));
  CHECK_THAT(refused<muon>("decay", INFINITY), Contains("decay is inf"));
  CHECK_THAT(refused<muon>("ns_steps", 0), Contains("ns_steps is 0") && Contains("[1, 99]"));
  CHECK_THAT(refused<muon>("ns_eps", -1e-9), Contains("ns_eps") && Contains(">= 0"));
  CHECK_THAT(refused<muown>("rms", 0), Contains("rms is 0") && Contains("> 0"));
  CHECK_THAT(refused<muown>("beta1", 1), Contains("beta1 is 1") && Contains("[0, 1)"));
  CHECK_THAT(refused<muown>("beta2", -0.5), Contains("beta2 is -0.5"));
  CHECK_THAT(refused<muown>("eps", 0), Contains("eps is 0") && Contains("> 0"));
  CHECK_THAT(refused<muown>("decay", not_a_number), Contains("decay is nan"));
  CHECK_THAT(refused<adamw>("beta1", 1.5), Contains("beta1 is 1.5"));
  CHECK_THAT(refused<adamw>("beta2", not_a_number), Contains("beta2 is nan"));
  CHECK_THAT(refused<adamw>("eps", -1), Contains("eps is -1"));
  CHECK_THAT(refused<angular_muown>("angle_decay_scale", -1), Contains("angle_decay_scale"));
  CHECK_THAT(refused<angular_muown>("angle_decay_degree", not_a_number), Contains("angle_decay_degree"));
  CHECK_THAT(refused<angular_muown>("angle_warmup", -1), Contains("angle_warmup is -1"));
  CHECK_THAT(refused<numuon>("rank_start", 0), Contains("rank_start is 0") && Contains("(0, 1]"));
  CHECK_THAT(refused<numuon>("rank_end", 1.5), Contains("rank_end is 1.5") && Contains("(0, 1]"));
  CHECK_THAT(refused<numuon>("rank_hold", -1), Contains("rank_hold is -1"));
  CHECK_THAT(refused<numuon>("rank_total", 0), Contains("rank_total is 0") && Contains("has no default"));
  CHECK_THROWS_WITH(numuon{}.validate(), Contains("rank_total is 0"));
  CHECK_NOTHROW(numuon{.constraint = {.rank = {.start = 0.25}}}.validate());  // the same all along: no total is needed
  CHECK_THAT(refused<numuon_krylov>("krylov_iterations", 0), Contains("krylov_iterations"));
  CHECK_THAT(refused<numuon_krylov>("krylov_oversampling", -1), Contains("krylov_oversampling"));
  CHECK_THAT(refused<numuon_krylov>("krylov_seed", -1), Contains("krylov_seed"));
  CHECK_THAT(refused<numuon>("subspace_iterations", 0), Contains("subspace_iterations is 0"));
  CHECK_THAT(refused<numuon>("subspace_noise", 1.5), Contains("subspace_noise is 1.5"));
  using fixed = numuon::with_constraint<nuclear_budget<fixed_rank>>;
  for (const double fraction : {0.0, 1.5, -0.25, not_a_number}) {
    CAPTURE(fraction);
    CHECK_THAT(refused<fixed>("rank_fraction", fraction), Contains("rank_fraction is ") && Contains("(0, 1]"));
  }
  using steps = numuon::with_constraint<nuclear_budget<piecewise_rank>>;
  CHECK_THAT(refused(steps{.constraint = {.rank = {{10}, {0.5}}}}), Contains("rank_fractions"));
  CHECK_THAT(refused(steps{.constraint = {.rank = {{10}, {0.5, 0}}}}), Contains("rank_fractions is 0"));
  CHECK(refused(muon{}) == "accepted");

  // The optimizer's constructor asks.
  eigen_backend cpu(1);
  CHECK_THROWS_AS((optimizer<muon, eigen_backend>(cpu, {.momentum = {.beta = 2}})), bad_value);
  CHECK_THROWS_AS((optimizer<steps, eigen_backend>(cpu, {.constraint = {.rank = {{10}, {0.5}}}})), bad_value);
}

TEST_CASE("settings reach every slot by name; a misspelt one is told the nearest", "[settings]") {
  numuon r;
  set_setting(r, "rank_end", "0.5"), set_setting(r, "decay", "0.25"), set_setting(r, "momentum", "0.8");
  set_setting(r, "residual", "true"), set_setting(r, "subspace_iterations", "3");
  CHECK(r.constraint.rank.end == 0.5);
  CHECK(r.constraint.inner.decay == 0.25);
  CHECK(r.momentum.beta == 0.8);
  CHECK(r.constraint.residual);
  CHECK(r.orthogonalizer.iterations == 3);
  CHECK_THROWS_WITH(set_setting(r, "momentun", "0.9"),
                    Contains("unknown setting \"momentun\"") && Contains("nearest: \"momentum\""));
  CHECK_THROWS_WITH(set_setting(r, "ns_steps", "5"), Contains("known: momentum"));
  muon m;
  set_setting(m, "ns_coefficients", "polar_express");
  CHECK(m.orthogonalizer.coefficients == coefficient_set::polar_express);
  CHECK(muon::name() == "rule<nesterov_ema,newton_schulz,none,decoupled_decay,fan_ratio>");
}
