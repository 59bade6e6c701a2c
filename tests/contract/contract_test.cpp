// The contract that every rule passes, in float and double, and on a late backend in double. Which rules, on which
// backend, is the table of the program that this file is linked into. Checks that say nothing of a GPU have tags to
// leave them out by: [threads], [late], [mixed].
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <utility>

#include <matopt/core/limits.hpp>

#include "harness.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// Calls f(rule, make) for each rule; make(options) builds a subject of element type T.
template <class T, class F>
void on_eager(F f) {
  for (const auto& rule : contract_rules()) {
    CAPTURE(rule.name);
    f(rule, [&](const subject_options& o = {}) { return rule.make<T>(o); });
  }
}
template <class F>
void on_late(F f) {
  for (const auto& rule : contract_rules()) {
    if (!rule.late) continue;
    CAPTURE(rule.name);
    f(rule, [&](const subject_options& o = {}) { return rule.late(o); });
  }
}
// ... and runs a check everywhere.
template <class F>
void everywhere(F f) {
  SECTION("float") {
    on_eager<float>([&](auto& rule, auto make) { f(rule, make, float{}); });
  }
  SECTION("double") {
    on_eager<double>([&](auto& rule, auto make) { f(rule, make, double{}); });
  }
  SECTION("late, double") {
    on_late([&](auto& rule, auto make) { f(rule, make, double{}); });
  }
}

// Three same-shape matrices, of which the middle one lies differently, and one of another shape.
template <class T>
void add_several(bench<T>& b) {
  b.add("a", {24, 40}, layout::row_major, 1);
  b.add("b", {24, 40}, layout::sub_block, 2);
  b.add("c", {24, 40}, layout::row_major, 3);
  b.add("d", {40, 24}, layout::column_major, 4);
  b.finalize();
}

// Of matrices that step in other company than before: the same bits, where the backend promises so.
template <class T>
bool alike(const contract_rule& rule, const accuracy& promises, const std::vector<T>& a, const std::vector<T>& b) {
  if (promises.bits_of_bucket) return same_bits(a, b);
  return !rule.unique_trajectory || relative_difference(a, b) < promises.limit<T>(rule.newton_schulz);
}

}  // namespace

TEST_CASE("contract: any layout, shape and content leaves finite weights and state, and nothing else touched",
          "[contract]") {
  everywhere([](auto& rule, auto make, auto zero) {
    using T = decltype(zero);
    for (const shape s : all_shapes)
      for (const content c : all_contents) {
        std::vector<T> expected;
        for (const layout l : all_layouts) {
          CAPTURE(s.rows, s.cols, name_of(c), name_of(l));
          bench<T> b(make({}));
          auto& p = b.add("w", s, l);
          b.finalize();
          b.run(3, 0.02, c);
          const auto w = b.weights();
          REQUIRE(all_finite(p.w.cv()));
          REQUIRE(b.state_is_finite());
          REQUIRE(p.w.intact());
          REQUIRE(p.g.intact());
          REQUIRE(b->poll_status().skipped == 0);
          // Where the arithmetic is well-conditioned the layout does not show.
          if (l == layout::row_major)
            expected = w;
          else if (rule.unique_trajectory && (c == content::random || c == content::zero))
            REQUIRE(relative_difference(w, expected) < b->promises().template limit<T>(rule.newton_schulz));
        }
      }
  });
}

TEST_CASE("contract: huge gradients leave finite weights and state, or their steps are skipped and reported",
          "[contract][huge]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    constexpr bool single = std::is_same_v<T, float>;
    const double largest = static_cast<double>(std::numeric_limits<T>::max());
    for (const double size : {single ? 1e25 : 1e200, single ? 1e30 : 1e250, single ? 1.99e31 : 1e301,
                              single ? 1e37 : 1e307, single ? 2e38 : 1e308, largest})
      for (const form f : all_forms) {
        CAPTURE(size, name_of(f));
        bench<T> b(make({}));
        auto& p = b.add("w", shape_of(f));
        b.finalize();
        index_t skipped = 0;
        for (int t = 0; t < 60; ++t) {
          b->synchronize();
          fill_form(p.g, f, size), fill_form(p.r, f, size);
          b->step(0.02);
          const auto status = b->poll_status();
          if (!status) REQUIRE(status.parameters == std::vector<std::string>{"w"});
          skipped += status.skipped;
        }
        b->synchronize();
        CHECK(all_finite(p.w.cv()));
        CHECK(b.state_is_finite());
        CHECK(skipped == (size > largest_input<T> ? 60 : 0));
      }
  });
}

