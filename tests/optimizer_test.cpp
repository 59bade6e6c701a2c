// What an optimizer refuses, in which words, and that it works as before afterwards; views without elements or with
// repeated ones, and gradients that move. Results are in contract/.
#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <limits>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/engine/rule_registry.hpp>
#include <matopt/lion.hpp>
#include <matopt/moonlight.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/cautious_decay_after.hpp>
#include <matopt/policy/constraint/projected.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/orthogonalizer/line_direction.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/policy/prefixed.hpp>
#include <matopt/policy/scale/scale.hpp>
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
  // `opt` has one parameter, the memory of a fresh one, and steps as that does: it is finalized for the comparison, and
  // released again.
  void check_as_before() {
    CHECK(opt.size() == 1);
    const auto before = elements(w.cv());
    stored<double> w2(6, 8);
    w2.fill([&](index_t i, index_t j, index_t) { return w(i, j); });
    muon_optimizer fresh(cpu);
    fresh.add("good", w2.v(), g.cv());
    CHECK(opt.memory().table() == fresh.memory().table());
    fresh.finalize(), opt.finalize();
    for (int t = 0; t < 2; ++t) fresh.step(0.1), opt.step(0.1);
    CHECK(same_bits(elements(w.cv()), elements(w2.cv())));
    CHECK_FALSE(same_bits(elements(w.cv()), before));
    opt.release();
    w.fill([&](index_t i, index_t j, index_t) { return before[static_cast<std::size_t>(i * 8 + j)]; });
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
  CHECK_THAT(refused(with([](auto& v) { v.rows = 0; }), good_g), Contains("0x5"));  // the gradient is not empty
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
  for (int again = 0; again < 2; ++again)
    CHECK_THROWS_WITH(
        square.add("w", row_major(address(44), index_t{1} << 33, 1), row_major(address(45), index_t{1} << 33, 1)),
        Contains("more bytes are wanted than can be addressed"));
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

  // Nothing is clipped to what the compute type has no number for.
  CHECK_THROWS_WITH((optimizer<muon, eigen_backend>(f.cpu, {}, {.max_norm = 1e-50})),
                    Contains("max_norm is 1e-50") && Contains("float"));
  CHECK_NOTHROW((optimizer<muon, eigen_backend>(f.cpu, {}, {.max_norm = 1e-40})));
  CHECK_NOTHROW(muon_optimizer(f.cpu, {}, {.max_norm = 1e-50}));

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
  CHECK_THROWS_WITH(f.opt.gradient_norm(), Contains("max_norm"));
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

namespace {

// The CPU, with a margin of known bytes on both sides of each allocation and of each workspace of a decomposition.
struct margin_backend : eigen_backend {
  static constexpr std::size_t margin = 4096;
  using eigen_backend::eigen_backend;

  class buffer {
   public:
    buffer() = default;
    explicit buffer(std::size_t bytes) : memory_(bytes + 2 * margin), bytes_(bytes) {
      mark(memory_.data()), mark(memory_.data() + margin + bytes_);
    }
    std::byte* data() { return memory_.data() ? memory_.data() + margin : nullptr; }
    bool intact() { return !memory_.data() || (marked(memory_.data()) && marked(memory_.data() + margin + bytes_)); }

   private:
    eigen_backend::buffer memory_;
    std::size_t bytes_ = 0;
  };
  buffer allocate(std::size_t bytes) { return buffer(bytes); }

  template <class T>
  std::size_t svd_workspace(index_t rows, index_t cols, index_t batch) const {
    return eigen_backend::svd_workspace<T>(rows, cols, batch) + 2 * margin;
  }
  template <class T>
  void svd(const status_word* guard, view<const std::type_identity_t<T>> a, view<T> u, view<T> s, view<T> v,
           std::byte* workspace) {
    const std::size_t bytes = eigen_backend::svd_workspace<T>(a.rows, a.cols, a.batch);
    mark(workspace), mark(workspace + margin + bytes);
    eigen_backend::svd<T>(guard, a, u, s, v, workspace + margin);
    CHECK((marked(workspace) && marked(workspace + margin + bytes)));
    ++decompositions;
  }
  static void mark(std::byte* p) { std::fill(p, p + margin, std::byte{0x5A}); }
  static bool marked(const std::byte* p) {
    return std::all_of(p, p + margin, [](std::byte b) { return b == std::byte{0x5A}; });
  }
  int decompositions = 0;
};

}  // namespace

TEST_CASE("on_nonfinite::ignore goes on, and touches no memory but its own", "[errors]") {
  // The exact decomposition sorts singular values; NaN among them must not lead the sort astray.
  margin_backend cpu(1);
  stored<float> w(40, 40, layout::sub_block), g(40, 40, layout::sub_block);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const index_t at : {0, 7, 39}) {
      w.fill_random(1), g.fill_random(2);
      g.v()(at, 39 - at) = bad;
      optimizer<muon::with_orthogonalizer<svd_polar>, margin_backend, types<float>> o(
          cpu, {}, {.nonfinite = on_nonfinite::ignore});
      o.add("w", w.v(), g.cv());
      o.finalize();
      const auto gradient = elements(g.cv());
      o.step(0.1);
      CHECK(o.poll_status().skipped == 0);
      std::vector<float> momentum(40 * 40);
      o.read_state(o.state_tensors().at(0), momentum.data());
      CHECK_FALSE(math::finite(momentum[static_cast<std::size_t>(at * 40 + 39 - at)]));  // it went on
      CHECK(w.intact());
      CHECK(same_bits(elements(g.cv()), gradient));
    }
  CHECK(cpu.decompositions == 6);
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

TEST_CASE("interleaved blocks of one matrix are parameters of their own", "[optimizer]") {
  eigen_backend cpu(1);
  for (const layout l : {layout::row_major, layout::column_major}) {
    stored<double> w(8, 6, l), g(8, 6, l);
    w.fill_random(1), g.fill_random(2);
    const auto rows = [](auto v, index_t first) {  // first, first + 2, ...
      v = v.row_block(first, v.rows - first);
      v.rows = 4, v.row_stride *= 2;
      return v;
    };
    muon_optimizer opt(cpu), whole(cpu);
    opt.add("even", rows(w.v(), 0), rows(g.cv(), 0));
    opt.add("odd", rows(w.v(), 1), rows(g.cv(), 1));
    CHECK_THROWS_WITH(opt.add("again", rows(w.v(), 1).col_block(5, 1), g.cv().row_block(0, 4).col_block(0, 1)),
                      Contains("\"again\"") && Contains("\"odd\""));
    stored<double> even(4, 6), odd(4, 6), ge(4, 6), go(4, 6);
    even.fill([&](index_t i, index_t j, index_t) { return w(2 * i, j); });
    odd.fill([&](index_t i, index_t j, index_t) { return w(2 * i + 1, j); });
    ge.fill([&](index_t i, index_t j, index_t) { return g(2 * i, j); });
    go.fill([&](index_t i, index_t j, index_t) { return g(2 * i + 1, j); });
    whole.add("even", even.v(), ge.cv()), whole.add("odd", odd.v(), go.cv());
    opt.finalize(), whole.finalize();
    opt.step(0.1), whole.step(0.1);
    CHECK(largest(to_mat(as_const(rows(w.v(), 0))) - to_mat(even.cv())) < 1e-13);
    CHECK(largest(to_mat(as_const(rows(w.v(), 1))) - to_mat(odd.cv())) < 1e-13);
  }
  // A stack whose matrices are the columns of one matrix, by turns.
  stored<double> w(4, 6), g(4, 6);
  const auto by_turns = [](auto v) {
    v.cols = 2, v.col_stride = 3, v.batch = 3, v.batch_stride = 1;
    return v;
  };
  muon_optimizer opt(cpu);
  opt.add("stack", by_turns(w.v()), by_turns(g.cv()));
  CHECK(opt.size() == 3);
}

TEST_CASE("adding many parameters takes time in proportion", "[optimizer]") {
  eigen_backend cpu(1);
  const auto seconds = [&](index_t count, bool interleaved) {
    stored<float> w(8, 8 * count), g(8, 8 * count);
    std::vector<double> times;
    for (int run = 0; run < 3; ++run) {
      optimizer<adamw, eigen_backend> opt(cpu);
      const auto begin = std::chrono::steady_clock::now();
      for (index_t i = 0; i < count; ++i) {
        if (interleaved)
          opt.add("w" + std::to_string(i), w.v().col_block(8 * i, 8), g.cv().col_block(8 * i, 8));
        else
          opt.add("w" + std::to_string(i), row_major(w.v().data + 64 * i, 8, 8),
                  row_major<const float>(g.cv().data + 64 * i, 8, 8));
      }
      times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return *std::min_element(times.begin(), times.end());
  };
  CHECK(seconds(16000, false) < 60 * seconds(1000, false));  // 256 times if each was compared with each
}

TEST_CASE("dropping many parameters takes time in proportion", "[optimizer]") {
  eigen_backend cpu(1);
  const auto seconds = [&](index_t count) {
    stored<float> w(2, 2, layout::row_major, count), g(2, 2, layout::row_major, count);
    std::vector<std::string> names;
    for (index_t i = 0; i < count; ++i) names.push_back("w" + std::to_string(i));
    std::vector<double> times;
    for (int run = 0; run < 3; ++run) {
      param_groups<eigen_backend> opt(cpu);
      opt.add_group("all", adamw{}, 1);
      for (index_t i = 0; i < count; ++i)
        opt.add(names[static_cast<std::size_t>(i)], w.v().matrix(i), g.cv().matrix(i), "all");
      const auto begin = std::chrono::steady_clock::now();
      opt.drop(std::span<const std::string>(names).subspan(1));
      times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      REQUIRE(opt.size() == 1);
    }
    return *std::min_element(times.begin(), times.end());
  };
  CHECK(seconds(16000) < 120 * seconds(1000));  // 256 times if what stays was moved up for each
}

TEST_CASE("several views are dropped together, or none of them", "[optimizer]") {
  eigen_backend cpu(1);
  stored<double> w(4, 4, layout::row_major, 6), g(4, 4, layout::row_major, 6);
  param_groups<eigen_backend, types<double>> opt(cpu);
  opt.add_group("all", muon{}, 1);
  opt.add("a", w.v().matrix(0), g.cv().matrix(0), "all");
  opt.add("s", row_major(w.v().matrix(1).data, 4, 4, 3), row_major(g.cv().matrix(1).data, 4, 4, 3), "all");
  opt.add("b", w.v().matrix(4), g.cv().matrix(4), "all");
  opt.add("c", w.v().matrix(5), g.cv().matrix(5), "all");
  CHECK_THROWS_WITH(opt.drop({"a", "gone"}), Contains("no parameter \"gone\""));
  CHECK_THROWS_WITH(opt.drop({"a", "s.1"}), Contains("no parameter \"s.1\""));
  CHECK((opt.size() == 6 && opt.assignments().size() == 4));
  opt.leave_out({"a", "s.1", "c"});
  opt.drop({"s", "a", "s"});
  CHECK((opt.size() == 2 && opt.assignments().front().name == "b"));
  opt.add("s", w.v().matrix(0), g.cv().matrix(0), "all");  // name and memory are free again
  opt.finalize();
  for (index_t b = 0; b < 6; ++b) g.v().matrix(b)(0, 0) = 1;
  const auto before = elements(w.cv());
  opt.step();
  const auto after = elements(w.cv());
  const auto moved = [&](std::size_t b) { return after[16 * b] != before[16 * b]; };
  CHECK((moved(0) && !moved(1) && !moved(2) && !moved(3) && moved(4) && !moved(5)));  // "c" is left out still
  opt.drop(std::vector<std::string>{});
  CHECK(opt.size() == 3);
}

TEST_CASE("a matrix that is left out does not go on stopping steps by its last gradient", "[optimizer]") {
  eigen_backend cpu(1);
  for (const bool clips : {false, true}) {
    stored<double> w(4, 4, layout::row_major, 2), g(4, 4, layout::row_major, 2);
    optimizer<muon, eigen_backend, types<double>> opt(cpu, {}, {.max_norm = clips ? 1.0 : 0.0});
    opt.add("a", w.v().matrix(0), g.cv().matrix(0));
    opt.add("b", w.v().matrix(1), g.cv().matrix(1));
    opt.finalize();
    g.v().matrix(0)(0, 0) = std::numeric_limits<double>::infinity();
    g.v().matrix(1)(0, 0) = 1;
    const auto moved = [&] {
      const auto before = elements(w.cv());
      opt.step(0.1);
      return elements(w.cv()) != before;
    };
    CHECK(!moved());
    opt.leave_out({"a"});
    CHECK(moved());
  }
}

TEST_CASE("leaving out many matrices by name takes time in proportion", "[optimizer]") {
  eigen_backend cpu(1);
  const auto seconds = [&](index_t count) {
    stored<float> w(2, 2, layout::row_major, count), g(2, 2, layout::row_major, count);
    optimizer<adamw, eigen_backend> opt(cpu);
    opt.add("first", row_major(w.v().data, 0, 2), row_major(g.cv().data, 0, 2));
    opt.add("w", w.v(), g.cv());
    std::vector<std::string> names;
    for (index_t i = 0; i < count; ++i) names.push_back("w." + std::to_string(i));
    std::vector<double> times;
    for (int run = 0; run < 3; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      opt.leave_out(names);
      times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return *std::min_element(times.begin(), times.end());
  };
  CHECK(seconds(16000) < 60 * seconds(1000));  // 256 times if each was looked for among all
}

TEST_CASE("names of state are unique in a checkpoint", "[errors]") {
  eigen_backend cpu(1);
  stored<double> m(4, 4, layout::row_major, 12), g(4, 4, layout::row_major, 12);
  const auto w_at = [&](index_t i, index_t n = 1) { return m.v().matrices(i, n); };
  const auto g_at = [&](index_t i, index_t n = 1) { return g.cv().matrices(i, n); };
  const auto pair = [&](const char* first, index_t n, std::vector<index_t> first_blocks, const char* second, index_t k,
                        std::vector<index_t> second_blocks) {
    std::string text[2];
    for (const bool swapped : {false, true}) {  // in either order
      muon_optimizer opt(cpu);
      const auto add = [&](bool one) {
        if (one)
          opt.add(first, w_at(0, n), g_at(0, n), {.row_blocks = first_blocks});
        else
          opt.add(second, w_at(6, k), g_at(6, k), {.row_blocks = second_blocks});
      };
      add(!swapped);
      const auto size = opt.size();
      try {
        add(swapped);
      } catch (const bad_value& e) {
        text[swapped] = e.what();
      }
      if (!text[swapped].empty()) CHECK(opt.size() == size);
    }
    return text[0] + " / " + text[1];
  };
  const auto both = [](const std::string& text) {
    return text.find("parameter name") < text.find(" / ") && text.rfind("parameter name") > text.find(" / ");
  };
  CHECK(both(pair("w", 2, {}, "w.0", 1, {})));
  CHECK(both(pair("w", 1, {2, 2}, "w.1", 1, {})));
  CHECK(both(pair("w", 2, {2, 2}, "w.0", 2, {})));
  CHECK(both(pair("w", 2, {2, 2}, "w.1.0", 1, {})));
  CHECK(both(pair("w", 1, {}, "w.momentum", 1, {})));
  CHECK(both(pair("w", 2, {}, "w.1.momentum", 1, {})));
  CHECK(both(pair("w", 1, {2, 2}, "w.0.momentum", 1, {})));
  CHECK(both(pair("w", 2, {}, "w", 1, {})));
  CHECK(both(pair("w.0", 0, {}, "w", 2, {})));  // of no matrix, but rebind() knows the name
  CHECK(pair("w", 2, {}, "w.2", 1, {}) == " / ");
  CHECK(pair("w", 1, {}, "w.0", 1, {}) == " / ");
  CHECK(pair("w", 1, {}, "w.first_moment", 1, {}) == " / ");  // not a state of this rule
  CHECK_THAT(pair("w", 2, {}, "w.0", 1, {}), Contains("a part of \"w\""));
  CHECK_THAT(pair("w", 1, {}, "w.momentum", 1, {}),
             Contains("state of \"w\"") && Contains("with state \"w.momentum\""));

  muon_optimizer opt(cpu);
  CHECK_THROWS_WITH(opt.add("optimizer.w", w_at(0), g_at(0)), Contains("does not begin with \"optimizer.\""));

  // A policy that a rule has twice keeps two states of one name: both are there.
  using twice = muon::with_constraint<projected<hard_cap<>, projected<prefixed<"second", hard_cap<>>>>>;
  optimizer<twice, eigen_backend, types<double>> nested(cpu);
  nested.add("w", w_at(0), g_at(0));
  nested.finalize();
  std::vector<std::string> names;
  for (const auto& t : nested.state_tensors()) names.push_back(t.name);
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  CHECK(std::count(names.begin(), names.end(), "w.spectral_direction") == 1);
  CHECK(std::count(names.begin(), names.end(), "w.spectral_direction_2") == 1);
}

namespace {

// Every shape without elements beside a matrix that steps as if it was alone.
template <class Rule>
void check_empty(const Rule& rule) {
  eigen_backend cpu(1);
  CAPTURE(Rule::name());
  stored<double> w(4, 8), g(4, 8), r(4, 8), w2(4, 8);
  w.fill_random(1), w2.fill_random(1);
  any_optimizer<eigen_backend, types<double>> opt(cpu, rule), alone(cpu, rule);
  const auto none = [](index_t rows, index_t cols, index_t batch) {
    return row_major<double>(nullptr, rows, cols, batch);
  };
  const auto add = [&](const std::string& name, view<double> v) { opt.add(name, v, as_const(v), as_const(v)); };
  add("no_rows", none(0, 8, 1)), add("no_columns", none(8, 0, 1)), add("no_matrix", none(4, 8, 0));
  add("stack", none(0, 8, 3)), add("no_vector", none(1, 0, 1)), add("nothing", none(0, 0, 1));
  opt.add("w", w.v(), g.cv(), r.cv()), alone.add("w", w2.v(), g.cv(), r.cv());
  CHECK(opt.size() == 8);
  opt.finalize(), alone.finalize();
  for (std::uint64_t t = 0; t < 3; ++t) {
    g.fill_random(5 + t), r.fill_random(50 + t);
    opt.step(0.02), alone.step(0.02);
  }
  CHECK(opt.poll_status());
  CHECK(same_bits(elements(w.cv()), elements(w2.cv())));
  CHECK(opt.phase() == alone.phase());
  opt.rebind("no_rows", none(0, 8, 1));
  // Their state is there, in its shape, and reads and writes as that of others.
  index_t of_empty = 0;
  for (const auto& t : opt.state_tensors()) {
    std::vector<std::byte> bytes(bytes_of(t));
    opt.read_state(t, bytes.data()), opt.write_state(t, bytes.data());
    of_empty += t.name.starts_with("no_rows.");
  }
  index_t of_one = 0;
  for (const auto& t : alone.state_tensors()) of_one += t.name.starts_with("w.");
  CHECK(of_empty == of_one);
}

// Gradients that repeat elements, against copies of them.
template <class Rule>
void check_repeated(const Rule& rule) {
  eigen_backend cpu(1);
  CAPTURE(Rule::name());
  using optimizer = any_optimizer<eigen_backend, types<double>>;
  stored<double> w(5, 7, layout::row_major, 3), w2(5, 7, layout::row_major, 3), g(5, 7, layout::row_major, 3),
      r(5, 7, layout::row_major, 3), g2(5, 7, layout::row_major, 3), r2(5, 7, layout::row_major, 3);
  for (int zero = 1; zero < 8; ++zero) {  // of rows, of columns, of the batch
    CAPTURE(zero);
    w.fill_random(1), w2.fill_random(1);
    const auto repeated = [&](stored<double>& x) {
      auto v = x.cv();
      if (zero & 1) v.row_stride = 0;
      if (zero & 2) v.col_stride = 0;
      if (zero & 4) v.batch_stride = 0;
      return v;
    };
    optimizer opt(cpu, rule, {.scales_gradient = true}), dense(cpu, rule, {.scales_gradient = true});
    opt.add("w", w.v(), repeated(g), repeated(r)), dense.add("w", w2.v(), g2.cv(), r2.cv());
    opt.finalize(), dense.finalize();
    for (std::uint64_t t = 0; t < 2; ++t) {
      g.fill_random(5 + t), r.fill_random(50 + t);
      g2.fill([&](index_t i, index_t j, index_t b) { return repeated(g)(i, j, b); });
      r2.fill([&](index_t i, index_t j, index_t b) { return repeated(r)(i, j, b); });
      opt.step(0.02, 0.5), dense.step(0.02, 0.5);
    }
    CHECK(opt.poll_status());
    const auto a = elements(w.cv()), b = elements(w2.cv());
    double apart = 0;
    for (std::size_t i = 0; i < a.size(); ++i) apart = std::max(apart, std::abs(a[i] - b[i]));
    CHECK(apart < 1e-9);                                        // sums run along other lines
    g.v()(0, 0, 0) = std::numeric_limits<double>::quiet_NaN();  // seen, wherever it is repeated
    opt.step(0.02, 0.5);
    CHECK(opt.poll_status().skipped == 1);
    CHECK(same_bits(a, elements(w.cv())));
  }
}

}  // namespace

TEST_CASE("views without elements are taken, and nothing happens to them", "[optimizer]") {
  check_empty(muon{}), check_empty(adamw{}), check_empty(muown{}), check_empty(soap{}),
      check_empty(numuon{.constraint = {.rank = {.total = 8}}});
  check_empty(muon_storm{}), check_empty(lion{});

  // Nothing but empty shards: steps are counted, as on the other shards.
  eigen_backend cpu(1);
  muon_optimizer opt(cpu);
  opt.add("a", row_major<double>(nullptr, 0, 8), row_major<const double>(nullptr, 0, 8));
  opt.add(row_major<double>(nullptr, 8, 8, 0), row_major<const double>(nullptr, 8, 8, 0));
  opt.add(row_major<double>(nullptr, 8, 8, 0), row_major<const double>(nullptr, 8, 8, 0));
  opt.finalize();
  opt.step(0.1);
  CHECK(opt.steps() == 1);
  CHECK(opt.poll_status());
  muon_optimizer none(cpu);
  none.add("stack", row_major<double>(nullptr, 8, 8, 0), row_major<const double>(nullptr, 8, 8, 0));
  none.finalize();
  none.step(0.1);
  CHECK(none.poll_status());
  CHECK(none.state_tensors().empty());
}

TEST_CASE("a gradient may repeat elements by strides of 0; a weight may not", "[optimizer]") {
  check_repeated(muon{}), check_repeated(adamw{}), check_repeated(muown{}), check_repeated(soap{});
  check_repeated(muon_storm{}), check_repeated(lion{}), check_repeated(numuon{.constraint = {.rank = {.total = 8}}});
  fixture f;
  auto w = row_major(f.other.memory().data(), 4, 5, 2);
  auto g = row_major<const double>(f.other_g.memory().data(), 4, 5, 2);
  for (const int which : {0, 1, 2}) {
    auto bad = w;
    (which == 0 ? bad.row_stride : which == 1 ? bad.col_stride : bad.batch_stride) = 0;
    CHECK_THAT(f.error_of([&] { f.opt.add("bad", bad, g); }),
               Contains("weight of \"bad\"") && Contains("positive strides"));
  }
  auto overlapping = g;
  overlapping.row_stride = 1;  // neither each element once nor one repeated
  CHECK_THAT(f.error_of([&] { f.opt.add("bad", w, overlapping); }), Contains("gradient of \"bad\""));
}

TEST_CASE("check_bound() tells that a gradient or weight was moved, and rebind() mends it", "[optimizer]") {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  eigen_backend cpu(1);
  matrix w = matrix::Ones(3, 4), g = matrix::Zero(3, 4);
  const auto gradient = [](const matrix& x) {
    matrix y = 2 * x;
    return y;
  };
  optimizer<adamw, eigen_backend, types<double>> opt(cpu);
  opt.add("w", view_of(w), view_of(g));
  opt.finalize();
  opt.check_bound("w", view_of(w), view_of(g));
  matrix was = gradient(w);
  g.swap(was);  // what g = gradient(w) does: a move assignment swaps storage
  CHECK_THROWS_WITH(opt.check_bound("w", view_of(w), view_of(g)),
                    Contains("gradient of \"w\"") && Contains("rebind()"));
  opt.rebind("w", view_of(g));
  opt.check_bound("w", view_of(w), view_of(g));
  opt.step(0.5);
  CHECK(w(0, 0) == Approx(0.5));
  g = gradient(w).eval();
  opt.rebind("w", view_of(g));
  Eigen::Map<matrix>(g.data(), 3, 4) = gradient(w);  // copies, and stays where it is
  opt.check_bound("w", view_of(w), view_of(g));
  matrix larger = matrix::Ones(4, 4);
  CHECK_THROWS_WITH(opt.check_bound("w", view_of(larger), view_of(g)), Contains("weight of \"w\""));
  CHECK_THROWS_WITH(opt.check_bound("v", view_of(w), view_of(g)), Contains("nearest: \"w\""));
}

TEST_CASE("every plan has a number of its own", "[optimizer]") {
  fixture f, other;
  CHECK(f.opt.plan_number() == 0);
  f.opt.finalize(), other.opt.finalize();
  const auto first = f.opt.plan_number();
  CHECK(first != 0);
  CHECK(first != other.opt.plan_number());
  f.opt.step(0.1);
  f.opt.rebind("good", f.g.cv());
  CHECK(f.opt.plan_number() == first);
  f.opt.release();
  CHECK(f.opt.plan_number() == 0);
  f.opt.finalize();
  CHECK(f.opt.plan_number() != first);
  CHECK(f.opt.plan_number() != other.opt.plan_number());
}

namespace {

struct second_decay {
  double decay = 0;

  static std::string name() { return "second_decay"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("decay", self.decay, range{.low = 0});
  }
  template <class E, class St, class W, class Rate>
  void after(E&, St&, view<W>, Rate, double) const {}
};

}  // namespace

TEST_CASE("a rule with two settings of one name is refused where it is made", "[errors]") {
  using twice = muon::with_constraint<projected<second_decay>>;
  using nested = muon::with_constraint<projected<hard_cap<>, projected<hard_cap<>>>>;
  eigen_backend cpu(1);
  using twice_optimizer = optimizer<twice, eigen_backend, types<double>>;
  using nested_optimizer = optimizer<nested, eigen_backend, types<double>>;
  CHECK_THROWS_WITH(twice_optimizer(cpu), Contains("\"decay\"") && Contains(twice::name()) && Contains("prefixed<"));
  CHECK_THROWS_WITH(nested_optimizer(cpu), Contains("\"power_iterations\""));  // the first of them
  CHECK_THROWS_WITH((rule_registry<eigen_backend, types<double>>().add<twice>("twice")), Contains("\"decay\""));
  twice rule;  // by itself
  CHECK_THROWS_WITH(set_setting(rule, "decay", "0.1"), Contains("\"decay\" is ambiguous") && Contains("2 policies"));
  CHECK(rule.constraint.projection.decay == 0);
  CHECK(rule.constraint.inner.decay == 0);
  set_setting(rule, "momentum", "0.5");
  nested caps;
  CHECK_THROWS_WITH(set_setting(caps, "spectral_most", "2"), Contains("ambiguous"));
  CHECK_THROWS_WITH(set_setting(caps, "spectral_max", "2"), Contains("ambiguous"));  // as it was called
}

TEST_CASE("prefixed gives settings other names, and changes nothing else", "[optimizer]") {
  using inner = prefixed<"inner", hard_cap<>>;
  using caps = moonlight::with_constraint<prefixed<"outer", projected<hard_cap<>, projected<inner>>>>;
  const auto names_of = [](const auto& rule) {
    std::vector<std::string> names;
    for (const auto& s : settings_of(rule)) names.push_back(s.name);
    return names;
  };
  const auto names = names_of(caps{}.constraint);
  CHECK(names == std::vector<std::string>{"outer_power_iterations", "outer_power_seed", "outer_spectral_most",
                                          "outer_spectral_relative", "outer_inner_power_iterations",
                                          "outer_inner_power_seed", "outer_inner_spectral_most",
                                          "outer_inner_spectral_relative", "outer_decay"});
  using bare = moonlight::with_constraint<projected<hard_cap<>, projected<hard_cap<>>>>;
  CHECK(caps::name() == bare::name());
  CHECK(prefixed<"own", decoupled_decay>{}.decay == decoupled_decay{}.decay);
  CHECK(moonlight::with_constraint<prefixed<"own", decoupled_decay>>{}.constraint.decay ==
        moonlight{}.constraint.decay);
  using columns = rule<no_momentum, prefixed<"own", column_direction>, no_normalizer, decoupled_decay, unit_scale>;
  CHECK(matopt::detail::steps_vectors<columns>());

  caps rule;
  set_setting(rule, "outer_inner_spectral_most", "3");
  CHECK(rule.constraint.inner.projection.most == 3);
  CHECK(rule.constraint.projection.most == 1);
  CHECK_THROWS_WITH(set_setting(rule, "outer_spectral_most", "-1"), Contains("outer_spectral_most is -1"));
  using long_name = prefixed<"a_prefix_that_goes_on_and_on_and_on_and_on_and_on_and_on_and_on", decoupled_decay>;
  using too_long = prefixed<"a_prefix_that_goes_on_and_on_and_on_and_on_and_on_and_on_and_on", long_name>;
  CHECK_THROWS_WITH(settings_of(too_long{}), Contains("on_decay\" is 1") && Contains("characters long"));
}

TEST_CASE("a rule with prefixed settings steps as the same rule with the policies bare", "[optimizer]") {
  using one = muon::with_constraint<projected<hard_cap<>>>;
  using other = muon::with_momentum<prefixed<"m", nesterov_ema>>::with_constraint<
      prefixed<"c", projected<prefixed<"cap", hard_cap<>>>>>::with_orthogonalizer<prefixed<"o", newton_schulz<>>>;
  eigen_backend cpu(1);
  stored<double> w(6, 8), v(6, 8), g(6, 8);
  w.fill_random(1), v.fill_random(1), g.fill_random(2);
  optimizer<one, eigen_backend, types<double>> a(cpu);
  optimizer<other, eigen_backend, types<double>> b(cpu);
  a.add("w", w.v(), g.cv()), b.add("w", v.v(), g.cv());
  a.set("momentum", "0.9"), b.set("m_momentum", "0.9");
  a.finalize(), b.finalize();
  for (int t = 0; t < 3; ++t) a.step(0.1), b.step(0.1);
  CHECK(w.memory() == v.memory());
}

TEST_CASE("a registry refuses a name that it knows, unless asked to replace its rule", "[errors]") {
  rule_registry<eigen_backend, types<double>> rules;
  rules.add<muon>("muon");
  CHECK_THROWS_WITH(rules.add<lion>("muon"), Contains("\"muon\"") && Contains("one that no other rule has"));
  CHECK(rules.rule("muon")->signature() == muon::name());
  muon mine;
  mine.momentum.beta = 0.75;
  const auto momentum = [&] {
    for (const setting& s : rules.settings("muon"))
      if (s.name == "momentum") return s.value;
    return std::string("none");
  };
  CHECK(momentum() != "0.75");
  CHECK(rules.replace("muon", mine).replace<lion>("muon").replace("muon", mine).names().size() == 1);
  CHECK(momentum() == "0.75");
  CHECK_THROWS_WITH(rules.replace<lion>("muno"), Contains("nearest: \"muon\""));
  CHECK_THROWS_AS((rules.replace<lion>("lion")), error);
}

TEST_CASE("settings have the names of their members, and take those of version 0.1", "[optimizer]") {
  numuon rule;
  set_setting(rule, "rank_hold", "7"), set_setting(rule, "rank_total", "70");
  CHECK(rule.constraint.rank.hold == 7);
  CHECK(rule.constraint.rank.total == 70);
  set_setting(rule, "rank_hold_steps", "8"), set_setting(rule, "rank_end_step", "80");
  CHECK(rule.constraint.rank.hold == 8);
  CHECK(rule.constraint.rank.total == 80);
  for (const auto& s : settings_of(rule)) CHECK(setting_name(s.name) == s.name);
  CHECK(setting_name("rank_hold_steps") == "rank_hold");
  CHECK(setting_name("weight_decay") == "decay");
  CHECK_THROWS_WITH(set_setting(rule, "rank_hold_step", "8"), Contains("nearest: \"rank_hold\""));
}

namespace {

// Looks at the gradient, leaves it as it is, and steps by -lr ||g|| u: what lift finds is in scratch until retract.
struct gradient_norm_step {
  struct move {
    template <class W, class U, class L>
    MATOPT_HD void operator()(W& w, U u, L lr, L norm) const {
      w -= lr * norm * u;
    }
  };
  template <class S, class C>
  struct state {
    view<C> norm;
  };
  template <class Layout, class St>
  void layout(Layout&, St&) const {}
  static std::string name() { return "gradient_norm_step"; }
  template <class E, class St, class W, class G>
  void lift(E& e, St& s, view<W>, G g) const {
    s.norm = e.take(1, 1);
    e.reduce(fn::square{}, s.norm, g);
    e.for_each(root{}, s.norm);
  }
  struct root {
    template <class T>
    MATOPT_HD void operator()(T& x) const {
      x = math::sqrt(x);
    }
  };
  template <class E, class St, class W, class U, class Rate>
  void retract(E& e, St& s, view<W> w, view<U> u, Rate lr, double) const {
    e.for_each(move{}, w, as_const(u), lr, per_matrix(s.norm));
  }
};
// The same with what it writes as a formula.
struct gradient_norm_formula : gradient_norm_step {
  template <class E, class St, class W, class U, class Rate>
  auto retract(E&, St& s, view<W> w, U u, Rate lr, double) const {
    return elementwise(move{}, w, u, lr, per_matrix(s.norm));
  }
};
// A built-in constraint, but with a lift of its own: it counts steps in the state.
struct counts_lifts : decoupled_decay {
  template <class S, class C>
  struct state {
    view<C> count;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.count = l.scalar("lifts");
  }
  struct add_one {
    template <class T>
    MATOPT_HD void operator()(T& x) const {
      x += T(1);
    }
  };
  template <class E, class St, class W, class G>
  void lift(E& e, St& s, view<W>, G) const {
    e.for_each(add_one{}, s.count);
  }
};
// Hands over a view of its own.
struct returns_its_own {
  static std::string name() { return "returns_its_own"; }
  template <class E, class St, class U>
  auto orthogonalize(E& e, St&, view<U> u) const {
    const auto y = e.take_like(u);
    e.for_each(fn::multiple{2}, y, as_const(u));
    return y;
  }
};

template <class Rule>
mat one_step(double scale, bool scales) {
  eigen_backend cpu(1);
  stored<double> w(4, 6), g(4, 6);
  g.fill_random(3);
  optimizer<Rule, eigen_backend, types<double>> opt(cpu, {}, {.scales_gradient = scales});
  opt.add("w", w.v(), g.cv());
  opt.finalize();
  opt.step(0.1, scale);
  return to_mat(w.cv());
}
template <class Constraint, class Rule>
void check_lift_is_called() {
  eigen_backend cpu(1);
  stored<double> g(4, 6);
  g.fill_random(3);
  const double norm = frobenius(to_mat(g.cv()));
  using plain = typename Rule::template with_constraint<decoupled_decay>::template with_scale<unit_scale>;
  using mine = typename Rule::template with_constraint<Constraint>::template with_scale<unit_scale>;
  CHECK(largest(one_step<mine>(1, false) - norm * one_step<plain>(1, false)) < 1e-12);
  CHECK(largest(one_step<mine>(0.25, true) - 0.25 * norm * one_step<plain>(0.25, true)) < 1e-12);
}

}  // namespace

TEST_CASE("a lift that only looks at the gradient is called in every step", "[optimizer]") {
  check_lift_is_called<gradient_norm_step, muon>(), check_lift_is_called<gradient_norm_step, adamw>();
  check_lift_is_called<gradient_norm_formula, muon>(), check_lift_is_called<gradient_norm_formula, adamw>();
  check_lift_is_called<gradient_norm_formula, lion>(), check_lift_is_called<gradient_norm_step, soap>();
  eigen_backend cpu(1);
  const auto lifts = [&]<class Constraint>(Constraint) {
    stored<double> w(4, 6), g(4, 6);
    optimizer<adamw::with_constraint<Constraint>, eigen_backend, types<double>> opt(cpu);
    opt.add("w", w.v(), g.cv());
    opt.finalize();
    for (int t = 0; t < 3; ++t) opt.step(0.1);
    double count = -1;
    for (const auto& t : opt.state_tensors())
      if (t.name == "w.lifts") opt.read_state(t, &count);
    return count;
  };
  CHECK(lifts(counts_lifts{}) == 3);
  CHECK(lifts(projected<prefixed<"second", second_decay>, counts_lifts>{}) == 3);
}

TEST_CASE("what orthogonalize(e, s, u) returns goes on", "[optimizer]") {
  using none = adamw::with_orthogonalizer<no_orthogonalizer>;
  CHECK(largest(one_step<adamw::with_orthogonalizer<returns_its_own>>(1, false) - 2.0 * one_step<none>(1, false)) <
        1e-12);
}

namespace {

// AdamW on one weight: gradients of 1 for 2000 steps, then 0.01. The last step, over the rate.
template <class State>
double adamw_after_a_fall(double beta2) {
  eigen_backend cpu(1);
  optimizer<adamw, eigen_backend, types<float, float, State>> opt(cpu, {.momentum = {.beta2 = beta2}});
  float w = 0, g = 1;
  opt.add("w", row_major(&w, 1, 1), row_major(&g, 1, 1));
  opt.finalize();
  for (int t = 0; t < 22000; ++t) {
    g = t < 2000 ? 1.F : 0.01F, w = 0;
    opt.step(1e-3);
  }
  return -static_cast<double>(w) / 1e-3;
}

}  // namespace

TEST_CASE("averages that state of 16 bits cannot follow are refused at construction", "[errors]") {
  CHECK_THROWS_WITH(adamw_after_a_fall<bfloat16>(0.999),
                    Contains("beta2 is 0.999; legal: at most 0.9921875 with state in BF16"));
  CHECK_THROWS_WITH(adamw_after_a_fall<float16>(0.9995), Contains("beta2 is 0.9995; legal: at most 0.9990234375"));
  CHECK(adamw_after_a_fall<float>(0.999) == Approx(1).epsilon(1e-3));
  // A second moment of up to twice its mean makes steps of 1 / sqrt(2), of two thirds of it 1.22.
  for (const double beta2 : {0.95, 0.99, 0.9921875}) {
    CAPTURE(beta2);
    CHECK(adamw_after_a_fall<bfloat16>(beta2) > 0.69);
    CHECK(adamw_after_a_fall<bfloat16>(beta2) < 1.25);
  }
  eigen_backend cpu(1);
  CHECK_NOTHROW(optimizer<muon, eigen_backend, types<float, float, bfloat16>>(cpu));
  CHECK_NOTHROW(optimizer<lion, eigen_backend, types<float, float, bfloat16>>(cpu));
  CHECK_THROWS_WITH((optimizer<muon, eigen_backend, types<float, float, bfloat16>>(cpu, {.momentum = {.beta = 0.995}})),
                    Contains("momentum is 0.995"));
  CHECK_THROWS_WITH((any_optimizer<eigen_backend, types<float, float, bfloat16>>(cpu, adamw{})), Contains("beta2"));
}

TEST_CASE("stochastic rounding of state lets averages be slow", "[optimizer]") {
  const double step = adamw_after_a_fall<stochastic<bfloat16>>(0.999);  // 0.02 with rounding to nearest
  CHECK(step > 0.7);
  CHECK(step < 1.4);
  // Slower than the fall is long ago.
  CHECK(adamw_after_a_fall<stochastic<float16>>(0.9999) == Approx(adamw_after_a_fall<float>(0.9999)).epsilon(0.1));
}

namespace {

// Of 4096 random numbers, evenly spread, as many make b of x as x lies nearer to b than to a.
template <class T>
void check_chance(float x, float a, float b) {
  CAPTURE(x, a, b);
  int ups = 0;
  for (std::uint32_t k = 0; k < 4096; ++k) {
    const float y = detail::rounded_by_chance<T>(x, k << 20);
    if (y != a && y != b) FAIL("gives " << y);
    ups += y == b;
  }
  CHECK(std::abs(ups - 4096 * static_cast<double>((x - a) / (b - a))) <= 1);
}

template <class T>
void check_representable() {
  const float most = static_cast<float>(T(std::is_same_v<T, bfloat16> ? 0x1.fep127F : 65504.F));
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    T t;
    t.bits = static_cast<std::uint16_t>(i);
    const float x = t;
    if (!(std::abs(x) <= most)) continue;
    for (const std::uint32_t random : {0U, 0x7fffffffU, 0xffffffffU})
      if (detail::rounded_by_chance<T>(x, random) != x) FAIL("number " << i);
  }
  for (const float sign : {1.F, -1.F}) {
    CHECK(detail::rounded_by_chance<T>(sign * most, 0xffffffffU) == sign * most);
    CHECK(std::isinf(detail::rounded_by_chance<T>(sign * INFINITY, 0xffffffffU)));
  }
  CHECK(std::isnan(detail::rounded_by_chance<T>(std::nanf(""), 5)));
}

}  // namespace

TEST_CASE("stochastic rounding has the mean of what it rounds", "[optimizer]") {
  check_representable<bfloat16>();
  check_representable<float16>();
  for (const float part : {0.25F, 0.5F, 0.8125F})
    for (const float sign : {1.F, -1.F}) {
      check_chance<bfloat16>(sign * (1 + part * 0x1p-7F), sign, sign * (1 + 0x1p-7F));
      check_chance<bfloat16>(sign * (2 - 0x1p-7F + part * 0x1p-7F), sign * (2 - 0x1p-7F), sign * 2);
      check_chance<float16>(sign * (1 + part * 0x1p-10F), sign, sign * (1 + 0x1p-10F));
      check_chance<float16>(sign * part * 0x1p-24F, 0, sign * 0x1p-24F);
      check_chance<float16>(sign * (0x1p-14F - (1 - part) * 0x1p-24F), sign * (0x1p-14F - 0x1p-24F), sign * 0x1p-14F);
    }
}

namespace {

// The weights after some steps of a rule with stochastic state: two matrices of one shape, or the second one alone.
template <class Rule>
std::vector<float> with_stochastic_state(int threads, bool alone) {
  eigen_backend cpu(threads);
  optimizer<Rule, eigen_backend, types<float, float, stochastic<bfloat16>>> opt(cpu);
  stored<float> w{40, 70}, g{40, 70}, first{40, 70}, first_g{40, 70};
  w.fill_random(1), first.fill_random(2);
  if (!alone) opt.add("first", first.v(), first_g.cv());
  opt.add("w", w.v(), g.cv());
  opt.finalize();
  for (std::uint64_t t = 0; t < 6; ++t) {
    g.fill_random(10 + t), first_g.fill_random(20 + t);
    opt.step(0.01);
  }
  std::vector<float> out;
  for (index_t i = 0; i < 40; ++i)
    for (index_t j = 0; j < 70; ++j) out.push_back(w(i, j));
  return out;
}
template <class Rule>
void check_stochastic_state() {
  const auto one = with_stochastic_state<Rule>(1, false);
  CHECK(one == with_stochastic_state<Rule>(2, false));
  CHECK(one == with_stochastic_state<Rule>(1, true));
}

}  // namespace

TEST_CASE("stochastic state is the same with any threads and beside any other matrix", "[optimizer]") {
  check_stochastic_state<adamw>();
  check_stochastic_state<muon>();
  check_stochastic_state<muown>();
}
