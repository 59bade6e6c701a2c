// svd and orthonormalize of the CPU backend: reconstruction, orthogonality, and the inputs that break such code.
#include <catch2/catch.hpp>

#include <matopt/eigen.hpp>

#include "../support/spans.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

template <class T>
constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());

struct factors {
  mat u, v;
  std::vector<double> s;
};

template <class T>
factors svd_of(const mat& x, layout l = layout::row_major) {
  eigen_backend cpu(1);
  stored<T> a(x.rows, x.cols, l);
  a.fill([&](index_t i, index_t j, index_t) { return x(i, j); });
  const index_t q = std::min(x.rows, x.cols);
  stored<T> u(x.rows, q, l), s(q, 1), v(x.cols, q, layout::column_major);
  std::vector<T> work(cpu.svd_workspace<T>(x.rows, x.cols, 1) / sizeof(T));
  cpu.svd<T>(nullptr, a.cv(), u.v(), s.v(), v.v(), reinterpret_cast<std::byte*>(work.data()));
  REQUIRE(u.intact());
  factors f{to_mat(u.cv()), to_mat(v.cv()), {}};
  for (index_t i = 0; i < q; ++i) f.s.push_back(static_cast<double>(s(i, 0)));
  return f;
}
mat scaled_columns(mat u, const std::vector<double>& s, double unit) {
  for (index_t i = 0; i < u.rows; ++i)
    for (index_t j = 0; j < u.cols; ++j) u(i, j) *= s[static_cast<std::size_t>(j)] / unit;
  return u;
}
// |U^T U - I| over the first r columns
double orthogonality(const mat& u, index_t r) {
  const mat c = columns(u, 0, r);
  return largest(transposed(c) * c - identity(r));
}

}  // namespace

TEMPLATE_TEST_CASE("svd: random matrices of every shape and storage", "[svd]", float, double) {
  using T = TestType;
  for (const layout l : all_layouts)
    for (const auto& [m, n] :
         {std::pair<index_t, index_t>{1, 1}, {1, 7}, {7, 1}, {7, 7}, {63, 20}, {20, 65}, {33, 33}}) {
      CAPTURE(name_of(l), m, n);
      stored<T> rounded(m, n);  // so that the reference sees the same numbers
      rounded.fill_random(5);
      const mat x = to_mat(rounded.cv());
      const factors f = svd_of<T>(x, l);
      const double limit = 50 * eps<T> * std::sqrt(static_cast<double>(std::min(m, n)));
      CHECK(largest(scaled_columns(f.u, f.s, 1) * transposed(f.v) - x) < limit * std::max(1.0, f.s[0]));
      CHECK(orthogonality(f.u, std::min(m, n)) < limit);
      CHECK(orthogonality(f.v, std::min(m, n)) < limit);
      CHECK(std::is_sorted(f.s.rbegin(), f.s.rend()));
      const auto expected = singular_values(x);
      for (std::size_t i = 0; i < f.s.size(); ++i) CHECK(f.s[i] == Approx(expected[i]).margin(limit * expected[0]));
    }
}

TEMPLATE_TEST_CASE("svd: tiny and huge entries", "[svd]", float, double) {
  using T = TestType;
  for (const double scale :
       {std::is_same_v<T, float> ? 1e-37 : 1e-300, 1e-30, 1e30, std::is_same_v<T, float> ? 1e36 : 1e300}) {
    CAPTURE(scale);
    const mat x = with_spectrum(12, 9, {9, 8, 7, 6, 5, 4, 3, 2, 1}, 3);
    const factors f = svd_of<T>(scale * x);
    for (int i = 0; i < 9; ++i) CHECK(f.s[static_cast<std::size_t>(i)] / scale == Approx(9 - i).epsilon(2e3 * eps<T>));
    CHECK(orthogonality(f.u, 9) < 200 * eps<T>);
    CHECK(largest(scaled_columns(f.u, f.s, scale) * transposed(f.v) - x) < 1e3 * eps<T>);
  }
}