TEST_CASE("contract: gradients that change their size from step to step leave finite weights and state",
          "[contract][huge]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    const double most = std::is_same_v<T, float> ? 30 : 290;  // powers of ten
    const std::pair<const char*, std::function<double(int)>> courses[] = {
        {"up and down", [&](int t) { return t % 2 ? most : -most; }},
        {"growing", [&](int t) { return std::min(most, -most + 0.2 * most * t); }},
        {"shrinking", [&](int t) { return std::max(-most, most - 0.2 * most * t); }}};
    for (const auto& [name, power] : courses) {
      CAPTURE(name);
      bench<T> b(make({}));
      auto& p = b.add("w", {33, 20});
      b.finalize();
      for (int t = 0; t < 16; ++t) {
        b->synchronize();
        const auto seed = static_cast<std::uint64_t>(t);
        p.g.fill_random(seed, std::pow(10, power(t))), p.r.fill_random(seed + 500, std::pow(10, power(t)));
        b->step(0.02);
      }
      CHECK(b->poll_status().skipped == 0);
      b->synchronize();
      CHECK(all_finite(p.w.cv()));
      CHECK(b.state_is_finite());
    }
  });
}

static bool is_eps(const setting& s) { return s.name == "eps" || s.name.ends_with("_eps"); }

// How far the weights may get after one gradient out of line, in units of what they do without it. A rule whose step
// follows the size of the gradient (PNM, PolarGrad) goes where that one takes it; its weights have to be finite.
TEST_CASE("contract: one huge gradient among ordinary ones moves no weight far", "[contract][huge]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    constexpr bool single = std::is_same_v<T, float>;
    constexpr double lr = 0.02;
    // The largest change of a weight in 40 steps of gradients of size `usual`, of which number `at` is another.
    const auto moved = [&](double usual, double spike, bool all, std::uint64_t at) {
      bench<T> b(make({}));
      auto& p = b.add("w", {7, 9});
      b.finalize();
      const auto before = b.weights();
      for (std::uint64_t t = 0; t < 40; ++t) {
        b->synchronize();
        p.g.fill_random(100 + t, usual), p.r.fill_random(500 + t, usual);
        if (t == at && spike > 0) {
          if (all) p.g.fill_random(100 + t, spike), p.r.fill_random(500 + t, spike);
          p.g.v()(2, 3) = p.r.v()(2, 3) = static_cast<T>(spike);
        }
        b->step(lr);
      }
      REQUIRE(b.state_is_finite());
      const auto after = b.weights();
      double most = 0;
      for (std::size_t i = 0; i < after.size(); ++i) {
        REQUIRE(math::finite(after[i]));
        most = std::max(most, std::abs(static_cast<double>(after[i]) - static_cast<double>(before[i])));
      }
      return most;
    };
    const double usual = moved(1, 0, false, 0);
    const bool follows_size = moved(1000, 0, false, 0) > 30 * usual;
    for (const double spike : {1e4, 1e10, single ? 1e18 : 1e150, single ? 1e20 : 1e160, single ? 1e30 : 1e290,
                               single ? 1.99e31 : 1e301, static_cast<double>(std::numeric_limits<T>::max())})
      for (const bool all : {false, true})
        for (const std::uint64_t at : {0U, 3U}) {
          CAPTURE(spike, all, at);
          const double most = moved(1, spike, all, at);
          if (!follows_size) CHECK(most < 20 * usual);
        }
  });
}

