// The CPU backend's products and guards against naive references in double, at sizes around its tile and lane
// boundaries.
#include <catch2/catch.hpp>

#include <matopt/eigen.hpp>

#include "../support/matrices.hpp"
#include "../support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

template <class T>
constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());

constexpr index_t sizes[] = {1, 7, 63, 65, 127, 129, 257, 300};

// C(beta) + alpha A B by the definition, per matrix of the batch.
template <class T>
void check_gemm(eigen_backend& cpu, index_t m, index_t n, index_t k, layout la, layout lb, layout ld, double alpha,
                double beta, bool c_is_d, index_t batch = 1) {
  CAPTURE(m, n, k, name_of(la), name_of(lb), name_of(ld), alpha, beta, c_is_d, batch, sizeof(T));
  stored<T> a(m, k, la, batch), b(k, n, lb, batch), c(m, n, layout::row_major, batch), d(m, n, ld, batch);
  a.fill_random(1), b.fill_random(2), c.fill_random(3), d.fill_random(4);
  // With beta = 0 nothing of C may be read.
  if (beta == 0) d.fill([](auto...) { return std::nan(""); });
  const view<const T> from = c_is_d ? d.cv() : c.cv();
  std::vector<mat> expected;
  for (index_t i = 0; i < batch; ++i) {
    mat e = alpha * (to_mat(a.cv().matrix(i)) * to_mat(b.cv().matrix(i)));
    if (beta != 0) e = e + beta * to_mat(from.matrix(i));
    expected.push_back(e);
  }
  using scalar = arithmetic_t<T>;
  cpu.gemm<T>(nullptr, static_cast<scalar>(alpha), a.cv(), b.cv(), static_cast<scalar>(beta), from, d.v());
  for (index_t i = 0; i < batch; ++i) {
    const mat& e = expected[static_cast<std::size_t>(i)];
    REQUIRE(largest(to_mat(d.cv().matrix(i)) - e) < product_tolerance<T>(largest(e), k));
  }
  REQUIRE(d.intact());
  REQUIRE(a.intact());
}

}  // namespace

TEMPLATE_TEST_CASE("gemm: awkward sizes", "[eigen]", float, double, bfloat16) {
  eigen_backend cpu(3);
  for (const index_t m : sizes)
    for (const index_t n : {index_t{1}, index_t{65}, index_t{130}})
      check_gemm<TestType>(cpu, m, n, m == 300 ? 257 : 31, layout::row_major, layout::column_major, layout::row_major,
                           1, 0, false);
  for (const index_t k : sizes)
    check_gemm<TestType>(cpu, 66, 67, k, layout::column_major, layout::row_major, layout::column_major, -0.5, 1, true);
}

TEMPLATE_TEST_CASE("gemm: every storage, alpha and beta", "[eigen]", float, double, bfloat16) {
  eigen_backend cpu(2);
  for (const layout a : all_layouts)
    for (const layout b : all_layouts)
      for (const layout d : all_layouts)
        for (const double beta : {0.0, 1.0, -0.5})
          for (const bool c_is_d : {false, true})
            check_gemm<TestType>(cpu, 9, 13, 5, a, b, d, beta == 0 ? 2 : 1, beta, c_is_d);
  for (const double beta : {0.0, 1.0, -0.5})
    check_gemm<TestType>(cpu, 65, 70, 33, layout::sub_block, layout::sub_block, layout::sub_block, 1, beta, true, 5);
  check_gemm<TestType>(cpu, 5, 6, 7, layout::row_major, layout::row_major, layout::row_major, 0, 1, true);
}

TEMPLATE_TEST_CASE("gemm: the same bits with any number of threads", "[eigen]", float, double, bfloat16) {
  using T = TestType;
  for (const auto& [m, n, k, batch] :
       {std::tuple<index_t, index_t, index_t, index_t>{1000, 129, 127, 1}, {127, 127, 1000, 3}, {33, 7, 129, 50}}) {
    CAPTURE(m, n, k, batch);
    stored<T> a(m, k, layout::sub_block, batch), b(k, n, layout::column_major, batch),
        c(m, n, layout::row_major, batch);
    a.fill_random(11), b.fill_random(12), c.fill_random(13);
    std::vector<std::vector<T>> plain, symmetric;
    for (const int threads : {1, 2, 3}) {
      eigen_backend cpu(threads);
      stored<T> d(m, n, layout::row_major, batch), gram(m, m, layout::row_major, batch);
      cpu.gemm<T>(nullptr, 0.5F, a.cv(), b.cv(), -2, c.cv(), d.v());
      cpu.gemm_symmetric<T>(nullptr, 1, a.cv(), a.cv().t(), 0, gram.cv(), gram.v());
      plain.push_back(elements(d.cv())), symmetric.push_back(elements(gram.cv()));
    }
    for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
      CHECK(same_bits(plain[i], plain[0]));
      CHECK(same_bits(symmetric[i], symmetric[0]));
    }
  }
}

