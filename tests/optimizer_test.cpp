// What an optimizer refuses, in which words, and that it works as before afterwards. Results are in contract/.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/soap.hpp>

#include "support/matrices.hpp"

using namespace matopt;
using namespace matopt::test;
using Catch::Matchers::Contains;

namespace {

using muon_optimizer = optimizer<muon, eigen_backend, types<double>>;

// An optimizer with one good parameter, and memory to make bad ones from.
struct fixture {
  eigen_backend cpu{1};
  stored<double> w{6, 8}, g{6, 8}, other{20, 20}, other_g{20, 20};
  muon_optimizer opt{cpu};

  fixture() {
    w.fill_random(1), g.fill_random(2), other.fill_random(3), other_g.fill_random(4);
    opt.add("good", w.v(), g.cv());
  }
  // The error of `call`, after which everything works as if there had been no call.
  template <class F>
  std::string error_of(F call) {
    std::string text;
    try {
      call();
    } catch (const matopt::error& e) {
      text = e.what();
    }
    check_as_before();
    return text;
  }
  void check_as_before() {
    CHECK(opt.size() == 1);
    eigen_backend single(1);
    stored<double> w2(6, 8);
    w2.fill([&](index_t i, index_t j, index_t) { return w(i, j); });
    muon_optimizer fresh(single);
    fresh.add("good", w2.v(), g.cv());
    fresh.finalize();
    fresh.step(0.1);
    muon_optimizer again(cpu);  // `opt` itself must still accept and refuse; its memory is checked by size
    CHECK(opt.memory().total() == fresh.memory().total());
  }
};

}  // namespace

TEST_CASE("add() refuses views that are not matrices", "[errors]") {
  fixture f;
  const auto refused = [&](view<double> w, view<const double> g) {
    return f.error_of([&] { f.opt.add("bad", w, g); });
  };
  const auto good = row_major(f.other.memory().data(), 4, 5);
  const view<const double> good_g = row_major<const double>(f.other_g.memory().data(), 4, 5);
  const auto with = [&](auto change) {
    auto v = good;
    change(v);
    return v;
  };
  CHECK_THAT(refused({}, good_g), Contains("weight of \"bad\"") && Contains("null"));
  CHECK_THAT(refused(good, {}), Contains("gradient of \"bad\"") && Contains("null"));
  CHECK_THAT(refused(with([](auto& v) { v.data = nullptr; }), good_g), Contains("4x5") && Contains("null"));
  CHECK_THAT(refused(with([](auto& v) { v.rows = 0; }), good_g), Contains("0x5"));
  CHECK_THAT(refused(with([](auto& v) { v.cols = 0; }), good_g), Contains("4x0"));
  CHECK_THAT(refused(with([](auto& v) { v.rows = -4; }), good_g), Contains("-4x5"));
  CHECK_THAT(refused(with([](auto& v) { v.batch = 0; }), good_g), Contains("batch 0"));
  CHECK_THAT(refused(with([](auto& v) { v.row_stride = 0; }), good_g), Contains("strides 0, 1"));
  CHECK_THAT(refused(with([](auto& v) { v.col_stride = 0; }), good_g), Contains("positive strides"));
  CHECK_THAT(refused(with([](auto& v) { v.row_stride = -5; }), good_g), Contains("-5"));
  CHECK_THAT(refused(with([](auto& v) { v.col_stride = -1; }), good_g), Contains("positive strides"));
  CHECK_THAT(refused(with([](auto& v) { v.row_stride = 4; }), good_g), Contains("each element once"));
  CHECK_THAT(refused(with([](auto& v) { v.batch = 2, v.batch_stride = 0; }), good_g), Contains("batch 2"));
  CHECK_THAT(refused(with([](auto& v) { v.rows = 5; }), good_g),
             Contains("gradient of \"bad\"") && Contains("4x5") && Contains("5x5"));
  CHECK_THAT(refused(good, good_g.t()), Contains("5x4") && Contains("the shape of its weight"));
  double* table[] = {f.other.memory().data()};
  CHECK_THAT(refused(with([&](auto& v) { v.table = table; }), good_g), Contains("weight of \"bad\""));
}