TEST_CASE("contract: the size of the gradients, but for eps, does not change a step that does not follow it",
          "[contract][huge]") {
  for (const auto& rule : contract_rules()) {
    if (!rule.with_settings) continue;
    CAPTURE(rule.name);
    std::vector<setting> least;  // every eps as small as float has them
    for (const setting& s : rule.settings)
      if (is_eps(s) && std::strtod(s.value.c_str(), nullptr) > 0) least.push_back({s.name, "1e-38"});
    // The change of the weight by two steps along one gradient; SOAP takes the first one to look.
    const auto change = [&](const std::vector<setting>& settings, shape s, double size) {
      bench<float> b(rule.with_settings(settings));
      auto& p = b.add("w", s);
      b.finalize();
      const auto before = b.weights();
      for (int t = 0; t < 2; ++t) {
        b->synchronize();
        const auto fill = [&](index_t i, index_t j, index_t) {
          return s.rows == s.cols ? size * (i == j)
                                  : size * (1.5 * (i == j) + 0.5 * std::sin(static_cast<double>(7 * i + 3 * j)));
        };
        p.g.fill(fill), p.r.fill(fill);
        b->step(0.02);
      }
      auto out = b.weights();
      for (std::size_t i = 0; i < out.size(); ++i) out[i] -= before[i];
      REQUIRE(b.state_is_finite());
      return out;
    };
    const auto largest_of = [](const std::vector<float>& x) {
      float most = 0;
      for (const float y : x) most = std::max(most, std::abs(y));
      return static_cast<double>(most);
    };
    const auto norm_eps =
        std::find_if(rule.settings.begin(), rule.settings.end(), [](const setting& s) { return s.name == "ns_eps"; });
    const bool named_code = norm_eps != rule.settings.end() && std::strtod(norm_eps->value.c_str(), nullptr) > 1e-30;
    const bool has_eps = std::any_of(rule.settings.begin(), rule.settings.end(),
                                     [](const setting& s) { return s.name != "ns_eps" && is_eps(s); });
    for (const shape s : {shape{8, 8}, shape{5, 9}}) {
      const auto usual = change({}, s, 1e6);
      const double unit = largest_of(usual);
      if (largest_of(change({}, s, 1e9)) > 100 * unit) continue;  // it follows the size
      for (const double size : {1e12, 1e20, 1e25, 1e30}) {
        CAPTURE(s.rows, size);
        const auto now = change({}, s, size);
        // Luon adds a multiple of the weight, MARS' second gradient difference vanishes or is clipped alike.
        if (rule.unique_trajectory) CHECK(relative_difference(now, usual) < 0.02);
      }
      for (const double size : {1e-10, 1e-15, 1e-20, 1e-30, 1e-38}) {
        CAPTURE(s.rows, size);
        CHECK(largest_of(change(least, s, size)) < 20 * unit);
        if (!named_code && !has_eps && norm_eps != rule.settings.end() && size >= 1e-30)
          CHECK(relative_difference(change({}, s, size), usual) < 0.02);
      }
    }
  }
}

