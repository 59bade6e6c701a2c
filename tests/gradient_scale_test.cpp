// step(lr, gradient_scale): a gradient times a number, whatever the rule. For every rule: contract/contract_test.cpp.
#include <catch2/catch.hpp>

#include <cstring>

#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/muon_vs.hpp>
#include <matopt/muown.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/constraint/independent_decay.hpp>
#include <matopt/scion.hpp>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;
using Catch::Matchers::Contains;

namespace {

template <class Rule, class Types>
struct run {
  using W = typename Types::weight;
  using G = typename Types::gradient;
  eigen_backend cpu{1};
  stored<W> w{6, 9};
  stored<G> g{6, 9}, r{6, 9};
  optimizer<Rule, eigen_backend, Types> opt;

  explicit run(const Rule& rule, bool scales) : opt(cpu, rule, {.scales_gradient = scales}) {
    w.fill_random(1);
    if constexpr (needs_reference<typename Rule::momentum_type>)
      opt.add("w", w.v(), g.cv(), r.cv());
    else
      opt.add("w", w.v(), g.cv());
    opt.finalize();
  }
};

// Scale s on gradient g against gradient s g, with another s in each step (Muon by itself does not see a constant one).
template <class Rule, class T>
void check_scale(const Rule& rule) {
  run<Rule, types<T>> scaled(rule, true), multiplied(rule, false), plain(rule, false);
  const double scales[] = {0.3, 1.7, 0.01, 1};
  for (std::uint64_t t = 0; t < 4; ++t) {
    scaled.g.fill_random(10 + t), scaled.r.fill_random(20 + t), plain.g.fill_random(10 + t),
        plain.r.fill_random(20 + t);
    const auto times = [&](const stored<T>& x) {
      return [&, s = static_cast<T>(scales[t])](index_t i, index_t j, index_t) {
        return static_cast<double>(s * x(i, j));
      };
    };
    multiplied.g.fill(times(scaled.g)), multiplied.r.fill(times(scaled.r));
    scaled.opt.step(0.02, scales[t]), multiplied.opt.step(0.02), plain.opt.step(0.02);
    CHECK(largest(to_mat(scaled.w.cv()) - to_mat(multiplied.w.cv())) < tolerance<T>);
  }
  CHECK(largest(to_mat(scaled.w.cv()) - to_mat(plain.w.cv())) > 1e-3);
}

}  // namespace

TEST_CASE("scale s on gradient g is gradient s g", "[gradient_scale]") {
  check_scale<muon, double>({}), check_scale<muon, float>({});
  check_scale<adamw, double>({.momentum = {.eps = 0.5}}), check_scale<adamw, float>({.momentum = {.eps = 0.5}});
  check_scale<muown, double>({}), check_scale<muown, float>({});
  check_scale<adamw::with_constraint<coupled_decay>, double>({.momentum = {.eps = 0.5}, .constraint = {.decay = 0.5}});
  check_scale<muon_vs, double>({.momentum = {.amplify_below = 0.01}});
  check_scale<muon_storm, double>({}), check_scale<muon_storm, float>({});
}

TEST_CASE("a scaled gradient has the compute type", "[gradient_scale]") {
  // 0.3 g of a bfloat16 g, not rounded to bfloat16 again
  run<adamw, types<float, bfloat16, float>> scaled({.momentum = {.eps = 0.5}}, true);
  run<adamw, types<float>> wide({.momentum = {.eps = 0.5}}, false);
  for (std::uint64_t t = 0; t < 3; ++t) {
    scaled.g.fill_random(10 + t);
    wide.g.fill(
        [&](index_t i, index_t j, index_t) { return static_cast<double>(0.3F * static_cast<float>(scaled.g(i, j))); });
    scaled.opt.step(0.02, 0.3), wide.opt.step(0.02);
    CHECK(same_bits(elements(scaled.w.cv()), elements(wide.w.cv())));
  }
}

