// What qk_clip does between steps; templates over a world (world.hpp), run on each backend.
#pragma once
#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <matopt/adamw.hpp>
#include <matopt/muown.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/qk_clip.hpp>

#include "world.hpp"

namespace matopt::test::training {

// Six heads of four rows, two of which are rotary if `shared_rotary`; two heads share a key.
template <class World, class T>
struct attention {
  using backend = typename World::backend;
  using C = arithmetic_t<T>;
  static constexpr index_t heads = 6, groups = 3, head_dim = 4;
  index_t rotary, kept = head_dim - rotary;
  typename World::template matrix<T> wq, wk, gq, gk;
  typename World::template matrix<C> maxima;

  attention(World& world, bool shared_rotary, layout l = layout::row_major)
      : rotary(shared_rotary ? 2 : 0),
        wq(world, heads * head_dim, 10, l),
        wk(world, groups * kept, 7, l),
        gq(world, heads * head_dim, 10),
        gk(world, groups * kept, 7),
        maxima(world, heads, 1) {
    wq.host.fill_random(1), wk.host.fill_random(2), gq.host.fill_random(3), gk.host.fill_random(4);
    for (auto* m : {&wq, &wk, &gq, &gk}) m->up();
  }
  void measured(const std::vector<double>& s) {
    for (index_t h = 0; h < heads; ++h) maxima.host.v()(h, 0) = static_cast<C>(s[static_cast<std::size_t>(h)]);
    maxima.up();
  }
  mat queries() { return wq.down(), to_mat(wq.host.cv()); }
  mat keys() { return wk.down(), to_mat(wk.host.cv()); }
};

template <class World, class T>
void heads_are_clipped() {
  constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const bool rotary : {false, true})
    for (const layout l : {layout::row_major, layout::column_major, layout::sub_block}) {
      CAPTURE(rotary, name_of(l));
      World world;
      attention<World, T> a(world, rotary, l);
      qk_clip<typename World::backend, T> clip(world.b,
                                               {.heads = a.heads,
                                                .groups = a.groups,
                                                .head_dim = a.head_dim,
                                                .rotary = a.rotary,
                                                .threshold = 50,
                                                .alpha = 0.25},
                                               a.maxima.cv());
      clip.add(a.wq.v(), a.wk.v());
      mat q = a.queries(), k = a.keys();
      // The largest of each pair counts; numbers that are none are left out.
      for (const auto& [s, of_group] :
           {std::pair<std::vector<double>, std::vector<double>>{{20, 50, 200, 3, -7, -800}, {50, 200, 0}},
            {{50.5, 400, nan, 100, inf, nan}, {400, 100, 0}},
            {{0, 0, 0, 0, -inf, 1e30}, {0, 0, 1e30}}}) {
        a.measured(s);
        clip();
        for (index_t h = 0; h < a.heads; ++h) {
          const double gamma = 50 / std::fmax(50, of_group[static_cast<std::size_t>(h / 2)]);
          for (index_t i = 0; i < a.head_dim; ++i)
            for (index_t j = 0; j < q.cols; ++j) q(h * a.head_dim + i, j) *= i < a.kept ? std::pow(gamma, 0.25) : gamma;
          for (index_t i = 0; i < a.kept && h % 2 == 0; ++i)
            for (index_t j = 0; j < k.cols; ++j) k(h / 2 * a.kept + i, j) *= std::pow(gamma, 0.75);
        }
        const double limit = 4 * static_cast<double>(std::numeric_limits<T>::epsilon());
        CHECK(largest(a.queries() - q) <= limit * largest(q));
        CHECK(largest(a.keys() - k) <= limit * largest(k));
      }
      CHECK(clip.skipped() == 4);
      REQUIRE(a.wq.host.intact());
      REQUIRE(a.wk.host.intact());
    }
}

