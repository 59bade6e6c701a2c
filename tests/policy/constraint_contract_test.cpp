// What every rule must do, of rules with the new constraints: the checks of contract/contract_test.cpp on a table of
// their own, since most of them move a weight at rest.
#include "constraint_contract.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

const std::vector<constraint_rule>& table() {
  static const std::vector<constraint_rule> all = [] {
    std::vector<constraint_rule> rules;
    append_norm_constraints(rules), append_spectral_constraints(rules), append_sphere_constraints(rules);
    return rules;
  }();
  return all;
}
template <class F>
void everywhere(F f) {
  for (const auto& c : table()) {
    CAPTURE(c.rule.name);
    f(
        c, [&](const subject_options& o = {}) { return c.rule.make<float>(o); }, float{});
    f(
        c, [&](const subject_options& o = {}) { return c.rule.make<double>(o); }, double{});
    f(
        c, [&](const subject_options& o = {}) { return c.rule.late(o); }, double{});
  }
}

}  // namespace

TEST_CASE("constraints: any layout, shape and content leaves finite weights and state", "[constraint]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    for (const shape s : {shape{9, 12}, shape{12, 9}, shape{8, 8}, shape{1, 7}, shape{7, 1}, shape{1, 1}})
      for (const content c : all_contents)
        for (const bool zero_weight : {false, true}) {
          std::vector<T> expected;
          for (const layout l : all_layouts) {
            CAPTURE(s.rows, s.cols, name_of(c), name_of(l), zero_weight);
            bench<T> b(make({}));
            auto& p = b.add("w", s, l);
            if (zero_weight) p.w.fill([](index_t, index_t, index_t) { return 0.0; });
            b.finalize();
            b.run(3, 0.02, c);
            const auto w = b.weights();
            REQUIRE(all_finite(p.w.cv()));
            REQUIRE(b.state_is_finite());
            REQUIRE(p.w.intact());
            if (l == layout::row_major)
              expected = w;
            else if (c == content::random || c == content::zero)
              REQUIRE(relative_difference(w, expected) < tolerance<T>);
          }
        }
  });
}

TEST_CASE("constraints: huge gradients leave finite weights and state", "[constraint][huge]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    constexpr bool single = std::is_same_v<T, float>;
    for (const double size : {single ? 1e10 : 1e100, single ? 1e20 : 1e170, single ? 1.99e31 : 1e301})
      for (const form f : all_forms) {
        CAPTURE(size, name_of(f));
        bench<T> b(make({}));
        auto& p = b.add("w", shape_of(f));
        b.finalize();
        for (int t = 0; t < 30; ++t) {
          b->synchronize();
          fill_form(p.g, f, t % 3 == 1 ? -size : size), fill_form(p.r, f, size);
          b->step(0.02);
        }
        b->synchronize();
        CHECK(all_finite(p.w.cv()));
        CHECK(b.state_is_finite());
        CHECK(b->poll_status().skipped == 0);
      }
  });
}

TEST_CASE("constraints: a zero gradient, and a random one", "[constraint]") {
  everywhere([](auto& rule, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> b(make({}));
    b.add("w", {9, 12});
    b.finalize();
    const auto before = b.weights();
    b.run(3, 0.02, content::zero);
    if (rule.rest == at_rest::exact) CHECK(same_bits(b.weights(), before));
    if (rule.rest != at_rest::moves)
      CHECK(relative_difference(b.weights(), before) < 16 * static_cast<double>(std::numeric_limits<T>::epsilon()));
    const auto rested = b.weights();
    b.run(1);
    CHECK(relative_difference(b.weights(), rested) > 1e-4);
  });
}

TEST_CASE("constraints: matrices of a bucket step as each one alone, whatever the threads", "[constraint]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> together(make({.threads = 3}));
    for (std::uint64_t i = 0; i < 3; ++i) together.add("w" + std::to_string(i), {14, 10}, layout::row_major, 10 + i);
    together.finalize();
    REQUIRE(together->bucket_count() == 1);
    together.run(3);
    for (std::uint64_t i = 0; i < 3; ++i) {
      CAPTURE(i);
      bench<T> alone(make({}));
      alone.add("w", {14, 10}, layout::row_major, 10 + i);
      alone.finalize();
      for (std::uint64_t t = 0; t < 3; ++t) alone.step(0.02, content::random, 100 + t + 31 * i);
      CHECK(same_bits(alone.weights(), elements(together[i].w.cv())));
    }
  });
}

TEST_CASE("constraints: a skipped step changes nothing", "[constraint]") {
  everywhere([](auto&, auto make, auto zero) {
    using T = decltype(zero);
    bench<T> b(make({}));
    b.add("a", {9, 12}), b.add("b", {12, 9}, layout::column_major);
    b.finalize();
    b.run(2);
    const auto weights = b.weights();
    const auto state = b.state();
    fill_gradient(b[0].g, content::random, 7), fill_gradient(b[1].g, content::random, 8);
    b[1].g.v()(2, 3) = std::numeric_limits<T>::quiet_NaN();
    b->step(0.02);
    CHECK(same_bits(b.weights(), weights));
    CHECK(same_bits(b.state(), state));
    CHECK(b->poll_status().skipped == 1);
  });
}

TEST_CASE("constraints: bfloat16 weights follow double ones", "[constraint]") {
  const mat w0 = to_mat([] {
    static stored<bfloat16> w(9, 12);
    w.fill_random(1, .5);
    return w.cv();
  }());
  for (const auto& c : table()) {
    CAPTURE(c.rule.name);
    std::vector<mat> gradients;
    for (std::uint64_t t = 0; t < 3; ++t) gradients.push_back(random_mat(9, 12, 5 + t));
    const mat coarse = c.in_bfloat16(w0, gradients, .02), fine = c.rule.in_double_types(w0, gradients, .02);
    CHECK(largest(coarse - fine) < tolerance<bfloat16> * largest(fine));
    CHECK(largest(fine - w0) > 1e-3);
  }
}