TEST_CASE("contract: a setting at the ends of its range leaves finite weights and state, or is refused by name",
          "[contract]") {
  struct course {
    double size;
    int steps, zeros;  // how many of the steps have a gradient, and how many follow without
  };
  for (const auto& rule : contract_rules()) {
    if (!rule.with_settings) continue;
    CAPTURE(rule.name);
    for (const auto& [name, text] : rule.settings) {
      CAPTURE(name, text);
      char* end = nullptr;
      std::strtod(text.c_str(), &end);
      if (*end != 0) continue;  // a word or a list
      // What the name of a number may legally be, as text: these are legal in double for one setting or another, and
      // float holds the last three.
      for (const char* hard : {"5e-324", "1e-50", "1e-46", "0.999999999999", "1e39", "1e300", "1e10", "1e20", "2e31"})
        for (const course& c : {course{1, 4, 0}, course{1e18, 4, 0}, course{1, 2, 12}}) {
          CAPTURE(hard, c.size, c.zeros);
          std::string error;
          try {
            bench<float> b(rule.with_settings({{name, hard}}));
            auto& p = b.add("w", {5, 8});
            b.finalize();
            for (int t = 0; t < c.steps + c.zeros; ++t) {
              b->synchronize();
              const auto seed = static_cast<std::uint64_t>(t);
              const double size = t < c.steps ? c.size : 0;
              p.g.fill_random(seed, size), p.r.fill_random(seed + 500, size);
              b->step(0.02);
            }
            b->synchronize();
            CHECK(b.state_is_finite());
            for (const float x : b.weights()) CHECK(math::finite(x));
          } catch (const matopt::error& e) {
            error = e.what();
          }
          if (!error.empty()) CHECK_THAT(error, Catch::Contains(name));
        }
    }
  }
}

TEST_CASE("contract: a random gradient moves every weight matrix", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> b(make({}));
    add_several(b);
    b->synchronize();
    std::vector<std::vector<T>> before;
    for (std::size_t i = 0; i < b.size(); ++i) before.push_back(elements(b[i].w.cv()));
    b.run(2);  // SOAP only measures in the first step
    for (std::size_t i = 0; i < b.size(); ++i) {
      CAPTURE(i);
      CHECK(relative_difference(elements(b[i].w.cv()), before[i]) > 1e-4);
    }
  });
}

TEST_CASE("contract: a zero gradient from the start leaves the weights", "[contract]") {
  everywhere([](auto& rule, auto make, auto zero) {
    using T = decltype(zero);
    for (const shape s : all_shapes) {
      CAPTURE(s.rows, s.cols);
      bench<T> b(make({}));
      b.add("w", s);
      b.finalize();
      const auto before = b.weights();
      b.run(3, 0.02, content::zero);
      if (rule.exact_at_rest)
        CHECK(same_bits(b.weights(), before));
      else
        CHECK(relative_difference(b.weights(), before) <
              b->promises().rest * static_cast<double>(std::numeric_limits<T>::epsilon()));
    }
  });
}

TEST_CASE("contract: the same bits for every number of threads", "[contract][threads]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    std::vector<T> expected;
    std::vector<std::byte> expected_state;
    for (const int threads : {1, 2, 3, 5}) {
      CAPTURE(threads);
      bench<T> b(make({.threads = threads}));
      b.add("large", {64, 520}, layout::row_major, 9);  // enough elements to be shared out
      b.add("pair.a", {60, 45}, layout::row_major, 7);
      b.add("pair.b", {60, 45}, layout::row_major, 8);
      b.finalize();
      b.run(2);
      if (threads == 1) {
        expected = b.weights();
        expected_state = b.state();
      }
      REQUIRE(same_bits(b.weights(), expected));
      REQUIRE(same_bits(b.state(), expected_state));
    }
  });
}

TEST_CASE("contract: a gradient that is not finite skips the whole step, and names its parameter", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    for (const double poison : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                                -std::numeric_limits<double>::infinity()})
      for (const std::size_t where : {std::size_t{1}, std::size_t{3}}) {
        CAPTURE(poison, where);
        bench<T> b(make({})), without(make({}));
        add_several(b), add_several(without);
        b.run(1), without.run(1);
        const auto weights = b.weights();
        const auto state = b.state();
        REQUIRE(same_bits(weights, without.weights()));

        for (std::size_t i = 0; i < b.size(); ++i) fill_gradient(b[i].g, content::random, 900 + i);
        b[where].g.v()(5, 6) = static_cast<T>(poison);
        b->step(0.02);
        CHECK(same_bits(b.weights(), weights));
        CHECK(same_bits(b.state(), state));
        const step_status status = b->poll_status();
        CHECK(!status);
        CHECK(status.skipped == 1);
        CHECK(status.parameters == std::vector<std::string>{where == 1 ? "b" : "d"});
        CHECK(b->poll_status().skipped == 0);
        CHECK(b->poll_status().parameters.empty());

        // Rank schedules and random blocks count steps, skipped or not; nothing else may remember.
        without->set_steps(without->steps() + 1);
        REQUIRE(b->steps() == without->steps());
        for (std::uint64_t t = 0; t < 2; ++t)
          b.step(0.02, content::random, 40 + t), without.step(0.02, content::random, 40 + t);
        CHECK(same_bits(b.weights(), without.weights()));
        CHECK(same_bits(b.state(), without.state()));
        CHECK(b->poll_status().skipped == 0);
      }
  });
}