TEST_CASE("float16: gradients of a scaled loss, in float and float16 state", "[gradient_scale][float16]") {
  // A gradient of about 1e-6 would be 4 bits in float16; times 2^14 it has them all.
  constexpr double loss_scale = 0x1p14;
  const auto follow = [&]<class Rule, class Types>(const Rule& rule, Types*) {
    run<Rule, Types> narrow(rule, true);
    run<Rule, types<double>> wide(rule, false);
    wide.w.fill([&](index_t i, index_t j, index_t) { return static_cast<double>(narrow.w(i, j)); });
    for (std::uint64_t t = 0; t < 4; ++t) {
      narrow.g.fill_random(10 + t, 1e-6 * loss_scale);
      wide.g.fill([&](index_t i, index_t j, index_t) { return static_cast<double>(narrow.g(i, j)) / loss_scale; });
      narrow.opt.step(0.02, 1 / loss_scale), wide.opt.step(0.02);
      CHECK(largest(to_mat(narrow.w.cv()) - to_mat(wide.w.cv())) < tolerance<float16>);
    }
  };
  follow(muon{}, static_cast<types<float16, float16, float>*>(nullptr));
  follow(adamw{}, static_cast<types<float16, float16, float>*>(nullptr));

  // A loss scale that was too large makes infinite gradients: that step is skipped.
  run<muon, types<float16, float16, float>> r({}, true);
  const auto before = elements(r.w.cv());
  r.g.fill_random(2, 6e4), r.g.v()(3, 4) = float16(1e6F);
  r.opt.step(0.02, 1 / loss_scale);
  CHECK(r.opt.poll_status().skipped == 1);
  CHECK(same_bits(elements(r.w.cv()), before));
  r.g.fill_random(2, 6e4);
  r.opt.step(0.02, 1);
  CHECK(r.opt.poll_status().skipped == 0);
}

TEST_CASE("float16 state: gradients that it has no room for skip the step, and others never overflow it",
          "[gradient_scale][float16]") {
  const auto limit = static_cast<float>(largest_input<float16, float16, float>);
  CHECK(limit == 64);
  run<muon, types<float16, float16, float16>> r({.momentum = {.beta = 0.999}}, true);
  r.g.fill_random(2), r.g.v()(3, 4) = float16(limit + 1);
  const auto before = elements(r.w.cv());
  r.opt.step(0.02);
  CHECK(r.opt.poll_status().skipped == 1);
  CHECK(same_bits(elements(r.w.cv()), before));
  r.opt.step(0.02, 0.5);
  CHECK(r.opt.poll_status().skipped == 0);
  r.g.fill([&](index_t, index_t, index_t) { return static_cast<double>(limit); });
  for (int t = 0; t < 3000; ++t) r.opt.step(0);
  CHECK(r.opt.poll_status().skipped == 0);
  r.opt.step(0.02);
  CHECK(all_finite(r.w.cv()));
  for (const state_tensor& s : r.opt.state_tensors()) {
    REQUIRE(s.type == element_type::f16);
    std::vector<float16> kept(static_cast<std::size_t>(s.rows * s.cols));
    r.opt.read_state(s, kept.data());
    for (const float16 x : kept) CHECK(math::finite(static_cast<float>(x)));
  }
  // Second moments of the largest gradients.
  run<adamw, types<float16, float16, float16>> a({}, false);
  a.g.fill([&](index_t, index_t, index_t) { return static_cast<double>(limit); });
  for (int t = 0; t < 100; ++t) a.opt.step(1e-3);
  CHECK(all_finite(a.w.cv()));
  CHECK(a.opt.poll_status().skipped == 0);
}

TEST_CASE("a scale costs no memory where a formula takes the gradient", "[gradient_scale]") {
  const auto scratch = []<class Rule>(const Rule& rule, bool scales) {
    return run<Rule, types<float>>(rule, scales).opt.memory().scratch_bytes;
  };
  const auto check_none = [&](const auto& rule) { CHECK(scratch(rule, true) == scratch(rule, false)); };
  check_none(muon{}), check_none(muown{}), check_none(adamw{}), check_none(adamw::with_constraint<coupled_decay>{});
  CHECK(scratch(adamw{}, true) == 0);
  CHECK(scratch(muon_storm{}, true) > scratch(muon_storm{}, false));
}