TEMPLATE_TEST_CASE("svd: rank-deficient, zero, ties, graded", "[svd]", float, double) {
  using T = TestType;
  const auto check = [](const mat& x, const std::vector<double>& expected, index_t rank) {
    const factors f = svd_of<T>(x);
    const double limit = 200 * eps<T> * std::max(1.0, expected[0]);
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(f.s[i] == Approx(expected[i]).margin(limit));
    if (rank > 0) {
      CHECK(orthogonality(f.u, rank) < 200 * eps<T>);
      CHECK(orthogonality(f.v, rank) < 200 * eps<T>);
    }
    CHECK(largest(scaled_columns(f.u, f.s, 1) * transposed(f.v) - x) < limit);
    for (const double e : f.u.a) REQUIRE(std::isfinite(e));
    for (const double e : f.v.a) REQUIRE(std::isfinite(e));
  };
  check(mat(5, 4), {0, 0, 0, 0}, 0);
  check(mat(1, 1, {-3}), {3}, 1);
  check(with_spectrum(10, 8, {4, 2}, 1), {4, 2, 0, 0, 0, 0, 0, 0}, 2);
  check(with_spectrum(8, 10, {3, 3, 3, 1, 1}, 2), {3, 3, 3, 1, 1, 0, 0, 0}, 5);
  check(identity(6), {1, 1, 1, 1, 1, 1}, 6);
  check(with_spectrum(40, 20, std::vector<double>(20, 2.0), 3), std::vector<double>(20, 2.0), 20);
  mat ones(9, 5);
  for (auto& e : ones.a) e = 1;
  check(ones, {std::sqrt(45.0), 0, 0, 0, 0}, 1);
  mat zero_column = random_mat(7, 4, 9);
  for (index_t i = 0; i < 7; ++i) zero_column(i, 2) = 0;
  check(zero_column, singular_values(zero_column), 3);
  // Columns of very different length keep their small singular values to full relative accuracy.
  mat graded = random_orthonormal(12, 6, 4);
  for (index_t j = 0; j < 6; ++j)
    for (index_t i = 0; i < 12; ++i) graded(i, j) *= std::pow(10.0, -3.0 * static_cast<double>(j));
  const factors f = svd_of<T>(graded);
  for (int j = 0; j < 6; ++j)
    CHECK(f.s[static_cast<std::size_t>(j)] == Approx(std::pow(10.0, -3.0 * j)).epsilon(1e3 * eps<T>));
}

TEST_CASE("svd: a batch on more threads than matrices stays in its workspace", "[svd]") {
  // Any thread of the pool may take any matrix of the batch.
  for (const int threads : {1, 2, 3, 8})
    for (const index_t batch : {1, 2, 3, 9}) {
      CAPTURE(threads, batch);
      eigen_backend cpu(threads);
      stored<double> a(12, 10, layout::row_major, batch), u(12, 10, layout::column_major, batch),
          s(10, 1, layout::row_major, batch), v(10, 10, layout::column_major, batch), u1(12, 10, layout::column_major),
          s1(10, 1), v1(10, 10, layout::column_major);
      a.fill_random(1);
      const std::size_t bytes = cpu.svd_workspace<double>(12, 10, batch);
      const std::size_t tail = 64 * 1024;
      std::vector<std::byte> work(bytes + tail, std::byte{0x5A});
      for (int round = 0; round < 20; ++round) cpu.svd<double>(nullptr, a.cv(), u.v(), s.v(), v.v(), work.data());
      CHECK(std::all_of(work.begin() + static_cast<std::ptrdiff_t>(bytes), work.end(),
                        [](std::byte b) { return b == std::byte{0x5A}; }));
      for (index_t b = 0; b < batch; ++b) {
        cpu.svd<double>(nullptr, a.cv().matrix(b), u1.v(), s1.v(), v1.v(), work.data());
        CHECK(same_bits(elements(u.cv().matrix(b)), elements(u1.cv())));
        CHECK(same_bits(elements(v.cv().matrix(b)), elements(v1.cv())));
      }
    }
}