TEST_CASE("contract: a matrix that is left out stays as it is, and the others step as if it were there", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    for (const std::size_t out : {std::size_t{0}, std::size_t{1}}) {  // one of a bucket, and all of one
      CAPTURE(out);
      bench<T> b(make({.threads = 2})), all(make({.threads = 2}));
      add_several(b), add_several(all);
      b.run(2), all.run(2);
      const std::string name = out == 0 ? "a" : "b";
      const auto kept = [&] {
        std::vector<std::byte> bytes;
        for (const auto& s : b->read_state())
          if (s.name.starts_with(name + '.')) bytes.insert(bytes.end(), s.bytes.begin(), s.bytes.end());
        return bytes;
      };
      b.weights();
      const auto weight = elements(b[out].w.cv());
      const auto state = kept();
      b->leave_out({name});
      for (std::uint64_t t = 0; t < 2; ++t) {
        b->synchronize(), all->synchronize();
        for (std::size_t i = 0; i < b.size(); ++i) {
          fill_gradient(b[i].g, content::random, 900 + 31 * t + i);
          fill_gradient(all[i].g, content::random, 900 + 31 * t + i);
        }
        b[out].g.v()(5, 6) = std::numeric_limits<T>::quiet_NaN();  // nobody looks
        b->step(0.02), all->step(0.02);
        CHECK(b->poll_status());
        b.weights(), all.weights();
        CHECK(same_bits(elements(b[out].w.cv()), weight));
        CHECK(kept() == state);
        for (std::size_t i = 0; i < b.size(); ++i)
          if (i != out) CHECK(same_bits(elements(b[i].w.cv()), elements(all[i].w.cv())));
      }
      b->leave_out({});
      b.step(0.02, content::random, 77);
      b.weights();
      CHECK_FALSE(same_bits(elements(b[out].w.cv()), weight));
    }
  });
}

TEST_CASE("contract: polling less often counts the skipped steps", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> b(make({}));
    add_several(b);
    for (const std::size_t bad : {0U, 2U, 4U, 2U}) {  // 4: none
      b->synchronize();
      for (std::size_t i = 0; i < b.size(); ++i) fill_gradient(b[i].g, content::random, 7 + i);
      if (bad < b.size()) b[bad].g.v()(0, 0) = std::numeric_limits<T>::quiet_NaN();
      b->step(0.01);
    }
    const auto status = b->poll_status();
    CHECK(status.skipped == 3);
    CHECK(status.parameters == std::vector<std::string>{"a", "c"});
  });
}

TEST_CASE("contract: scattered matrices step as each one alone", "[contract]") {
  everywhere([](auto& rule, auto make, auto zero) {
    using T = decltype(zero);
    for (const layout l : {layout::row_major, layout::column_major}) {
      CAPTURE(name_of(l));
      bench<T> together(make({.threads = 2}));
      for (std::uint64_t i = 0; i < 4; ++i) together.add("w" + std::to_string(i), {24, 40}, l, 10 + i);
      together.finalize();
      REQUIRE(together->bucket_count() == 1);
      together.run(3);
      for (std::uint64_t i = 0; i < 4; ++i) {
        CAPTURE(i);
        bench<T> alone(make({}));
        alone.add("w", {24, 40}, l, 10 + i);
        alone.finalize();
        for (std::uint64_t t = 0; t < 3; ++t) alone.step(0.02, content::random, 100 + t + 31 * i);
        CHECK(alike(rule, alone->promises(), alone.weights(), elements(together[i].w.cv())));
      }
    }
  });
}