TEST_CASE("the check of finite gradients sees what the rule sees", "[gradient_scale]") {
  const auto skipped = [](auto& r, double scale) {
    const auto before = elements(r.w.cv());
    r.opt.step(0.02, scale);
    const bool unchanged = same_bits(before, elements(r.w.cv()));
    const step_status status = r.opt.poll_status();
    CHECK(status.skipped == index_t{unchanged});
    CHECK(status.parameters.size() == std::size_t{unchanged});
    return unchanged;
  };
  SECTION("overflow by the scale") {
    run<muon, types<float>> r({}, true);
    r.g.fill_random(2), r.g.v()(3, 4) = 1e30F;
    CHECK(!skipped(r, 1));
    CHECK(!skipped(r, 1e-5));
    CHECK(skipped(r, 1e10));
    r.g.v()(3, 4) = std::nanf("");
    CHECK(skipped(r, 1));
  }
  SECTION("of the reference gradient") {
    run<muon_storm, types<float>> r({}, true);
    r.g.fill_random(2), r.r.fill_random(3), r.r.v()(5, 8) = -1e30F;
    CHECK(!skipped(r, 1));
    CHECK(skipped(r, 1e10));
  }
  SECTION("a double gradient beyond float") {
    run<muon, types<float, double, float>> r({}, true);
    r.g.fill_random(2, 1e40);
    CHECK(skipped(r, 1));
    CHECK(!skipped(r, 1e-30));
  }
}

TEST_CASE("gradient scales outside their range, and one that was not asked for", "[gradient_scale][errors]") {
  run<muon, types<float>> with({}, true), without({}, false);
  const auto before = elements(with.w.cv());
  for (const double s : {-1.0, -static_cast<double>(INFINITY), -1e-60}) {
    CHECK_THROWS_AS(with.opt.step(0.1, s), bad_value);
    CHECK_THROWS_WITH(with.opt.begin_step(0.1, s), Contains("gradient_scale is -") && Contains("finite and > 0"));
  }
  for (const double s : {1e-60, 1e60})  // 0 and infinity in float
    CHECK_THROWS_WITH(with.opt.step(0.1, s),
                      Contains("gradient_scale is 1e") && Contains("compute type, which is float"));
  for (const double s : {0.5, 0.0, -1.0, std::nan(""), static_cast<double>(INFINITY)})
    CHECK_THROWS_WITH(without.opt.step(0.1, s),
                      Contains("gradient_scale is ") && Contains("optimizer_options::scales_gradient"));
  CHECK(with.opt.steps() == 0);
  CHECK(without.opt.steps() == 0);
  CHECK(same_bits(before, elements(with.w.cv())));
  without.opt.step(0.1, 1);
  run<muon, types<double>> wide({}, true);
  wide.opt.step(0.1, 1e-60);
  CHECK(wide.opt.steps() == 1);

  // Rates that float cannot hold are refused, too, also by the factor of one parameter.
  CHECK_THROWS_WITH(with.opt.step(1e39), Contains("lr is 1e+39") && Contains("in float, which steps are computed in"));
  CHECK(with.opt.steps() == 0);
}

