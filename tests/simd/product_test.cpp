// Every set of kernels that runs here, and pairs of bfloat16 emulated, against naive references in double. This program
// compiles the kernels itself, without matopt_simd: the header-only way.
#include <catch2/catch.hpp>

#include <matopt/simd/kernel_sets.hpp>
#include <matopt/simd/product.hpp>

#include "../support/matrices.hpp"
#include "../support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// Tasks in reverse order, and on workers that take turns: neither may matter.
constexpr int workers = 3;
const simd::task_runner backwards{nullptr, [](void*, index_t tasks, void (*task)(void*, index_t, int), void* closure) {
                                    for (index_t i = tasks; i-- > 0;) task(closure, i, static_cast<int>(i % workers));
                                  }};
simd::workspace& memory() {
  static simd::workspace w(workers);
  return w;
}

struct shape {
  index_t m, n, k, batch = 1;
  layout a = layout::row_major, b = layout::row_major, c = layout::row_major, d = layout::row_major;
  double alpha = 1, beta = 0;
  bool c_is_d = false;
};

std::uint64_t fresh() {
  static std::uint64_t seed = 100;
  return ++seed;
}

template <class T>
mat reference(const shape& s, view<const T> a, view<const T> b, view<const T> c, index_t i) {
  mat e = s.alpha * (to_mat(a.matrix(i)) * to_mat(b.matrix(i)));
  return s.beta == 0 ? e : e + s.beta * to_mat(c.matrix(i));
}

template <class T>
void check(const shape& s) {
  CAPTURE(s.m, s.n, s.k, s.batch, name_of(s.a), name_of(s.b), name_of(s.c), name_of(s.d), s.alpha, s.beta, s.c_is_d);
  stored<T> a(s.m, s.k, s.a, s.batch), b(s.k, s.n, s.b, s.batch), c(s.m, s.n, s.c, s.batch),
      before(s.m, s.n, s.d, s.batch);
  a.fill_random(fresh()), b.fill_random(fresh()), c.fill_random(fresh()), before.fill_random(fresh());
  const auto poison = [](auto...) { return std::nan(""); };
  if (s.beta == 0) c.fill(poison);
  if (!s.c_is_d || s.beta == 0) before.fill(poison);
  std::vector<mat> expected;
  for (index_t i = 0; i < s.batch; ++i)
    expected.push_back(reference<T>(s, a.cv(), b.cv(), s.c_is_d ? before.cv() : c.cv(), i));
  for (const simd::kernel_set* set : simd::kernel_sets()) {
    CAPTURE(set->name);
    stored<T> d(s.m, s.n, s.d, s.batch);
    d.fill([&](index_t i, index_t j, index_t q) { return static_cast<double>(before(i, j, q)); });
    const view<const T> from = s.c_is_d ? d.cv() : c.cv();
    simd::product(*set, memory(), backwards,
                  {static_cast<float>(s.alpha), a.cv(), b.cv(), static_cast<float>(s.beta), from, d.v()});
    for (index_t i = 0; i < s.batch; ++i) {
      const mat& e = expected[static_cast<std::size_t>(i)];
      REQUIRE(largest(to_mat(d.cv().matrix(i)) - e) <= product_tolerance<T>(largest(e), s.k));
    }
    REQUIRE(d.intact());
  }
}

}  // namespace

TEST_CASE("simd: kernels are there", "[simd]") {
  REQUIRE_FALSE(simd::kernel_sets().empty());
  for (const auto* set : simd::kernel_sets()) {
    const std::string name = set->name;
    CHECK_FALSE(name.empty());
    CHECK(set->of_float.rows <= simd::workspace::tile_rows);
    CHECK(set->of_bfloat16.rows <= simd::workspace::tile_rows);
    CHECK(set->of_float.cols <= simd::workspace::tile_cols);
    CHECK(set->of_bfloat16.cols <= simd::workspace::tile_cols);
  }
}

TEMPLATE_TEST_CASE("simd: awkward sizes", "[simd]", float, bfloat16) {
  for (const index_t m : {1, 7, 127, 129})
    for (const index_t n : {1, 7, 127, 129})
      for (const index_t k : {1, 7, 127, 129}) check<TestType>({m, n, k});
  check<TestType>({1000, 1000, 31});
  check<TestType>({1000, 129, 127, 1, layout::column_major, layout::column_major});
  check<TestType>({127, 7, 1000});
  check<TestType>({7, 1000, 1000, 1, layout::transposed, layout::transposed, layout::transposed, layout::transposed});
  check<TestType>({1, 1, 0});
  check<TestType>({30, 40, 0, 2, layout::row_major, layout::row_major, layout::row_major, layout::row_major, 1, 0.5});
}

// Around the edges of registers, tiles and steps of tiles.
TEMPLATE_TEST_CASE("simd: sizes about those of tiles", "[simd]", float, bfloat16) {
  for (const index_t m : {13, 15, 16, 31, 32, 33, 65})
    for (const index_t n : {15, 16, 17, 31, 32, 33, 65})
      for (const index_t k : {2, 15, 31, 32, 33, 63, 64, 65}) {
        check<TestType>({m, n, k});
        check<TestType>({m, n, k, 1, layout::column_major, layout::column_major, layout::row_major, layout::row_major});
      }
}