TEMPLATE_TEST_CASE("orthonormalize: spans the same space; dependent and zero columns become zero", "[svd]", float,
                   double) {
  using T = TestType;
  eigen_backend cpu(2);
  const double tolerance = 32 * eps<T>;
  for (const layout l : all_layouts) {
    CAPTURE(name_of(l));
    stored<T> x(40, 6, l, 2);
    const mat basis = random_mat(40, 4, 3);
    // columns: 0, 1 independent; 2 = 0 + 1; 3 zero; 4 tiny but independent; 5 independent
    x.fill([&](index_t i, index_t j, index_t) {
      return j == 2   ? basis(i, 0) + basis(i, 1)
             : j == 3 ? 0.0
             : j == 4 ? 1e-20 * basis(i, 2)
             : j == 5 ? basis(i, 3)
                      : basis(i, j);
    });
    orthonormalize(cpu, nullptr, x.v(), tolerance);
    for (index_t b = 0; b < 2; ++b) {
      const mat q = to_mat(x.cv().matrix(b));
      mat expected = identity(6);
      expected(2, 2) = expected(3, 3) = 0;
      CHECK(largest(transposed(q) * q - expected) < 20 * eps<T>);
      CHECK(largest(q * (transposed(q) * basis) - basis) < 100 * eps<T>);
    }
    CHECK(x.intact());
  }
  // More columns than rows: the surplus is dependent.
  stored<T> wide(3, 5);
  wide.fill_random(1);
  orthonormalize(cpu, nullptr, wide.v(), tolerance);
  const mat q = to_mat(wide.cv());
  CHECK(largest(q * transposed(q) - identity(3)) < 20 * eps<T>);
}

TEMPLATE_TEST_CASE("orthonormalize: a column that depends on others becomes zero without a tolerance, too", "[svd]",
                   float, double) {
  using T = TestType;
  eigen_backend cpu(1);
  for (const index_t rank : {1, 5, 30}) {
    CAPTURE(rank);
    // The first columns span all; the others are sums of them, and copies.
    stored<T> x(96, 64);
    const mat basis = random_mat(96, rank, 3), mix = random_mat(rank, 64, 4), sums = basis * mix;
    x.fill([&](index_t i, index_t j, index_t) {
      return j < rank ? basis(i, j) : j % 2 ? basis(i, j % rank) : sums(i, j);
    });
    orthonormalize(cpu, nullptr, x.v(), 0);
    const mat q = to_mat(x.cv());
    mat expected(64, 64);
    for (index_t j = 0; j < rank; ++j) expected(j, j) = 1;
    CHECK(largest(transposed(q) * q - expected) < 50 * eps<T>);
  }
}

TEMPLATE_TEST_CASE("orthonormalize: columns are orthonormal or zero, and span what was there", "[svd]", float, double) {
  using T = TestType;
  eigen_backend cpu(2);
  const status_word guard[] = {0, 1, 0};
  for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 1},
                             {40, 1},
                             {40, 31},
                             {32, 32},
                             {70, 33},
                             {33, 40},
                             {80, 65},
                             {100, 100},
                             {700, 70},
                             {20000, 3}})
    for (const span_case& c : span_cases<T>(m, n)) {
      const layout l = all_layouts[(m + n) % 4];
      CAPTURE(c.name, m, n, name_of(l));
      stored<T> x(m, n, l, 3), alone(m, n, layout::column_major);
      x.fill([&](index_t i, index_t j, index_t) { return c.x(i, j); });
      const mat before = to_mat(x.cv().matrix(0));
      std::vector<std::byte> work(cpu.orthonormalize_workspace<T>(m, n, 3) + 64, std::byte{0x5A});
      cpu.orthonormalize<T>(guard, x.v(), n % 2 ? T(0) : static_cast<T>(32 * eps<T>), work.data());
      CHECK(std::all_of(work.end() - 64, work.end(), [](std::byte b) { return b == std::byte{0x5A}; }));
      CHECK(x.intact());
      CHECK(same_bits(elements(x.cv().matrix(0)), elements(x.cv().matrix(2))));
      const span_errors e = errors_of_span(to_mat(x.cv().matrix(2)), before);
      // Long sums of double are in double.
      const double rounding = eps<T> * (std::is_same_v<T, float> ? 1 : 1 + static_cast<double>(m) / 1000);
      CHECK(e.orthogonality < 60 * rounding);
      if (c.span_kept) CHECK(e.span < 200 * rounding);
      CHECK(e.diagonal_positive);
      if (c.dependent)
        for (index_t j = 0; j < n; ++j) CHECK(e.zero[static_cast<std::size_t>(j)] == c.dependent(j));
    }
}

