// The master copy of a weight and how it is rounded. The whole contract is walked by constraint_contract_test.cpp.
#include <catch2/catch.hpp>

#include <map>

#include <matopt/muon.hpp>
#include <matopt/muon_h.hpp>
#include <matopt/muown.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/nuclear_budget.hpp>
#include <matopt/policy/constraint/spectral_threshold.hpp>
#include <matopt/policy/orthogonalizer/subspace_polar.hpp>
#include <matopt/policy/schedule/rank.hpp>

#include "constraint_support.hpp"

using namespace matopt;
using namespace matopt::test;
using Catch::Matchers::Contains;

namespace {

// What the decorator rounds by, with given random bits.
template <class W>
struct rounding_to {
  static constexpr float rounded(float x, std::uint32_t random) { return detail::rounded_by_chance<W>(x, random); }
};
using to_bfloat16 = rounding_to<bfloat16>;
using bf16_float = types<bfloat16, float, float>;

float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }

// An optimizer of one weight and its gradient in any types, from numbers in double.
template <class Rule, class Types>
struct run {
  eigen_backend cpu{1};
  stored<typename Types::weight> w;
  stored<typename Types::gradient> g;
  optimizer<Rule, eigen_backend, Types> opt;

  run(const Rule& rule, const mat& w0, layout l = layout::row_major)
      : w(w0.rows, w0.cols, l), g(w0.rows, w0.cols, l), opt(cpu, rule) {
    w.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
    opt.add("w", w.v(), g.cv());
    opt.finalize();
  }
  void step(const mat& gradient, double lr) {
    g.fill([&](index_t i, index_t j, index_t) { return gradient(i, j); });
    opt.step(lr);
  }
  template <class T = float>
  view<const T> state(const std::string& name) {
    for (const auto& s : opt.state_tensors())
      if (s.name == "w." + name) {
        REQUIRE(s.type == element_type_of<T>());
        return {static_cast<const T*>(s.data), s.rows, s.cols, s.row_stride, s.col_stride};
      }
    throw std::runtime_error("no state " + name);
  }
};

mat in_bfloat16(mat m) {
  for (auto& x : m.a) x = static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(x))));
  return m;
}

static_assert(takes_column_rates<master_weights<>> &&
              !changes_gradient<master_weights<>, eigen_backend, types<double>>);
static_assert(!takes_column_rates<master_weights<weight_normalization<>>> &&
              changes_gradient<master_weights<weight_normalization<>>, eigen_backend, types<double>>);
static_assert(!limits_rank<master_weights<>> && limits_rank<master_weights<nuclear_budget<fixed_rank>>>);
static_assert(keeps_master<master_weights<>> && keeps_master<nuclear_budget<fixed_rank, master_weights<>>>);
static_assert(!keeps_master<nuclear_budget<fixed_rank>> && !keeps_master<decoupled_decay>);
static_assert(!needs_svd<master_weights<>> && needs_svd<master_weights<projected<exact_hard_cap>>>);
static_assert(needs_full_rank<master_weights<projected<exact_hard_cap>>> == needs_full_rank<projected<exact_hard_cap>>);

}  // namespace

TEST_CASE("stochastic rounding keeps every bfloat16, and numbers that are none", "[master]") {
  bool kept = true;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper)
    for (const std::uint32_t random : {0U, 0x7fffffffU, 0x80000000U, 0xffffffffU}) {
      const float x = as_float(upper << 16);
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(to_bfloat16::rounded(x, random));
      kept &= bits == upper << 16;
    }
  CHECK(kept);
  CHECK(std::isnan(to_bfloat16::rounded(as_float(0x7f800001), 0xffffffff)));  // a NaN whose bits are all below
  CHECK(std::isnan(to_bfloat16::rounded(as_float(0xffffffff), 0xffffffff)));
}