namespace {

// A step whose gradient scale is of no use, between ordinary ones, against a run that never had it.
template <class Rule>
void check_skipped_scale(const Rule& rule, on_nonfinite mode) {
  for (const double scale : {0.0, -0.0, std::nan(""), static_cast<double>(INFINITY)}) {
    CAPTURE(Rule::name(), scale, mode == on_nonfinite::ignore);
    struct one {
      eigen_backend cpu{1};
      stored<float> w{6, 9}, g{6, 9}, r{6, 9}, v{1, 4}, gv{1, 4}, rv{1, 4};
      any_optimizer<eigen_backend> opt;
      one(const Rule& rule, on_nonfinite mode) : opt(cpu, rule, {.nonfinite = mode, .scales_gradient = true}) {
        w.fill_random(1), v.fill_random(2);
        opt.add("w", w.v(), g.cv(), r.cv()), opt.add("v", v.v(), gv.cv(), rv.cv());
        opt.finalize();
      }
      void step(std::uint64_t t, double s) {
        g.fill_random(10 + t), r.fill_random(20 + t), gv.fill_random(30 + t);
        opt.step(0.02, s);
      }
    } hit(rule, mode), clean(rule, mode);
    hit.step(0, 0.5), clean.step(0, 0.5);
    const auto before = elements(hit.w.cv());
    hit.step(1, scale);  // all gradients are finite: the norm that the caller took has overflowed
    CHECK(same_bits(before, elements(hit.w.cv())));
    hit.g.fill_random(7), hit.g.v()(2, 3) = INFINITY;
    hit.opt.step(0.02, scale);  // or one is not
    CHECK(same_bits(before, elements(hit.w.cv())));
    const step_status status = hit.opt.poll_status();
    CHECK(status.skipped == 2);
    CHECK(status.unusable_scales == 2);
    CHECK(status.parameters ==
          (mode == on_nonfinite::ignore ? std::vector<std::string>{} : std::vector<std::string>{"w"}));
    CHECK(hit.opt.poll_status());
    CHECK(hit.opt.poll_status().unusable_scales == 0);
    CHECK(hit.opt.steps() == 3);
    hit.opt.set_steps(1);
    for (std::uint64_t t = 1; t < 4; ++t) {
      hit.step(t, 0.25), clean.step(t, 0.25);
      CHECK(same_bits(elements(hit.w.cv()), elements(clean.w.cv())));
      CHECK(same_bits(elements(hit.v.cv()), elements(clean.v.cv())));
    }
    CHECK_FALSE(same_bits(before, elements(hit.w.cv())));
  }
}

}  // namespace

TEST_CASE("a gradient scale of 0, NaN or infinity skips the step, and leaves no trace", "[gradient_scale]") {
  for (const auto mode : {on_nonfinite::skip_step, on_nonfinite::ignore}) {
    check_skipped_scale(muon{}, mode), check_skipped_scale(adamw{}, mode);
    check_skipped_scale(muown{}, mode), check_skipped_scale(muon_storm{}, mode);
  }
}

TEST_CASE("parameter groups scale all gradients, or none", "[gradient_scale]") {
  using matrix = optimizer<muon, eigen_backend, types<double>>;
  using rest = optimizer<adamw, eigen_backend, types<double>>;
  struct both {
    eigen_backend cpu{1};
    stored<double> w{6, 9}, g{6, 9}, v{1, 7}, gv{1, 7};
    param_groups<eigen_backend, types<double>> groups;
    both(bool first, bool second)
        : groups(matrix(cpu, {}, {.scales_gradient = first}), 0.02,
                 rest(cpu, {.momentum = {.eps = 0.5}}, {.scales_gradient = second}), 0.1) {
      w.fill_random(1), v.fill_random(2), g.fill_random(3), gv.fill_random(4);
      groups.add("w", w.v(), g.cv(), role::hidden);
      groups.add("v", v.v(), gv.cv(), role::vector);
      groups.finalize();
    }
    void times(double s) {
      for (auto* x : {&g, &gv})
        for (auto& e : x->memory()) e *= s;
    }
  };
  both scaled(true, true), multiplied(false, false);
  for (const double s : {0.25, 8.0, 1.0}) {
    multiplied.times(s);
    scaled.groups.step(0.5, s), multiplied.groups.step(0.5);
    multiplied.times(1 / s);
    CHECK(same_bits(elements(scaled.w.cv()), elements(multiplied.w.cv())));
    CHECK(same_bits(elements(scaled.v.cv()), elements(multiplied.v.cv())));
  }
  both half(true, false);
  const auto w = elements(half.w.cv());
  CHECK_THROWS_WITH(half.groups.step(1, 0.5), Contains("scales_gradient"));
  CHECK(half.groups.steps() == 0);  // the group that could have begun has not
  CHECK(same_bits(w, elements(half.w.cv())));
  half.groups.step(1, 1);
  CHECK(half.groups.steps() == 1);
}