TEST_CASE("add() refuses shared memory, but not interleaved blocks", "[errors]") {
  fixture f;
  auto& o = f.other;
  auto& og = f.other_g;
  const auto refused = [&](view<double> w, view<const double> g) {
    return f.error_of([&] { f.opt.add("bad", w, g); });
  };
  CHECK_THAT(refused(f.w.v(), og.cv().row_block(0, 6).col_block(0, 8)), Contains("shared with \"good\""));
  CHECK_THAT(refused(f.w.v().row_block(5, 1), og.cv().row_block(0, 1).col_block(0, 8)), Contains("memory of \"bad\""));
  CHECK_THAT(refused(f.w.v().t(), og.cv().row_block(0, 8).col_block(0, 6)), Contains("memory"));
  CHECK_THAT(refused(o.v().row_block(0, 6).col_block(0, 8), f.w.cv()), Contains("memory"));   // its gradient: a weight
  CHECK_THAT(refused(f.g.v(), og.cv().row_block(0, 6).col_block(0, 8)), Contains("memory"));  // its weight: a gradient
  CHECK_THAT(refused(o.v(), o.cv()), Contains("its weight"));
  CHECK_THAT(refused(o.v().row_block(0, 10), o.cv().row_block(9, 10)), Contains("its weight"));

  // Stacked matrices that reach into one another.
  auto stacked = row_major(o.memory().data(), 4, 4, 3, 8);
  CHECK_THAT(refused(stacked, row_major<const double>(og.memory().data(), 4, 4, 3)), Contains("shared with"));
  CHECK_THAT(refused(row_major(o.memory().data(), 4, 4, 3), row_major<const double>(og.memory().data(), 4, 4, 3, 1)),
             Contains("shared with"));

  // Left and right half of one matrix share no element.
  f.opt.add("left", o.v().col_block(0, 10), og.cv().col_block(0, 10));
  f.opt.add("right", o.v().col_block(10, 10), og.cv().col_block(10, 10));
  CHECK_THROWS_WITH(f.opt.add("middle", o.v().col_block(9, 2), og.cv().col_block(9, 2)), Contains("\"left\""));
  f.opt.finalize();
  f.opt.step(0.1);
  CHECK(all_finite(o.cv()));
}

TEST_CASE("add() refuses views larger than any memory", "[errors]") {
  fixture f;
  constexpr index_t most = std::numeric_limits<index_t>::max(), half = index_t{1} << 62, root = index_t{1} << 32;
  double* const p = f.other.memory().data();
  const double* const q = f.other_g.memory().data();
  const auto refused = [&](view<double> w, view<const double> g) {
    CAPTURE(detail::text(w), detail::text(g));
    CHECK_THAT(f.error_of([&] { f.opt.add("huge", w, g); }), Contains("\"huge\"") && Contains("addressed"));
  };
  refused(row_major(p, half, 4), row_major(q, half, 4));  // rows x columns wraps around to 0,
  refused(col_major(p, root, root), row_major(q, root, root));
  refused(row_major(p, 1, half / 2), row_major(q, 1, half / 2));  // or is too large in bytes
  refused(row_major(p, 2, 2, half), row_major(q, 2, 2, half));
  refused(row_major(p, 2, 2, 3, half), row_major(q, 2, 2, 3));  // as are strides
  refused(row_major(p, 2, 2, 3, -most - 1), row_major(q, 2, 2, 3));
  refused({p, 4, 3, most / 2, 1}, row_major(q, 4, 3));
  refused({p, 2, 2, 1, most}, row_major(q, 2, 2));
  refused(row_major(p, 4, 3), {q, 4, 3, most / 2, 1});

  // And its gradient, when it moves.
  const view<double> w = row_major(p, 4, 3, 2);
  f.opt.add("stack", w, row_major(q, 4, 3, 2));
  CHECK_THROWS_WITH(f.opt.rebind("stack", row_major(q, 4, 3, 2, half)), Contains("\"stack\"") && Contains("addressed"));

  // State that would be larger: soap keeps rows x rows.
  optimizer<soap, eigen_backend, types<double>> square(f.cpu, {.momentum = {.max_precond_dim = index_t{1} << 40}});
  const auto address = [](int place) { return reinterpret_cast<double*>(std::uintptr_t{1} << place); };  // never read
  square.add("w", row_major(address(44), index_t{1} << 33, 1), row_major(address(45), index_t{1} << 33, 1));
  CHECK_THROWS_WITH(square.memory(), Contains("more bytes are wanted than can be addressed"));
}