TEMPLATE_TEST_CASE("simd: every storage, alpha and beta", "[simd]", float, bfloat16) {
  for (const layout a : all_layouts)
    for (const layout b : all_layouts)
      for (const layout d : all_layouts)
        for (const layout c : {layout::sub_block, layout::column_major}) {
          check<TestType>({33, 45, 19, 2, a, b, c, d, 2, 0});
          check<TestType>({33, 45, 19, 2, a, b, c, d, -0.5, 1.5});
          check<TestType>({33, 45, 18, 2, a, b, c, d, 1, -1, true});
        }
}

TEMPLATE_TEST_CASE("simd: batches", "[simd]", float, bfloat16) {
  check<TestType>({20, 30, 40, 50});
  check<TestType>(
      {70, 30, 300, 50, layout::column_major, layout::sub_block, layout::row_major, layout::sub_block, 1, 2});
}

// Deeper than one packing, and wider: an operand in parts.
TEMPLATE_TEST_CASE("simd: operands that do not fit the workspace", "[simd]", float, bfloat16) {
  check<TestType>(
      {200, 33, 41000, 1, layout::row_major, layout::column_major, layout::row_major, layout::row_major, 1, 1});
  check<TestType>({20, 300, 20001, 2, layout::column_major, layout::row_major});
}

TEMPLATE_TEST_CASE("simd: a symmetric product is gemm's lower triangle, mirrored", "[simd]", float, bfloat16) {
  using T = TestType;
  struct product_size {
    index_t n, k, batch;
  };
  for (const product_size& size :
       {product_size{1, 5, 1}, {7, 7, 50}, {127, 33, 3}, {129, 129, 1}, {150, 41000, 1}, {1000, 37, 1}})
    for (const layout d : {layout::row_major, layout::sub_block, layout::column_major})
      for (const bool in_place : {false, true}) {
        const index_t n = size.n, k = size.k, batch = size.batch;  // clang 14 lets no lambda have parts of a binding
        if (k > 10000 && d != layout::row_major) continue;
        stored<T> x(n, k, layout::row_major, batch), c(n, n, d, batch);
        x.fill_random(fresh()), c.fill_random(fresh());
        for (const simd::kernel_set* set : simd::kernel_sets()) {
          CAPTURE(n, k, batch, name_of(d), in_place, set->name);
          stored<T> full(n, n, d, batch), half(n, n, d, batch);
          const auto run = [&](stored<T>& to, bool symmetric) {
            // Of C, only the triangle that is computed may be read.
            const bool lower = to.cv().row_contiguous();
            stored<T> start(n, n, d, batch);
            start.fill([&](index_t i, index_t j, index_t b) {
              return symmetric && (lower ? j > i : i > j) ? std::nan("") : static_cast<double>(c(i, j, b));
            });
            if (in_place) to.fill([&](index_t i, index_t j, index_t b) { return static_cast<double>(start(i, j, b)); });
            simd::product(*set, memory(), backwards,
                          {0.5F, x.cv(), x.cv().t(), -2, in_place ? to.cv() : start.cv(), to.v(), symmetric});
          };
          run(full, false), run(half, true);
          bool same = true;
          const bool lower = full.cv().row_contiguous();
          for (index_t b = 0; b < batch; ++b)
            for (index_t i = 0; i < n; ++i)
              for (index_t j = 0; j <= i; ++j) {
                const T e = lower ? full(i, j, b) : full(j, i, b), p = half(i, j, b), q = half(j, i, b);
                same = same && std::memcmp(&e, &p, sizeof e) == 0 && std::memcmp(&e, &q, sizeof e) == 0;
              }
          REQUIRE(same);
          REQUIRE(half.intact());
        }
      }
}

TEMPLATE_TEST_CASE("simd: what stands beyond an edge does not leak", "[simd]", float, bfloat16) {
  for (const simd::kernel_set* set : simd::kernel_sets()) {
    CAPTURE(set->name);
    stored<TestType> a(29, 11), b(11, 41), d(29, 41);
    a.fill_random(fresh()), b.fill_random(fresh());
    for (index_t k = 0; k < 11; ++k) a.v()(28, k) = b.v()(k, 40) = TestType(std::numeric_limits<float>::infinity());
    simd::product(*set, memory(), backwards, {1, a.cv(), b.cv(), 0, d.cv(), d.v()});
    CHECK(all_finite(d.cv().row_block(0, 28).col_block(0, 40)));
    CHECK_FALSE(all_finite(d.cv().row_block(28, 1)));
    CHECK_FALSE(all_finite(d.cv().col_block(40, 1)));
  }
}

TEMPLATE_TEST_CASE("simd: NaN stays in its row, and denormal numbers are at most lost", "[simd]", float, bfloat16) {
  for (const simd::kernel_set* set : simd::kernel_sets()) {
    CAPTURE(set->name);
    stored<TestType> a(40, 33), b(33, 50), d(40, 50);
    a.fill_random(fresh()), b.fill_random(fresh());
    a.v()(17, 32) = TestType(std::numeric_limits<float>::quiet_NaN());
    const auto run = [&] { simd::product(*set, memory(), backwards, {1, a.cv(), b.cv(), 0, d.cv(), d.v()}); };
    run();
    for (index_t i = 0; i < 40; ++i)
      for (index_t j = 0; j < 50; ++j) REQUIRE(std::isnan(static_cast<float>(d(i, j))) == (i == 17));
    a.fill([](index_t, index_t, index_t) { return 1e-39; });
    run();
    for (index_t i = 0; i < 40; ++i)
      for (index_t j = 0; j < 50; ++j) REQUIRE(std::abs(static_cast<float>(d(i, j))) <= 1e-37F);
  }
}