TEMPLATE_TEST_CASE("gemm_symmetric: equals gemm, and is symmetric", "[eigen]", float, double) {
  eigen_backend cpu(3);
  for (const index_t n : sizes)
    for (const index_t batch : {1, 3})
      for (const layout l : {layout::row_major, layout::sub_block}) {
        if (batch == 3 && n > 130) continue;
        CAPTURE(n, batch, name_of(l));
        stored<TestType> x(n, 40, l, batch), gram(n, n, l, batch), poly(n, n, l, batch), expected(n, n, l, batch);
        x.fill_random(1, 0.2);
        cpu.gemm_symmetric<TestType>(nullptr, 1, x.cv(), x.cv().t(), 0, gram.cv(), gram.v());
        cpu.gemm<TestType>(nullptr, 1, x.cv(), x.cv().t(), 0, expected.cv(), expected.v());
        for (index_t b = 0; b < batch; ++b) {
          const mat g = to_mat(gram.cv().matrix(b));
          REQUIRE(largest(g - to_mat(expected.cv().matrix(b))) < 60 * eps<TestType>);
          REQUIRE(largest(g - transposed(g)) == 0);
        }
        cpu.gemm_symmetric<TestType>(nullptr, TestType(0.5), gram.cv(), gram.cv(), -2, gram.cv(), poly.v());
        const mat g = to_mat(gram.cv().matrix(batch - 1));
        REQUIRE(largest(to_mat(poly.cv().matrix(batch - 1)) - transposed(to_mat(poly.cv().matrix(batch - 1)))) == 0);
        REQUIRE(largest(to_mat(poly.cv().matrix(batch - 1)) - (0.5 * (g * g) + (-2.0) * g)) < 300 * eps<TestType>);
      }
}

TEST_CASE("gemm_symmetric in bfloat16: equals gemm, and is symmetric", "[eigen]") {
  eigen_backend cpu(3);
  for (const index_t n : sizes)
    for (const layout l : {layout::row_major, layout::sub_block, layout::column_major}) {
      CAPTURE(n, name_of(l));
      stored<bfloat16> x(n, 40, l, 2), gram(n, n, l, 2), expected(n, n, l, 2);
      x.fill_random(1, 0.2);
      cpu.gemm_symmetric<bfloat16>(nullptr, 1, x.cv(), x.cv().t(), 0, gram.cv(), gram.v());
      cpu.gemm<bfloat16>(nullptr, 1, x.cv(), x.cv().t(), 0, expected.cv(), expected.v());
      for (index_t b = 0; b < 2; ++b) {
        const mat g = to_mat(gram.cv().matrix(b));
        REQUIRE(largest(g - to_mat(expected.cv().matrix(b))) <= 0x1p-8 * largest(g));
        REQUIRE(largest(g - transposed(g)) == 0);
      }
    }
}

TEST_CASE("a set guard stops every verb that writes", "[eigen]") {
  eigen_backend cpu(1);
  const status_word stop = 1, go = 0;
  stored<double> x(4, 4), y(4, 4), z(4, 4), s(4, 1);
  x.fill_random(1), y.fill_random(2), z.fill_random(3);
  const std::uint32_t counter = 1;
  const view<const std::uint32_t> count{&counter, 1, 1, 1, 1};
  std::vector<std::byte> work(cpu.svd_workspace<double>(4, 4, 1) + cpu.orthonormalize_workspace<double>(4, 4, 1));
  status_word failed = 7;
  const auto all = [&](const status_word* guard) {
    cpu.for_each(guard, fn::assign{}, y.v(), x.cv());
    cpu.reduce(guard, fn::square{}, y.v().row_block(0, 1).col_block(0, 1), x.cv());
    cpu.reduce_rows(guard, fn::square{}, y.v().col_block(1, 1), x.cv());
    cpu.gemm<double>(guard, 1, x.cv(), x.cv(), 0, y.cv(), y.v());
    cpu.gemm_symmetric<double>(guard, 1, x.cv(), x.cv().t(), 0, y.cv(), y.v());
    cpu.random_normal(guard, y.v(), 5, count);
    cpu.svd<double>(guard, x.cv(), y.v(), s.v(), z.v(), work.data());
    cpu.orthonormalize<double>(guard, y.v(), 1e-9, work.data());
    cpu.cholesky<double>(guard, y.v(), view<status_word>{&failed, 1, 1, 1, 1});
    cpu.solve_lower<double>(guard, x.cv(), y.v(), false);
  };
  const auto y0 = elements(y.cv()), z0 = elements(z.cv());
  all(&stop);
  CHECK(same_bits(elements(y.cv()), y0));
  CHECK(same_bits(elements(z.cv()), z0));
  CHECK(failed == 7);
  all(&go);
  CHECK_FALSE(same_bits(elements(y.cv()), y0));
  CHECK_FALSE(same_bits(elements(z.cv()), z0));
}