TEST_CASE("contract: batch_limit does not change results", "[contract]") {
  everywhere([](auto& rule, auto make, auto zero) {
    using T = decltype(zero);
    std::vector<T> expected;
    std::size_t scratch = 0;
    for (const index_t limit : {0, 1, 2, 3}) {
      CAPTURE(limit);
      bench<T> b(make({.optimizer = {.batch_limit = limit}}));
      for (std::uint64_t i = 0; i < 5; ++i) b.add("w" + std::to_string(i), {24, 40}, layout::row_major, 10 + i);
      b.finalize();
      CHECK(b->bucket_count() == (limit == 0 ? 1 : (5 + limit - 1) / limit));
      b.run(3);
      if (limit == 0) {
        expected = b.weights();
        scratch = b->memory().scratch_bytes;
      }
      CHECK(alike(rule, b->promises(), b.weights(), expected));
      if (limit == 1 && scratch > 0) CHECK(b->memory().scratch_bytes < scratch);  // elementwise rules need none
    }
  });
}

TEST_CASE("contract: a stacked view is its matrices", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    constexpr index_t layers = 3;
    for (const layout l : all_layouts) {
      CAPTURE(name_of(l));
      stored<T> w(24, 30, l, layers), g(24, 30, l, layers), r(24, 30, l, layers), w1(24, 30, l, layers),
          g1(24, 30, l, layers), r1(24, 30, l, layers);
      w.fill_random(3), w1.fill_random(3), g.fill_random(4), g1.fill_random(4), r.fill_random(5), r1.fill_random(5);
      auto stacked = make({}), separate = make({});
      for (auto* x : {&w, &g, &r}) stacked->track(x->memory().data(), x->bytes());
      for (auto* x : {&w1, &g1, &r1}) separate->track(x->memory().data(), x->bytes());
      stacked->add("w", w.v(), g.cv(), r.cv());
      for (index_t b = 0; b < layers; ++b)
        separate->add("w." + std::to_string(b), w1.v().matrix(b), g1.cv().matrix(b), r1.cv().matrix(b));
      stacked->finalize(), separate->finalize();
      for (int t = 0; t < 2; ++t) stacked->step(0.02), separate->step(0.02);
      stacked->synchronize(), separate->synchronize();
      CHECK(same_bits(elements(w.cv()), elements(w1.cv())));
      const auto names = [](const auto& tensors) {
        std::vector<std::string> out;
        for (const auto& s : tensors) out.push_back(s.name);
        return out;
      };
      CHECK(names(stacked->read_state()) == names(separate->read_state()));
      CHECK(w.intact());
    }
  });
}

TEST_CASE("contract: row blocks are separate matrices", "[contract]") {
  everywhere([](auto& rule, auto make, auto zero) {
    using T = decltype(zero);
    const std::vector<index_t> blocks{24, 5, 24, 1};
    stored<T> w(54, 30), g(54, 30), r(54, 30), w1(54, 30), g1(54, 30), r1(54, 30);
    w.fill_random(3), w1.fill_random(3), g.fill_random(4), g1.fill_random(4), r.fill_random(5), r1.fill_random(5);
    auto fused = make({}), separate = make({});
    for (auto* x : {&w, &g, &r}) fused->track(x->memory().data(), x->bytes());
    for (auto* x : {&w1, &g1, &r1}) separate->track(x->memory().data(), x->bytes());
    fused->add("qkv", w.v(), g.cv(), r.cv(), {.row_blocks = blocks});
    index_t first = 0;
    for (const index_t rows : blocks) {
      separate->add("part" + std::to_string(first), w1.v().row_block(first, rows), g1.cv().row_block(first, rows),
                    r1.cv().row_block(first, rows));
      first += rows;
    }
    fused->finalize(), separate->finalize();
    for (int t = 0; t < 3; ++t) fused->step(0.02), separate->step(0.02);
    fused->synchronize(), separate->synchronize();
    CHECK(alike(rule, fused->promises(), elements(w.cv()), elements(w1.cv())));
  });
}