namespace {
// By several blocks of reflections together, as on a GPU; and the verb, which takes one.
template <class T, int blocks>
struct basis {
  using by_blocks = detail::householder<T, blocks>;
  static std::size_t workspace(const eigen_backend&, index_t rows, index_t cols, index_t batch) {
    return by_blocks::workspace(rows, cols, batch);
  }
  template <class Backend>
  static void run(Backend& verbs, view<T> x, std::byte* work) {
    by_blocks::run(
        verbs, nullptr, x, work,
        [](const view<T>& v, const view<const T>& norm, const view<T>& sign, index_t before) {
          for (index_t b = 0; b < v.batch; ++b) detail::reflect(v.matrix(b), norm.matrix(b), sign.matrix(b), before);
        },
        [](const view<const T>& v, const view<T>& t, const view<T>& along) {
          for (index_t b = 0; b < v.batch; ++b) detail::reflection_triangle(v.matrix(b), t.matrix(b), along.matrix(b));
        });
  }
};
template <class T>
struct basis<T, 1> {
  static std::size_t workspace(const eigen_backend& cpu, index_t rows, index_t cols, index_t batch) {
    return cpu.orthonormal_basis_workspace<T>(rows, cols, batch);
  }
  static void run(eigen_backend& cpu, view<T> x, std::byte* work) { cpu.orthonormal_basis<T>(nullptr, x, work); }
};
// Products as cuBLAS makes them of floats: the terms of an element one after another.
struct term_by_term {
  eigen_backend& cpu;
  template <class... A>
  void for_each(const A&... a) {
    cpu.for_each(a...);
  }
  template <class... A>
  void reduce_rows(const A&... a) {
    cpu.reduce_rows(a...);
  }
  template <class T>
  void gemm(const status_word*, T alpha, view<const T> a, view<const T> b, T beta, view<const T> c, view<T> d) {
    mat products(d.rows, d.cols);
    for (index_t i = 0; i < d.rows; ++i)
      for (index_t j = 0; j < d.cols; ++j) {
        T sum = 0;
        for (index_t k = 0; k < a.cols; ++k) sum += a(i, k) * b(k, j);
        products(i, j) = static_cast<double>(alpha * sum + (beta == T(0) ? T(0) : beta * c(i, j)));
      }
    for (index_t i = 0; i < d.rows; ++i)
      for (index_t j = 0; j < d.cols; ++j) d(i, j) = static_cast<T>(products(i, j));
  }
};
}  // namespace

TEMPLATE_TEST_CASE_SIG("orthonormal_basis: Q of X = Q R with a positive diagonal, in every storage", "[svd]",
                       ((typename T, int blocks), T, blocks), (float, 1), (float, 4), (double, 1), (double, 4)) {
  eigen_backend cpu(2);
  for (const layout l : all_layouts)
    for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 1},
                               {9, 1},
                               {7, 7},
                               {33, 33},
                               {40, 32},
                               {70, 65},
                               {100, 64},
                               {64, 31},
                               {150, 141}}) {
      CAPTURE(name_of(l), m, n);
      stored<T> x(m, n, l, 2);
      x.fill_random(static_cast<std::uint64_t>(m + n));
      std::vector<std::byte> work(basis<T, blocks>::workspace(cpu, m, n, 2) + 64, std::byte{0x5A});
      const mat before[] = {to_mat(x.cv().matrix(0)), to_mat(x.cv().matrix(1))};
      basis<T, blocks>::run(cpu, x.v(), work.data());
      CHECK(std::all_of(work.end() - 64, work.end(), [](std::byte b) { return b == std::byte{0x5A}; }));
      CHECK(x.intact());
      for (index_t b = 0; b < 2; ++b) {
        const mat q = to_mat(x.cv().matrix(b)), r = transposed(q) * before[b];
        CHECK(largest(transposed(q) * q - identity(n)) < 20 * eps<T>);
        CHECK(largest(q * r - before[b]) < 100 * eps<T>);
        for (index_t j = 0; j < n; ++j) {
          CHECK(r(j, j) > 0);
          for (index_t i = j + 1; i < n; ++i) REQUIRE(std::abs(r(i, j)) < 100 * eps<T>);
        }
      }
    }
}