TEST_CASE("a rate, factor or decay that is not finite in the compute type is refused by name, and nothing steps") {
  eigen_backend cpu(1);
  stored<float> w(3, 4), g(3, 4), w2(3, 4), g2(3, 4);
  w.fill_random(1), g.fill_random(2), w2.fill_random(3), g2.fill_random(4);
  optimizer<muon, eigen_backend> opt(cpu);
  opt.add("w", w.v(), g.cv(), {.lr_scale = 1e6});
  const auto before = elements(w.cv());
  CHECK_THROWS_WITH(opt.add("v", w2.v(), g2.cv(), {.lr_scale = 1e39}),
                    Contains("lr_scale of \"v\"") && Contains("1e+39"));
  CHECK_THROWS_WITH(opt.add("v", w2.v(), g2.cv(), {.decay = 1e39}), Contains("decay of \"v\"") && Contains("float"));
  opt.finalize();
  for (const double lr : {1e39, 3e38, 1e300}) CHECK_THROWS_WITH(opt.step(lr), Contains("lr") && Contains("float"));
  CHECK_THROWS_WITH(opt.step(1e28), Contains("lr_scale of \"w\""));
  CHECK(opt.steps() == 0);
  CHECK(elements(w.cv()) == before);
  CHECK_THROWS_WITH((optimizer<adamw, eigen_backend>(cpu, {.momentum = {.eps = 5e-324}})),
                    Contains("eps") && Contains("5e-324") && Contains("float"));
  CHECK_THROWS_WITH((optimizer<adamw, eigen_backend>(cpu, {.momentum = {.beta2 = 1 - 1e-12}})),
                    Contains("beta2") && Contains("[0, 1)") && Contains("float"));
  CHECK_THROWS_WITH((optimizer<muon_vs, eigen_backend>(cpu, {.momentum = {.eps = 1e-50}})), Contains("variance_eps"));
  CHECK_THROWS_WITH((optimizer<muon, eigen_backend>(cpu, {.constraint = {.decay = 1e39}})), Contains("decay"));

  param_groups groups(optimizer<muon, eigen_backend>(cpu), 0.02, optimizer<adamw, eigen_backend>(cpu), 1e10);
  groups.add("hidden", w.v(), g.cv(), role::hidden), groups.add("head", w2.v(), g2.cv(), role::head);
  groups.finalize();
  CHECK_THROWS_WITH(groups.step(1e25), Contains("lr"));
  CHECK(groups.steps() == 0);

  // In double all of them are numbers like others.
  stored<double> wd(3, 4), gd(3, 4);
  gd.fill_random(5);
  optimizer<adamw, eigen_backend, types<double>> wide(cpu, {.momentum = {.beta2 = 1 - 1e-12, .eps = 1e-50}});
  wide.add("w", wd.v(), gd.cv(), {.decay = 0.0});
  wide.finalize();
  wide.step(1e39);
  CHECK(all_finite(wd.cv()));
}