// Heads up to the threshold keep their bits, and what a call has done the next one need not do again.
template <class World>
void heads_in_range_keep_their_bits() {
  World world;
  attention<World, float> a(world, false);
  qk_clip<typename World::backend> clip(world.b, {.heads = 6, .groups = 3, .head_dim = 4}, a.maxima.cv());
  clip.add(a.wq.v(), a.wk.v());
  const mat q = a.queries(), k = a.keys();
  a.measured({100, 99.9, -1e9, 1e-30, 0, 300});
  clip();
  const mat once = a.queries();
  for (index_t i = 0; i < q.rows; ++i)
    for (index_t j = 0; j < q.cols; ++j) CHECK((once(i, j) == q(i, j)) == (i < 16));
  CHECK(largest(a.keys() - k) > 0);
  a.measured({100, 99.9, -1e9, 1e-30, 0, 100});
  clip();
  CHECK(largest(a.queries() - once) == 0);
}

// Beside an optimizer: the clipped weights last, also where a rule keeps something of them.
template <class World, class Rule, class Types>
void clipped_weights_last() {
  using T = typename Types::weight;
  World world;
  attention<World, T> a(world, false);
  auto& [rotary, kept, wq, wk, gq, gk, maxima] = a;
  typename World::backend& backend = world.b;
  optimizer<Rule, typename World::backend, Types> opt(backend);
  opt.add("wq", wq.v(), gq.cv());
  opt.add("wk", wk.v(), gk.cv());
  opt.finalize();
  const attention_heads heads{.heads = 6, .groups = 3, .head_dim = 4};
  const double lr = 0.01;
  a.measured({400, 400, 400, 400, 50, 60});

  qk_clip<typename World::backend, T> clip(backend, heads, maxima.cv());
  clip.add(wq.v(), wk.v());
  opt.step(lr);
  clip();
  opt.resync();

  const mat clipped = a.queries();
  opt.step(1e-12);
  CHECK(largest(a.queries() - clipped) <= 1e-5 * largest(clipped));
  CHECK(largest(clipped) < 4);
}

template <class World>
void wrong_heads_are_refused() {
  World world;
  using backend = typename World::backend;
  attention<World, float> a(world, false);
  const auto with = [&](attention_heads of) { return qk_clip<backend>(world.b, of, a.maxima.cv()); };
  using Catch::Contains;
  CHECK_THROWS_WITH(with({.heads = 0, .head_dim = 4}), Contains("heads is 0") && Contains(">= 1"));
  CHECK_THROWS_WITH(with({.heads = 6, .groups = 4, .head_dim = 4}), Contains("groups is 4") && Contains("divisor"));
  CHECK_THROWS_WITH(with({.heads = 6, .head_dim = 4, .rotary = 4}), Contains("rotary is 4") && Contains("head_dim, 4"));
  CHECK_THROWS_WITH(with({.heads = 6, .head_dim = 4, .threshold = 0}), Contains("threshold is 0"));
  CHECK_THROWS_WITH(with({.heads = 6, .head_dim = 4, .alpha = 1.5}), Contains("alpha is 1.5") && Contains("[0, 1]"));
  CHECK_THROWS_WITH(with({.heads = 6, .head_dim = 4, .threshold = 1e-50}), Contains("threshold is 1e-50"));
  CHECK_THROWS_WITH(with({.heads = 6, .head_dim = 4, .threshold = 1e300}), Contains("threshold is 1e+300"));
  CHECK_THROWS_WITH(with({.heads = 5, .head_dim = 4}), Contains("maxima") && Contains("6x1") && Contains("5 heads"));
  auto clip = with({.heads = 6, .groups = 3, .head_dim = 4});
  CHECK_THROWS_WITH(clip.add(a.wk.v(), a.wk.v()), Contains("query") && Contains("12x7") && Contains("24 rows"));
  CHECK_THROWS_WITH(clip.add(a.wq.v(), a.wq.v()), Contains("key") && Contains("24x10") && Contains("12 rows"));
  CHECK_THROWS_WITH(clip.add(a.wq.v(), a.wq.v().row_block(0, 12)), Contains("in memory of the query"));
  CHECK_THROWS_WITH(clip.add(view<float>{nullptr, 24, 10, 10, 1}, a.wk.v()), Contains("query") && Contains("null"));
  // No row is scaled twice.
  clip.add(a.wq.v(), a.wk.v());
  CHECK_THROWS_WITH(clip.add(a.wq.v(), a.gk.v()), Contains("query") && Contains("an earlier pair"));
  CHECK_THROWS_WITH(clip.add(a.gq.v(), a.wk.v()), Contains("key") && Contains("an earlier pair"));
}

}  // namespace matopt::test::training
