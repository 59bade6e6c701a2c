// Every golden trajectory of Muon, NuMuon, Muown, AngularMuown and AdamW, and the bare orthogonalizers, in double.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "support/golden.hpp"
#include "support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;
using nlohmann::json;

namespace {

// Runs the case with this rule and compares the weight after each step.
template <class Rule>
void replay(const Rule& rule, const json& c) {
  CAPTURE(c.at("label").get<std::string>(), c.at("shape").dump());
  eigen_backend cpu(2);
  dense_matrix w = matrix_of(c.at("W0")), g = w;
  optimizer<Rule, eigen_backend, types<double>> opt(cpu, rule);
  opt.add("w", w.as_view(), g.as_view());
  opt.finalize();
  for (std::size_t t = 0; t < c.at("G").size(); ++t) {
    const dense_matrix next = matrix_of(c.at("G")[t]);
    std::copy(next.data.begin(), next.data.end(), g.data.begin());  // the optimizer holds the address
    opt.step(c.at("settings").at("lr").get<double>());
    CAPTURE(t);
    CHECK(relative_error(w, matrix_of(c.at("W")[t])) < tolerance<double>);
  }
}

template <class Rule>
Rule with_settings(Rule rule, const json& s, std::initializer_list<std::pair<const char*, const char*>> names) {
  for (const auto& [theirs, ours] : names)
    if (s.contains(theirs))
      set_setting(rule, ours,
                  s.at(theirs).is_string() ? s.at(theirs).template get<std::string>() : s.at(theirs).dump());
  return rule;
}

// Calls f with `rule` under the scale that the case asks for.
template <class Rule, class F>
void with_scale(const json& s, F f) {
  const std::string scale = s.at("scale");
  if (scale == "none") return f(typename Rule::template with_scale<unit_scale>{});
  if (scale == "sqrt_max1") return f(typename Rule::template with_scale<fan_ratio>{});
  if (scale == "match_rms") return f(typename Rule::template with_scale<match_rms>{});
  REQUIRE(scale == "sqrt_out_over_in");
  f(typename Rule::template with_scale<spectral_ratio>{});
}

}  // namespace

TEST_CASE("golden: muon", "[golden]") {
  int seen = 0;
  for (const auto& c : golden_cases("muon_family.json")) {
    const auto& s = c.at("settings");
    const std::string rule = c.at("rule");
    const auto run = [&]<class R>(R r) {
      r = with_settings(r, s, {{"weight_decay", "decay"}, {"momentum", "momentum"}});
      if (rule == "muon_torch") r.orthogonalizer.rule = eps_rule::max;
      replay(r, c);
      ++seen;
    };
    if (rule == "muon_kj")
      s.at("nesterov").get<bool>() ? run(muon{}) : run(muon::with_momentum<ema>{});
    else if (rule == "muon_torch")
      s.at("adjust_lr_fn").is_null() ? run(muon{}) : run(muon::with_scale<match_rms>{});
    else if (rule == "moonlight")
      run(muon::with_momentum<nesterov_heavy_ball>::with_scale<match_rms>{});
  }
  CHECK(seen == 15);
}

TEST_CASE("golden: adamw", "[golden]") {
  int seen = 0;
  for (const auto& c : golden_cases("muon_family.json")) {
    if (c.at("rule") != "adamw") continue;
    const auto& s = c.at("settings");
    adamw r =
        with_settings(adamw{}, s, {{"weight_decay", "decay"}, {"beta1", "beta1"}, {"beta2", "beta2"}, {"eps", "eps"}});
    if (s.at("eps_mode") == "uncorrected") r.momentum.eps_mode = adam_eps::uncorrected;
    replay(r, c);
    ++seen;
  }
  CHECK(seen == 6);
}