// T of four blocks has to fit V, whose products with each other are long sums of one sign here.
TEST_CASE("orthonormal_basis: as orthonormal where products are added up term by term", "[svd]") {
  eigen_backend cpu(1);
  term_by_term verbs{cpu};
  stored<float> x(300, 130, layout::column_major);
  x.fill([](index_t i, index_t j, index_t) { return i >= j ? 1.0 : 0.0; });
  std::vector<std::byte> work(basis<float, 4>::workspace(cpu, 300, 130, 1));
  basis<float, 4>::run(verbs, x.v(), work.data());
  const mat q = to_mat(x.cv());
  CHECK(largest(transposed(q) * q - identity(130)) < 4e-6);
}

TEMPLATE_TEST_CASE_SIG("orthonormal_basis: orthonormal whatever the columns are", "[svd]",
                       ((typename T, int blocks), T, blocks), (float, 1), (float, 4), (double, 1), (double, 4)) {
  eigen_backend cpu(1);
  const double tiny = std::is_same_v<T, float> ? 1e-37 : 1e-300, huge = std::is_same_v<T, float> ? 1e37 : 1e300;
  const auto check = [&](const std::string& name, index_t m, index_t n, const auto& f) {
    CAPTURE(name, m, n);
    stored<T> x(m, n, layout::column_major);
    x.fill([&](index_t i, index_t j, index_t) { return f(i, j); });
    std::vector<std::byte> work(basis<T, blocks>::workspace(cpu, m, n, 1));
    basis<T, blocks>::run(cpu, x.v(), work.data());
    const mat q = to_mat(x.cv());
    CHECK(largest(transposed(q) * q - identity(n)) < (std::is_same_v<T, float> ? 1e-5 : 1e-12));
    return q;
  };
  for (const auto& shape : {std::pair<index_t, index_t>{48, 48}, {150, 150}, {200, 70}, {600, 40}}) {
    const index_t m = shape.first, n = shape.second;
    const mat noise = random_mat(m, n, 1), few = random_mat(m, 3, 2) * random_mat(3, n, 3);
    const mat zero = check("zero", m, n, [](index_t, index_t) { return 0.0; });
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) REQUIRE(zero(i, j) == (i == j));
    check("ones", m, n, [](index_t, index_t) { return 1.0; });
    check("alternating", m, n, [](index_t i, index_t j) { return (i + j) % 2 ? 1.0 : -1.0; });
    check("equal in pairs", m, n, [&](index_t i, index_t j) { return noise(i, j - j % 2); });
    check("rank three", m, n, [&](index_t i, index_t j) { return few(i, j); });
    check("a dead row", m, n, [&](index_t i, index_t j) { return i == 0 ? 0.0 : noise(i, j); });
    check("dead rows", m, n, [&](index_t i, index_t j) { return i % 3 == 0 ? 0.0 : noise(i, j); });
    check("dead columns", m, n, [&](index_t i, index_t j) { return j % 3 == 0 ? 0.0 : noise(i, j); });
    check("graded columns", m, n, [&](index_t i, index_t j) {
      return noise(i, j) * std::pow(10.0, -35.0 * static_cast<double>(j) / static_cast<double>(n));
    });
    check("graded rows", m, n, [&](index_t i, index_t j) {
      return noise(i, j) * std::pow(10.0, -35.0 * static_cast<double>(i) / static_cast<double>(m));
    });
    check("tiny", m, n, [&](index_t i, index_t j) { return tiny * noise(i, j); });
    check("huge", m, n, [&](index_t i, index_t j) { return huge * noise(i, j); });
    check("Hilbert", m, n, [&](index_t i, index_t j) { return 1 / static_cast<double>(i + j + 1); });
    check("blocks", m, n, [&](index_t i, index_t j) { return i / 8 == j / 8 ? 1.0 : 0.0; });
    check("a triangle", m, n, [&](index_t i, index_t j) { return i >= j ? 1.0 : 0.0; });
    // What is there stays: the first columns that do not depend on others.
    mat q = check("twice the same", m, n, [&](index_t i, index_t j) { return noise(i, j < 10 ? j : j % 10); });
    const mat first = columns(q, 0, 10), given = columns(noise, 0, 10);
    CHECK(largest(first * (transposed(first) * given) - given) < 1000 * eps<T>);
  }
}