TEST_CASE("stochastic rounding goes to the two neighbours, with probability by distance", "[master]") {
  // 1.3 ulp places: in the middle of a binade, at its end, negative, below the normal numbers.
  for (const std::uint32_t x : {0x3f804ccdU, 0x3fff8001U, 0xbf7fffffU, 0x00000001U, 0x80018000U, 0x007fff00U}) {
    CAPTURE(x);
    std::map<std::uint32_t, std::uint32_t> counts;
    for (std::uint32_t r = 0; r < 0x10000; ++r)
      ++counts[std::bit_cast<std::uint32_t>(to_bfloat16::rounded(as_float(x), r << 16 | 0x1234))];
    const std::uint32_t below = x & 0xffff0000U;
    CHECK(counts.size() == 2);
    CHECK(counts[below + 0x10000] == (x & 0xffffU));
    CHECK(counts[below] == 0x10000 - (x & 0xffffU));
  }
}

TEST_CASE("stochastic rounding to float16: neighbours, probabilities, and the ends", "[master][float16]") {
  using to_float16 = rounding_to<float16>;
  bool kept = true;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    for (const std::uint32_t random : {0U, 0x80000000U, 0xffffffffU}) {
      float16 h;
      h.bits = static_cast<std::uint16_t>(bits);
      const float x = h;
      if (math::finite(x)) kept &= float16(to_float16::rounded(x, random)).bits == h.bits;
    }
  CHECK(kept);
  // Between neighbours of normal numbers, at the end of a binade, negative, and between subnormal ones.
  for (const auto& [low, high] : {std::pair<float, float>{1, 1 + 0x1p-10F},
                                  {2 - 0x1p-10F, 2},
                                  {-0x1p-14F, -0x1p-14F - 0x1p-24F},
                                  {0x3p-24F, 0x4p-24F},
                                  {0, 0x1p-24F},
                                  {1000, 1000.5F}})
    for (const float part : {0.25F, 0.875F}) {
      CAPTURE(low, high, part);
      int ups = 0;
      for (std::uint32_t r = 0; r < 256; ++r) {
        const float y = to_float16::rounded(low + part * (high - low), r << 24 | 0x123456U);
        REQUIRE((y == low || y == high));
        ups += y == high;
      }
      CHECK(ups == static_cast<int>(256 * part));
    }
  for (const std::uint32_t random : {0U, 0xffffffffU}) {
    CHECK(to_float16::rounded(65519, random) == 65504);
    CHECK(to_float16::rounded(-3e38F, random) == -65504);
    CHECK(to_float16::rounded(INFINITY, random) == INFINITY);
    CHECK(std::isnan(to_float16::rounded(NAN, random)));
  }
}

TEST_CASE("stochastic rounding makes nothing finite infinite", "[master]") {
  for (const std::uint32_t x : {0x7f7fffffU, 0x7f7f0001U, 0xff7fffffU, 0x7f7e8000U})
    for (const std::uint32_t random : {0U, 0x10000U, 0x80000000U, 0xffffffffU}) {
      CAPTURE(x, random);
      CHECK(math::finite(to_bfloat16::rounded(as_float(x), random)));
    }
  CHECK(to_bfloat16::rounded(as_float(0x7f7fffffU), 0xffffffffU) == as_float(0x7f7f0000U));
  CHECK(to_bfloat16::rounded(INFINITY, 0xffffffffU) == INFINITY);
  CHECK(to_bfloat16::rounded(-INFINITY, 0) == -INFINITY);

  // The same through a step.
  const auto rule = bare_rule(master_weights<>{.rounding = rounding_mode::stochastic});
  run<bare<master_weights<>>, bf16_float> r(rule, 3.38e38 * (mat(1, 64) + mat(1, 64)));
  mat g(1, 64);
  for (auto& x : g.a) x = -1e20;
  r.step(g, 3.402e18);
  CHECK(r.state("master")(0, 5) > 3.4e38F);
  CHECK(all_finite(r.w.cv()));
}