TEST_CASE("contract: lr_scale multiplies the rate", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> scaled(make({})), plain(make({}));
    scaled.add("w", {24, 40}, layout::row_major, 1, {.lr_scale = 0.25});
    plain.add("w", {24, 40});
    scaled.finalize(), plain.finalize();
    scaled.run(2, 0.02), plain.run(2, 0.005);
    CHECK(same_bits(scaled.weights(), plain.weights()));
  });
}

TEST_CASE("contract: a scale of the gradients is another gradient", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> scaled(make({.optimizer = {.scales_gradient = true}})), multiplied(make({}));
    add_several(scaled), add_several(multiplied);
    for (const double s : {0.5, 4.0, 1.0}) {  // powers of two: not even rounding may differ
      scaled->synchronize(), multiplied->synchronize();
      for (std::size_t i = 0; i < scaled.size(); ++i)
        for (auto* b : {&scaled, &multiplied}) {
          const double factor = b == &scaled ? 1 : s;
          auto& p = (*b)[i];
          fill_gradient(p.g, content::random, 60 + i), fill_gradient(p.r, content::random, 70 + i);
          p.g.fill([&](index_t r, index_t c, index_t) { return factor * static_cast<double>(p.g(r, c)); });
          p.r.fill([&](index_t r, index_t c, index_t) { return factor * static_cast<double>(p.r(r, c)); });
        }
      scaled->step(0.02, s), multiplied->step(0.02);
    }
    CHECK(same_bits(scaled.weights(), multiplied.weights()));
    CHECK(same_bits(scaled.state(), multiplied.state()));
    for (std::size_t i = 0; i < scaled.size(); ++i) CHECK(scaled[i].g.intact());
    CHECK(scaled->poll_status());
  });
}

TEST_CASE("contract: memory() is what finalize() asks for", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    for (const int threads : {1, 5})
      for (const index_t limit : {0, 1, 2}) {
        CAPTURE(threads, limit);
        const optimizer_options options{.batch_limit = limit, .scales_gradient = limit == 2};
        bench<T> b(make({.threads = threads, .optimizer = options}));
        b.add("a", {24, 40}), b.add("b", {24, 40}), b.add("c", {3, 9}, layout::column_major);
        const memory_report planned = b->memory();
        REQUIRE(b->asked() == 0);
        b.finalize();
        CHECK(b->asked() == planned.total());
        CHECK(b->memory().total() == planned.total());
        std::size_t lines = planned.control;
        for (const auto& line : planned.state) lines += line.bytes;
        CHECK(lines == planned.state_bytes);
        b.run(3);
        CHECK(b->asked() == planned.total());
      }
  });
}

TEST_CASE("contract: rebind reads the gradient at its new address", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    stored<T> elsewhere(24, 40);  // outlives the subject, which may still write it
    bench<T> moved(make({})), fixed(make({}));
    moved->track(elsewhere.memory().data(), elsewhere.bytes());
    for (auto* b : {&moved, &fixed})
      b->add("a", {24, 40}, layout::row_major, 1), b->add("b", {24, 40}, layout::row_major, 2);
    moved.finalize(), fixed.finalize();
    moved.run(1), fixed.run(1);
    for (auto* b : {&moved, &fixed}) fill_gradient((*b)[0].g, content::random, 70);
    fill_gradient(fixed[1].g, content::random, 71);
    fill_gradient(elsewhere, content::random, 71);
    moved[1].g.v()(0, 0) = std::numeric_limits<T>::quiet_NaN();  // the old address is read no more
    moved->rebind("b", elsewhere.cv());
    moved->step(0.02), fixed->step(0.02);
    CHECK(same_bits(moved.weights(), fixed.weights()));
    CHECK(moved->poll_status().skipped == 0);
  });
}