TEMPLATE_TEST_CASE("cholesky and solve_lower", "[eigen]", float, double) {
  using T = TestType;
  eigen_backend cpu(2);
  for (const index_t n : {1, 7, 65}) {
    CAPTURE(n);
    stored<T> a(n, n, layout::row_major, 2), x(n, 3, layout::column_major, 2);
    mat spd = random_mat(n, n, 5);
    spd = spd * transposed(spd) + static_cast<double>(n) * identity(n);
    a.fill([&](index_t i, index_t j, index_t b) { return b == 0 ? spd(i, j) : (i == j ? -1.0 : 0.0); });
    x.fill_random(6);
    const mat before = to_mat(x.cv().matrix(0));
    status_word failed[2] = {9, 9};
    cpu.cholesky<T>(nullptr, a.v(), view<status_word>{failed, 1, 1, 1, 1, 2, 1});
    CHECK(failed[0] == 0);
    CHECK(failed[1] == 1);
    const mat l = to_mat(a.cv().matrix(0));
    CHECK(largest(l * transposed(l) - spd) < 100 * eps<T> * static_cast<double>(n));
    cpu.solve_lower<T>(nullptr, a.cv().matrix(0), x.v().matrix(0), false);
    CHECK(largest(l * to_mat(x.cv().matrix(0)) - before) < 100 * eps<T>);
    cpu.solve_lower<T>(nullptr, a.cv().matrix(0), x.v().matrix(0), true);
    CHECK(largest(spd * to_mat(x.cv().matrix(0)) - before) < 1000 * eps<T>);
  }
}

TEMPLATE_TEST_CASE("cholesky by blocks, one of a batch not positive definite", "[eigen]", float, double) {
  using T = TestType;
  eigen_backend cpu(2);
  for (const index_t n : {1, 7, 31, 32, 33, 65, 100})
    for (const layout l : all_layouts)
      for (const index_t bad : {index_t(0), n / 2, n - 1}) {
        CAPTURE(n, name_of(l), bad);
        const mat root = random_mat(n, 2 * n, 8), positive = root * transposed(root) + identity(n);
        for (const index_t columns : {1, 40}) {
          stored<T> a(n, n, l, 3), x(n, columns, l, 3);
          a.fill([&](index_t i, index_t j, index_t b) { return b == 1 && i == bad && j == bad ? -1 : positive(i, j); });
          x.fill_random(6);
          const mat start = to_mat(x.cv().matrix(2));
          status_word failed[3] = {9, 9, 9};
          cpu.cholesky<T>(nullptr, a.v(), view<status_word>{failed, 1, 1, 1, 1, 3, 1});
          CHECK((failed[0] == 0 && failed[1] == 1 && failed[2] == 0));
          cpu.solve_lower<T>(nullptr, a.cv(), x.v(), false);
          const mat half = to_mat(x.cv().matrix(2)), lower = to_mat(a.cv().matrix(2));
          cpu.solve_lower<T>(nullptr, a.cv(), x.v(), true);
          REQUIRE((a.intact() && x.intact()));
          for (index_t i = 0; i < n; ++i)
            for (index_t j = i + 1; j < n; ++j) REQUIRE(lower(i, j) == 0);
          const double limit = 30 * eps<T> * largest(positive);
          CHECK(largest(lower * transposed(lower) - positive) < limit);
          CHECK(same_bits(elements(a.cv().matrix(0)), elements(a.cv().matrix(2))));
          CHECK(largest(lower * half - start) < limit);
          CHECK(largest(positive * to_mat(x.cv().matrix(2)) - start) < limit);
        }
      }
}

TEST_CASE("the backend says what runs its products", "[eigen]") {
  const eigen_backend cpu(1);
  const std::string line = cpu.describe();
  CAPTURE(line);
  CHECK(line.find('\n') == std::string::npos);
#ifdef MATOPT_HIGHWAY
  if (const auto sets = simd::kernel_sets(); !sets.empty()) {
    CHECK(line.find("Highway, " + std::string(sets.front()->name)) != std::string::npos);
    CHECK((line.find('(') != std::string::npos) == (std::string(simd::why_not_faster()) != ""));
    // Faster or not, and not by however much arithmetic.
    CHECK(cpu.prefers_bfloat16(1) == (sets.front()->bfloat16_speed > 1));
    CHECK_FALSE(cpu.prefers_bfloat16(100));
  }
#else
  CHECK(line.find("without Highway") != std::string::npos);
  CHECK_FALSE(cpu.prefers_bfloat16(1));
#endif
}