TEST_CASE("the bits of a rounding are those of row, column, step and seed", "[master]") {
  using rule = bare<master_weights<>>;
  for (const index_t seed : {index_t{0}, index_t{7}, index_t{5} << 33})
    for (const layout l : all_layouts) {
      CAPTURE(seed, name_of(l));
      eigen_backend cpu(1);
      stored<bfloat16> w(5, 9, l), w2(5, 9, l);
      stored<float> g(5, 9, l), g2(5, 9, l);
      w.fill_random(1), w2.fill_random(2), g.fill_random(3), g2.fill_random(4);
      optimizer<rule, eigen_backend, bf16_float> opt(
          cpu, bare_rule(master_weights<>{.rounding = rounding_mode::stochastic, .rounding_seed = seed}));
      opt.add("a", w.v(), g.cv()), opt.add("b", w2.v(), g2.cv());
      opt.finalize();
      REQUIRE(opt.bucket_count() == 1);
      opt.set_steps(40);
      for (std::uint32_t t = 41; t < 44; ++t) {
        opt.step(0.01);
        for (const auto& s : opt.state_tensors()) {
          if (s.name.find("master") == std::string::npos) continue;
          const view<const float> m{static_cast<const float*>(s.data), s.rows, s.cols, s.row_stride, s.col_stride};
          bool right = true;
          for (std::uint32_t i = 0; i < 5; ++i)
            for (std::uint32_t j = 0; j < 9; ++j) {
              const auto bits = philox::bits(
                  {i, j, t, 0}, {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
              right &= static_cast<float>((s.name[0] == 'a' ? w : w2)(i, j)) == to_bfloat16::rounded(m(i, j), bits[0]);
            }
          CHECK(right);
        }
      }
      CHECK(w.intact());
    }
}

TEST_CASE("stochastic rounding has the master as its mean", "[master]") {
  using rule = bare<master_weights<>>;
  constexpr index_t rows = 6, cols = 7, count = 4000;
  mat w0(rows, cols), g = random_mat(rows, cols, 3);
  for (auto& x : w0.a) x = 1.5;
  const auto with_seed = [](index_t seed) {
    return bare_rule(master_weights<>{.rounding = rounding_mode::stochastic, .rounding_seed = seed});
  };
  const double ulp = 0x1p-7, limit = 5 * 0.5 / std::sqrt(double{count}) * ulp;  // five standard errors
  const auto check_mean = [&](const mat& sum, view<const float> master) {
    double off_nearest = 0;
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < cols; ++j) {
        const double m = static_cast<double>(master(i, j));
        CHECK(std::abs(sum(i, j) / count - m) < limit);
        off_nearest = std::max(off_nearest, std::abs(static_cast<double>(bfloat16(master(i, j))) - m));
      }
    CHECK(off_nearest > 4 * limit);  // rounding to nearest would be found out
  };
  SECTION("over steps at rest") {
    run<rule, bf16_float> r(with_seed(3), w0);
    r.step(g, 0.02);
    mat sum(rows, cols);
    for (index_t t = 0; t < count; ++t) {
      r.step(g, 0);
      sum = sum + to_mat(r.w.cv());
    }
    check_mean(sum, r.state("master"));
  }
  SECTION("over seeds") {
    mat sum(rows, cols);
    for (index_t seed = 0; seed < count; ++seed) {
      run<rule, bf16_float> r(with_seed(seed), w0);
      r.step(g, 0.02);
      sum = sum + to_mat(r.w.cv());
      if (seed + 1 == count) check_mean(sum, r.state("master"));
    }
  }
}

namespace {

// Weights of bfloat16 with a master, and the same in float: rounded to the bit.
template <class Plain, class Mastered, class Narrow, class Wide>
void check_trajectory(const Plain& plain, const Mastered& mastered) {
  for (const layout l : all_layouts)
    for (const auto& [rows, cols] : {std::pair<index_t, index_t>{9, 14}, {14, 9}}) {
      CAPTURE(name_of(l), rows, cols);
      const mat w0 = in_bfloat16(random_mat(rows, cols, 1));
      run<Plain, Wide> wide(plain, w0, l);
      run<Mastered, Narrow> narrow(mastered, w0, l);
      for (std::uint64_t t = 0; t < 6; ++t) {
        const mat g = in_bfloat16(random_mat(rows, cols, 20 + t));
        wide.step(g, 0.003), narrow.step(g, 0.003);
        REQUIRE(same_bits(elements(wide.w.cv()), elements(narrow.state("master"))));
        REQUIRE(same_bits(in_bfloat16(to_mat(wide.w.cv())).a, to_mat(narrow.w.cv()).a));
      }
      CHECK(largest(to_mat(narrow.w.cv()) - w0) > 1e-3);
      CHECK(narrow.w.intact());
    }
}

}  // namespace

TEST_CASE("bfloat16 weights with a master are the rounded float trajectory", "[master]") {
  const muon plain{.constraint = {.decay = 0.1}};
  using mastered = muon::with_constraint<master_weights<>>;
  const mastered m{.constraint = {.inner = {.decay = 0.1}}};
  check_trajectory<muon, mastered, bf16_float, types<float>>(plain, m);
  check_trajectory<muon, mastered, types<bfloat16, bfloat16, float>, types<float>>(plain, m);
  // The master has the compute type also where other state is narrow.
  check_trajectory<muon, mastered, types<bfloat16, float, bfloat16, float>, types<float, float, bfloat16, float>>(plain,
                                                                                                                  m);
  using mastered_rows = muown::with_constraint<master_weights<weight_normalization<>>>;
  check_trajectory<muown, mastered_rows, bf16_float, types<float>>({}, {});
  // What acts after the step acts on the master.
  using mastered_sphere = muon_h::with_constraint<master_weights<muon_h::constraint_type>>;
  check_trajectory<muon_h, mastered_sphere, bf16_float, types<float>>({}, {});
}

TEST_CASE("what a constraint keeps of the weight is read before the first step, also inside a decorator", "[master]") {
  using budget =
      muown::with_orthogonalizer<subspace_polar>::with_constraint<nuclear_budget<fixed_rank, weight_normalization<>>>;
  const mat w0 = random_mat(9, 14, 1);
  run<budget, types<double>> r({}, w0);
  r.step(random_mat(9, 14, 2), 0);
  CHECK(largest(to_mat(r.w.cv()) - w0) < 1e-13);
}

TEST_CASE("steps below half a unit in the last place add up in the master", "[master]") {
  mat w0(2, 3), g(2, 3);
  for (auto& x : w0.a) x = 1;
  for (auto& x : g.a) x = 1;
  run<bare<decoupled_decay>, bf16_float> without(bare_rule(decoupled_decay{}), w0);
  run<bare<master_weights<>>, bf16_float> with(bare_rule(master_weights<>{}), w0);
  for (int t = 0; t < 500; ++t) without.step(g, 1e-3), with.step(g, 1e-3);
  CHECK(static_cast<float>(without.w(1, 2)) == 1);
  CHECK(static_cast<float>(with.w(1, 2)) == 0.5F);
}

TEST_CASE("the master wins over what the caller writes into the weight", "[master]") {
  const mat w0 = in_bfloat16(random_mat(4, 5, 1)), g = random_mat(4, 5, 2);
  using mastered = muown::with_constraint<master_weights<weight_normalization<>>>;
  run<mastered, bf16_float> left_alone({}, w0), changed({}, w0);
  left_alone.step(g, 0.01), changed.step(g, 0.01);
  changed.w.fill([](index_t, index_t, index_t) { return 5.0; });
  left_alone.step(g, 0.01), changed.step(g, 0.01);
  CHECK(same_bits(elements(left_alone.w.cv()), elements(changed.w.cv())));
}

TEST_CASE("for wide weights the rounding does nothing", "[master]") {
  const auto check = []<class T>(T) {
    const mat w0 = random_mat(5, 6, 1);
    using mastered = muon::with_constraint<master_weights<>>;
    run<muon, types<T>> plain({}, w0);
    run<mastered, types<T>> a({}, w0), b({.constraint = {.rounding = rounding_mode::stochastic}}, w0);
    for (std::uint64_t t = 0; t < 3; ++t)
      plain.step(random_mat(5, 6, t), 0.01), a.step(random_mat(5, 6, t), 0.01), b.step(random_mat(5, 6, t), 0.01);
    CHECK(same_bits(elements(plain.w.cv()), elements(a.w.cv())));
    CHECK(same_bits(elements(plain.w.cv()), elements(b.w.cv())));
  };
  check(float{}), check(double{});
}

TEST_CASE("a master in double", "[master]") {
  using wide = types<bfloat16, float, double>;
  const mat w0 = in_bfloat16(random_mat(5, 6, 1)), g = random_mat(5, 6, 2);
  run<bare<master_weights<>>, wide> nearest(bare_rule(master_weights<>{}), w0);
  run<bare<master_weights<>>, wide> r(bare_rule(master_weights<>{.rounding = rounding_mode::stochastic}), w0);
  nearest.step(g, 0.01), r.step(g, 0.01);
  const auto master = r.state<double>("master");
  for (std::uint32_t i = 0; i < 5; ++i)
    for (std::uint32_t j = 0; j < 6; ++j) {
      const float m = static_cast<float>(master(i, j));
      CHECK(static_cast<float>(nearest.w(i, j)) == static_cast<float>(bfloat16(m)));
      CHECK(static_cast<float>(r.w(i, j)) == to_bfloat16::rounded(m, philox::bits({i, j, 1, 0}, {0, 0})[0]));
    }
}

TEST_CASE("a skipped step leaves master and weight", "[master]") {
  const mat w0 = in_bfloat16(random_mat(4, 5, 1));
  run<bare<master_weights<>>, bf16_float> r(bare_rule(master_weights<>{.rounding = rounding_mode::stochastic}), w0);
  mat g = random_mat(4, 5, 2);
  r.step(g, 0.01);
  const auto w = elements(r.w.cv());
  const auto m = elements(r.state("master"));
  g(2, 2) = std::nan("");
  r.step(g, 0.01);
  CHECK(r.opt.poll_status().skipped == 1);
  CHECK(same_bits(w, elements(r.w.cv())));
  CHECK(same_bits(m, elements(r.state("master"))));
}

TEST_CASE("settings of a master, its memory and its name", "[master]") {
  using rule = muon::with_constraint<master_weights<>>;
  rule r;
  set_setting(r, "rounding", "stochastic");
  set_setting(r, "rounding_seed", "11");
  set_setting(r, "decay", "0.25");
  CHECK(r.constraint.rounding == rounding_mode::stochastic);
  CHECK(r.constraint.rounding_seed == 11);
  CHECK(r.constraint.inner.decay == 0.25);
  CHECK_THROWS_WITH(set_setting(r, "rounding", "up"), Contains("nearest, stochastic"));
  CHECK_THROWS_WITH(set_setting(r, "rounding_seed", "-1"), Contains("rounding_seed is -1"));
  CHECK(master_weights<weight_normalization<>>::name() == "master_weights<" + weight_normalization<>::name() + ">");

  eigen_backend cpu(1);
  stored<bfloat16> w(16, 16);
  stored<float> g(16, 16);
  optimizer<rule, eigen_backend, bf16_float> opt(cpu, r);
  opt.add("w", w.v(), g.cv(), {.decay = 0.5});  // the decay of Inner is the parameter's to replace
  const auto lines = opt.memory().state;
  REQUIRE(lines.size() == 2);
  CHECK(lines[1].slot == "constraint");
  CHECK(lines[1].what == "master");
  CHECK(lines[1].bytes == 16 * 16 * sizeof(float));
}