TEST_CASE("add() takes any name in UTF-8 and no other", "[errors]") {
  fixture f;
  const auto add = [&](const std::string& name, index_t at) {
    f.opt.add(name, row_major(f.other.memory().data() + at, 1, 4),
              row_major<const double>(f.other_g.memory().data() + at, 1, 4));
  };
  for (const std::string name : {"\xe9", "ab\xff", "\xc3", "\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
                                 "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\x80", "\xe2\x82"})
    CHECK_THAT(f.error_of([&] { add(name, 0); }),
               Contains("parameter name is \"") && Contains("\\x") && Contains("UTF-8"));
  CHECK_THAT(f.error_of([&] { add("caf\xe9", 0); }), Contains("\"caf\\xe9\""));
  index_t at = 0;
  for (const std::string& name :
       {std::string(), std::string("a\0b", 3), std::string("\n\t\""), std::string("\\"), std::string("__metadata__"),
        std::string("\xc3\xa9 \xe2\x82\xac \xf4\x8f\xbf\xbf \x7f")})
    add(name, at), at += 4;
  CHECK(f.opt.size() == 7);
}

TEST_CASE("add() refuses names used before", "[errors]") {
  fixture f;
  auto& o = f.other;
  auto& og = f.other_g;
  CHECK_THAT(f.error_of([&] { f.opt.add("good", o.v(), og.cv()); }),
             Contains("\"good\"") && Contains("not used before"));
  f.opt.add("stack", row_major(o.memory().data(), 3, 4, 2), row_major<const double>(og.memory().data(), 3, 4, 2));
  const auto rest = row_major(o.memory().data() + 100, 3, 4);
  const auto rest_g = row_major<const double>(og.memory().data() + 100, 3, 4);
  CHECK_THROWS_WITH(f.opt.add("stack.1", rest, rest_g), Contains("\"stack.1\""));
  CHECK_THROWS_WITH(f.opt.add("stack", rest, rest_g), Contains("\"stack\""));  // rebind("stack") would be ambiguous
  CHECK(f.opt.size() == 3);
}

TEST_CASE("options outside their range", "[errors]") {
  fixture f;
  const auto refused = [&](const parameter_options& o) {
    return f.error_of([&] { f.opt.add("bad", f.other.v(), f.other_g.cv(), o); });
  };
  CHECK_THAT(refused({.lr_scale = -1}), Contains("lr_scale of \"bad\" is -1") && Contains(">= 0"));
  CHECK_THAT(refused({.lr_scale = std::nan("")}), Contains("lr_scale") && Contains("nan"));
  CHECK_THAT(refused({.lr_scale = INFINITY}), Contains("lr_scale") && Contains("inf"));
  CHECK_THAT(refused({.decay = -0.5}), Contains("decay of \"bad\" is -0.5") && Contains(">= 0"));
  CHECK_THAT(refused({.decay = std::nan("")}), Contains("decay"));
  CHECK_THAT(refused({.row_blocks = {10, 9}}), Contains("a sum of 19") && Contains("20"));
  CHECK_THAT(refused({.row_blocks = {10, 11}}), Contains("a sum of 21"));
  CHECK_THAT(refused({.row_blocks = {30, -10}}), Contains("row_blocks") && Contains("-10") && Contains(">= 1"));
  CHECK_THAT(refused({.row_blocks = {0, 20}}), Contains("row_blocks"));
  constexpr index_t most = std::numeric_limits<index_t>::max();
  CHECK_THAT(refused({.row_blocks = {most, most, 22}}), Contains("a sum of at least 9223372036854775807"));
  CHECK_THAT(refused({.row_blocks = {20, most - 19, most}}), Contains("a sum of at least"));
  CHECK_THROWS_WITH(muon_optimizer(f.cpu, {}, {.batch_limit = -1}), Contains("batch_limit is -1"));

  // A rule without decay takes none.
  optimizer<angular_muown, eigen_backend, types<double>> angular(f.cpu);
  CHECK_THROWS_WITH(angular.add("w", f.other.v(), f.other_g.cv(), {.decay = 0.1}), Contains("this rule has no decay"));
  angular.add("w", f.other.v(), f.other_g.cv());
  angular.finalize();
}