TEST_CASE("a decay that makes weights grow is refused with its rate, and nothing steps") {
  eigen_backend cpu(1);
  stored<float> w(3, 4), g(3, 4), w2(3, 4), g2(3, 4);
  w.fill_random(1), g.fill_random(2), w2.fill_random(3), g2.fill_random(4);
  param_groups<eigen_backend> groups(cpu);
  groups.add_group("hidden", scion{}, 1).add_group("rest", adamw{.constraint = {.decay = 1}}, 1);
  groups.add("w", w.v(), g.cv(), "hidden"), groups.add("v", w2.v(), g2.cv(), "rest", {.lr_scale = 0.5, .decay = 3});
  groups.finalize();
  const auto refused = [&](const char* name) {
    const auto before = elements(w.cv()), before2 = elements(w2.cv());
    const index_t steps = groups.steps();
    CHECK_THROWS_WITH(groups.step(),
                      Contains("lr times decay of \"" + std::string(name) + '"') && Contains("at most 2"));
    CHECK(groups.steps() == steps);
    CHECK(elements(w.cv()) == before);
    CHECK(elements(w2.cv()) == before2);
  };
  groups.step();  // 1 and 1.5
  groups.set("hidden", "lr", 2.5), refused("w");
  groups.set("hidden", "constrained", "false"), groups.step();  // and no decay
  groups.set_parameter("v", 1, 3), refused("v");
  groups.set_parameter("v", 1), groups.step();
  groups.schedule("rest", "decay", [](index_t) { return 1e20; }), refused("v");
  groups.schedule("rest", "decay", {});
  for (int t = 0; t < 50; ++t) groups.step();
  CHECK(all_finite(w.cv()));
  CHECK(all_finite(w2.cv()));

  // A decay that the rate does not multiply, of a parameter too, has no product with it.
  optimizer<adamw::with_constraint<independent_decay>, eigen_backend> steady(cpu);
  steady.add("w", w.v(), g.cv(), {.decay = 0.5});
  steady.finalize();
  steady.step(10);
  steady.set("decay_rate", "coupled");
  CHECK_THROWS_WITH(steady.step(10), Contains("lr times decay of \"w\" is 5"));
  steady.step(4);
  CHECK(steady.steps() == 2);
}

TEST_CASE("a gradient beyond what the narrowest type has room for skips the step, whatever its own type") {
  const auto check = [](auto rule, auto types_of, double size, bool skips) {
    using T = decltype(types_of);
    CAPTURE(size, skips);
    run<decltype(rule), T> r(rule, false);
    const auto before = elements(r.w.cv());
    for (int t = 0; t < 60; ++t) {
      r.g.fill([&](index_t i, index_t j, index_t) { return i == j ? size : 0; });
      r.r.fill([&](index_t i, index_t j, index_t) { return i == j ? size : 0; });
      r.opt.step(0.01);
    }
    const auto status = r.opt.poll_status();
    CHECK(status.skipped == (skips ? 60 : 0));
    CHECK(status.parameters.size() == (skips ? 1 : 0));
    CHECK(all_finite(r.w.cv()));
    CHECK((elements(r.w.cv()) == before) == skips);
    CHECK(largest(to_mat(r.w.cv())) < 1e3);
    for (const auto& s : r.opt.state_tensors()) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(s.rows * s.cols) * size_of(s.type));
      r.opt.read_state(s, bytes.data());
      for (std::size_t i = 0; i < bytes.size(); i += size_of(s.type)) {
        float f = 0;
        double d = 0;
        if (s.type == element_type::f32) std::memcpy(&f, &bytes[i], sizeof f);
        if (s.type == element_type::f64) std::memcpy(&d, &bytes[i], sizeof d);
        CHECK(math::finite(f));
        CHECK(math::finite(d));
      }
    }
  };
  const auto each_rule = [&](auto types_of, double size, bool skips) {
    check(adamw{}, types_of, size, skips), check(muown{}, types_of, size, skips);
    check(muon_vs{}, types_of, size, skips);
  };
  for (const double size : {1e20, 1e25, 1e31}) {
    each_rule(types<float, double, float, float>{}, size, false);
    each_rule(types<double, double, float, double>{}, size, false);
  }
  for (const double size : {1e37, 1e39, 1e300}) {
    each_rule(types<float, double, float, float>{}, size, true);
    each_rule(types<double, double, float, double>{}, size, true);
    each_rule(types<float, double, double, double>{}, size, true);
    each_rule(types<double>{}, size, false);
  }
}