TEST_CASE("golden: numuon", "[golden]") {
  int seen = 0;
  for (const auto& c : golden_cases("numuon.json")) {
    const auto& s = c.at("settings");
    const auto run = [&]<class Schedule>(Schedule schedule) {
      using exact = numuon::with_orthogonalizer<svd_polar>::with_constraint<nuclear_budget<Schedule>>;
      with_scale<exact>(s, [&](auto r) {
        r.constraint.rank = schedule;
        r = with_settings(r, s, {{"weight_decay", "decay"}, {"momentum", "momentum"}});
        for (std::size_t t = 0; t < c.at("rank").size(); ++t) {
          const index_t q = std::min(c.at("shape")[0].get<index_t>(), c.at("shape")[1].get<index_t>());
          CHECK(r.constraint.rank_budget(static_cast<index_t>(t), q) == c.at("rank")[t].get<double>());
        }
        replay(r, c);
        ++seen;
      });
    };
    const std::string schedule = s.at("rank_schedule");
    if (schedule == "fixed") run(fixed_rank{s.at("rank_fraction")});
    if (schedule == "cosine")
      run(cosine_rank{s.at("rank_start"), s.at("rank_end"), s.at("rank_hold_steps"), s.at("rank_end_step")});
    if (schedule == "piecewise") run(piecewise_rank{s.at("rank_boundaries"), s.at("rank_fractions")});
  }
  CHECK(seen == 18);
}

TEST_CASE("golden: muown and angular muown", "[golden]") {
  int seen = 0;
  for (const auto& c : golden_cases("muown.json")) {
    const auto& s = c.at("settings");
    const auto run = [&]<class R>(R r) {
      r = with_settings(r, s,
                        {{"weight_decay", "decay"},
                         {"momentum", "momentum"},
                         {"beta1", "beta1"},
                         {"beta2", "beta2"},
                         {"eps", "eps"},
                         {"angle_warmup", "angle_warmup"},
                         {"angle_decay_scale", "angle_decay_scale"},
                         {"angle_decay_degree", "angle_decay_degree"}});
      replay(r, c);
      ++seen;
    };
    const std::string label = c.at("label");
    using exact = muown::with_orthogonalizer<svd_polar>;
    using angular = angular_muown::with_orthogonalizer<svd_polar>;
    if (label == "muown" || label == "muown_decay") run(exact{});
    if (label == "muown_no_nesterov") run(exact::with_momentum<heavy_ball>{});
    if (label == "muown_ns5") run(muown{});
    // The ablations fix their own betas.
    const auto ablation = [&]<class M>(M) {
      replay(exact::with_constraint<row_norm<M>>{}, c);
      ++seen;
    };
    if (label == "muown_magnitude_fixed") ablation(fixed_magnitude{});
    if (label == "muown_magnitude_sgd") ablation(sgd_magnitude{});
    if (label == "muown_magnitude_signum") ablation(signum_magnitude{});
    if (label == "muown_magnitude_lion") ablation(lion_magnitude{});
    if (label == "angular_muown") run(angular{});
    if (label == "angular_muown_match_rms") run(angular::with_scale<match_rms>{});
    if (label == "angular_muown_polar_express") run(angular_muown{});
  }
  CHECK(seen == 33);
}

TEST_CASE("golden: orthogonalizers", "[golden]") {
  int seen = 0;
  for (const auto& c : golden_cases("orthogonalizers.json")) {
    CAPTURE(c.at("label").get<std::string>(), c.at("shape").dump());
    eigen_backend cpu(1);
    dense_matrix x = matrix_of(c.at("X"));
    eigen_backend::buffer memory = cpu.allocate(1 << 16);
    arena scratch{memory.data()};
    step_numbers<double> numbers;
    const index_t k =
        c.at("label") == "top_k_exact" ? c.at("settings").at("k").get<index_t>() : std::min(x.rows, x.cols);
    pass<eigen_backend, double> e(cpu, scratch, nullptr, &numbers, 1, k);
    no_state s;
    const std::string label = c.at("label");
    if (label == "newton_schulz5") newton_schulz<>{}.orthogonalize(e, s, x.as_view());
    if (label == "polar_express5")
      newton_schulz<>{.coefficients = coefficient_set::polar_express_angular}.orthogonalize(e, s, x.as_view());
    if (label == "polar_exact" || label == "top_k_exact") svd_polar{}.orthogonalize(e, s, x.as_view());
    CHECK(relative_error(x, matrix_of(c.at("Y"))) < tolerance<double>);
    ++seen;
  }
  CHECK(seen == 12);
}