TEST_CASE("calls in the wrong order", "[errors]") {
  fixture f;
  muon_optimizer empty(f.cpu);
  CHECK_THROWS_AS(empty.finalize(), bad_order);
  CHECK_THROWS_WITH(empty.finalize(), Contains("finalize() before any add()"));
  CHECK_THROWS_WITH(f.opt.step(0.1), Contains("before finalize()"));
  CHECK_THROWS_WITH(f.opt.begin_step(0.1), Contains("begin_step() before finalize()"));
  CHECK_THROWS_WITH(f.opt.enqueue(), Contains("enqueue() before finalize()"));
  CHECK_THROWS_WITH(f.opt.poll_status(), Contains("poll_status() before finalize()"));
  CHECK_THROWS_WITH(f.opt.state_tensors(), Contains("before finalize()"));
  f.opt.finalize();
  CHECK_THROWS_WITH(f.opt.finalize(), Contains("finalize() called twice"));
  CHECK_THROWS_WITH(f.opt.add("late", f.other.v(), f.other_g.cv()), Contains("add(\"late\") after finalize()"));
  CHECK_THROWS_AS(f.opt.add("late", f.other.v(), f.other_g.cv()), bad_order);
  CHECK_THROWS_WITH(f.opt.set_steps(-1), Contains("steps is -1"));

  // All these errors later the optimizer steps as one that saw none.
  stored<double> w(6, 8);
  w.fill([&](index_t i, index_t j, index_t) { return f.w(i, j); });
  muon_optimizer fresh(f.cpu);
  fresh.add("good", w.v(), f.g.cv());
  fresh.finalize();
  f.opt.step(0.1), fresh.step(0.1);
  CHECK(same_bits(elements(w.cv()), elements(f.w.cv())));
}

TEST_CASE("a learning rate that is negative or not finite", "[errors]") {
  fixture f;
  f.opt.finalize();
  const auto before = elements(f.w.cv());
  for (const double lr : {-0.1, std::nan(""), static_cast<double>(INFINITY), static_cast<double>(-INFINITY)}) {
    CHECK_THROWS_AS(f.opt.step(lr), bad_value);
    CHECK_THROWS_WITH(f.opt.begin_step(lr), Contains("lr is ") && Contains("legal: >= 0"));
  }
  CHECK(f.opt.steps() == 0);
  CHECK(same_bits(elements(f.w.cv()), before));
  f.opt.step(0);  // legal: the momentum moves, the weight does not
  CHECK(f.opt.steps() == 1);
  CHECK(same_bits(elements(f.w.cv()), before));
}