TEST_CASE("contract: state that is read and written takes another optimizer on from there", "[contract]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> first(make({})), second(make({}));
    add_several(first), add_several(second);
    first.run(3);
    second->synchronize();
    for (std::size_t i = 0; i < first.size(); ++i) {
      const view<T> from = first[i].w.v();
      second[i].w.fill([&](index_t row, index_t col, index_t) { return from(row, col); });
    }
    second->write_state(first->read_state());
    second->set_steps(first->steps());
    REQUIRE(same_bits(first.state(), second.state()));
    for (std::uint64_t t = 0; t < 2; ++t)
      first.step(0.02, content::random, 60 + t), second.step(0.02, content::random, 60 + t);
    CHECK(same_bits(first.weights(), second.weights()));
    CHECK(same_bits(first.state(), second.state()));
  });
}

TEST_CASE("contract: the late backend gives the bits of the eager one", "[contract][late]") {
  for (const auto& rule : contract_rules()) {
    if (!rule.late) continue;
    CAPTURE(rule.name);
    bench<double> eager(rule.make<double>()), late(rule.late({}));
    add_several(eager), add_several(late);
    for (std::uint64_t t = 0; t < 4; ++t) {
      eager.step(0.02, content::random, t), late.step(0.02, content::random, t);
      if (t == 1) {  // unlike eagerly, a step is not done when it returns
        CHECK(std::isnan(late[0].w(0, 0)));
        CHECK(std::isnan(late[3].g(2, 2)));
      }
    }
    CHECK(same_bits(eager.weights(), late.weights()));
    CHECK(same_bits(eager.state(), late.state()));
  }
}

// Where the table is of another backend than the CPU's.
TEST_CASE("contract: the trajectory is the CPU's", "[contract][other]") {
  const auto follow = [](const contract_rule& rule, auto make, auto make_on_cpu, auto zero) {
    using T = decltype(zero);
    bench<T> here(make({})), cpu(make_on_cpu({}));
    add_several(here), add_several(cpu);
    for (std::uint64_t t = 0; t < 4; ++t) {
      CAPTURE(t);
      here.step(0.02, content::random, t), cpu.step(0.02, content::random, t);
      const double error = relative_difference(here.weights(), cpu.weights());
      CHECK(error < here->promises().template limit<T>(rule.newton_schulz));
    }
  };
  for (const auto& rule : contract_rules()) {
    CAPTURE(rule.name);
    if (!rule.unique_trajectory) continue;
    if (rule.float_on_cpu) follow(rule, rule.in_float, rule.float_on_cpu, float{});
    if (rule.double_on_cpu) follow(rule, rule.in_double, rule.double_on_cpu, double{});
  }
}

TEST_CASE("contract: mixed element types stay near the double run", "[contract][mixed]") {
  for (const auto& rule : contract_rules())
    for (const auto& [coarsest, run] : rule.mixed) {
      CAPTURE(rule.name, coarsest);
      for (const shape s : {shape{24, 40}, shape{40, 24}, shape{1, 9}}) {
        CAPTURE(s.rows, s.cols);
        // What the narrow types cannot hold must not count: start from numbers that bfloat16 has.
        const auto rounded = [](mat m) {
          for (auto& x : m.a) x = static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(x))));
          return m;
        };
        const mat w0 = rounded(random_mat(s.rows, s.cols, 5));
        std::vector<mat> gradients;
        for (std::uint64_t t = 0; t < 3; ++t) gradients.push_back(rounded(random_mat(s.rows, s.cols, 20 + t)));
        const mat expected = rule.in_double_types(w0, gradients, 0.02), got = run(w0, gradients, 0.02);
        const double limit = coarsest == "float"     ? tolerance<float>
                             : coarsest == "float16" ? tolerance<float16>
                                                     : tolerance<bfloat16>;
        CHECK(relative_difference(got.a, expected.a) < limit);
      }
    }
}