TEST_CASE("rebind() takes only a view like the first one", "[errors]") {
  fixture f;
  f.opt.finalize();
  const auto refused = [&](const char* name, view<const double> g) {
    try {
      f.opt.rebind(name, g);
    } catch (const matopt::error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  stored<double> g(6, 8), wide(6, 9), tall(7, 8), stack(6, 8, layout::row_major, 2);
  CHECK_THAT(refused("god", g.cv()), Contains("nearest: \"good\""));
  CHECK_THAT(refused("good", {}), Contains("gradient of \"good\""));
  CHECK_THAT(refused("good", wide.cv()), Contains("6x9"));
  CHECK_THAT(refused("good", wide.cv().col_block(0, 8)), Contains("strides 9, 1"));
  CHECK_THAT(refused("good", tall.cv()), Contains("7x8"));
  CHECK_THAT(refused("good", stack.cv()), Contains("batch 2"));
  CHECK_THAT(refused("good", g.cv().t()), Contains("8x6"));
  const double* table[] = {g.memory().data()};
  auto with_table = g.cv();
  with_table.table = table;
  CHECK_THAT(refused("good", with_table), Contains("gradient of \"good\""));
  CHECK_THAT(refused("good", f.w.cv()), Contains("weight"));  // a step would read what it writes
  f.opt.rebind("good", g.cv());
  f.opt.step(0.1);
  CHECK(f.opt.poll_status());
}

TEST_CASE("on_nonfinite::ignore goes on, and touches no memory but its own", "[errors]") {
  // The exact decomposition sorts singular values; NaN among them must not lead the sort astray.
  eigen_backend cpu(1);
  stored<float> w(40, 40), g(40, 40);
  for (const index_t bad : {0, 7, 39}) {
    w.fill_random(1), g.fill_random(2);
    g.v()(bad, 39 - bad) = std::numeric_limits<float>::quiet_NaN();
    optimizer<muon::with_orthogonalizer<svd_polar>, eigen_backend, types<float>> o(cpu, {},
                                                                                   {.nonfinite = on_nonfinite::ignore});
    o.add("w", w.v(), g.cv());
    o.finalize();
    o.step(0.1);
    CHECK(o.poll_status().skipped == 0);
  }
}

TEST_CASE("decay of one parameter replaces the rule's", "[optimizer]") {
  eigen_backend cpu(1);
  stored<double> a(4, 4), b(4, 4), g(4, 4), g2(4, 4);
  a.fill_random(1), b.fill_random(1);
  optimizer<adamw, eigen_backend, types<double>> opt(cpu, {.constraint = {.decay = 0.5}});
  opt.add("a", a.v(), g.cv());
  opt.add("b", b.v(), g2.cv(), {.decay = 0});
  opt.finalize();
  CHECK(opt.bucket_count() == 2);
  opt.step(0.1);
  for (index_t i = 0; i < 4; ++i) CHECK(a(i, i) == Approx(0.95 * b(i, i)));
}

TEST_CASE("the default names and the bucket of a parameter", "[optimizer]") {
  eigen_backend cpu(1);
  stored<double> a(4, 4), b(4, 4), c(4, 4, layout::sub_block), ga(4, 4), gb(4, 4), gc(4, 4);
  muon_optimizer opt(cpu);
  opt.add(a.v(), ga.cv());
  opt.add(b.v(), gb.cv());
  opt.add(c.v(), gc.cv());
  CHECK(opt.bucket_count() == 2);  // other strides: another bucket
  opt.finalize();
  const auto state = opt.state_tensors();
  REQUIRE(state.size() == 3);
  CHECK(state[0].name == "parameter.0.momentum");
  CHECK(state[2].name == "parameter.2.momentum");
  CHECK(state[0].type == element_type::f64);
  CHECK(opt.ranks() == std::vector<index_t>{0, 0});
  opt.step(0.1);
  CHECK(opt.ranks() == std::vector<index_t>{4, 4});
}

TEST_CASE("optimizer: addresses that do not fit their elements are refused", "[optimizer]") {
  eigen_backend cpu(1);
  optimizer<muon, eigen_backend> opt(cpu);
  std::vector<float> w(65), g(65);
  const auto off = [](std::vector<float>& x) {
    return reinterpret_cast<float*>(reinterpret_cast<char*>(x.data()) + 2);
  };
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(opt.add("w", row_major(off(w), 8, 8), row_major<const float>(g.data(), 8, 8)),
                    Contains("weight of \"w\"") && Contains("multiple of 4"));
  CHECK_THROWS_WITH(opt.add("w", row_major(w.data(), 8, 8), row_major<const float>(off(g), 8, 8)),
                    Contains("gradient of \"w\"") && Contains("multiple of 4"));
  opt.add("w", row_major(w.data(), 8, 8), row_major<const float>(g.data(), 8, 8));
  opt.finalize();
  CHECK_THROWS_WITH(opt.rebind("w", row_major<const float>(off(g), 8, 8)), Contains("multiple of 4"));
  CHECK_NOTHROW(opt.step(0.02));
}
