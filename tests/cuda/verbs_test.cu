// The GPU backend's verbs against the CPU's, or against naive references in double, at awkward sizes, storages and
// batches, with poisoned outputs.
#define CATCH_CONFIG_NO_CPP17_UNCAUGHT_EXCEPTIONS
#include <catch2/catch.hpp>

#include <matopt/core/coded_blocks.hpp>
#include <matopt/policy/momentum/momentum.hpp>

#include "../support/spans.hpp"
#include "device.cuh"

using namespace matopt;
using namespace matopt::test;

namespace {

template <class T>
constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
template <>
constexpr double eps<float16> = 0x1p-10;
template <>
constexpr double eps<bfloat16> = 0x1p-7;
template <>
constexpr double eps<tfloat32> = 0x1p-10;

struct size {
  index_t rows, cols;
};
constexpr size awkward[] = {{1, 1}, {1, 300}, {300, 1}, {7, 5}, {17, 16}, {65, 129}, {127, 1000}, {300, 257}};

// y = x row + column m + number of the row - number of the column
struct mix {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T row, T column, T m, T i, T j) const {
    y = x * row + column * m + i - j;
  }
};
// The sums of x y and of x
struct two_sums {
  static constexpr int sums = 2, results = 2;
  template <class T>
  MATOPT_HD fn::terms<T, 2> operator()(T x, T y) const {
    return {{x * y, x}};
  }
  template <class T, class A>
  MATOPT_HD static fn::terms<A, 2> finish(const A* sum) {
    return {{sum[0], sum[1]}};
  }
};
// kept = kept + first, r = 2 first - second + one
struct numbers_of_row {
  template <class T>
  MATOPT_HD void operator()(T& kept, T& r, T& first, T second, T one) const {
    kept += first, r = 2 * first - second + one, first = -first;
  }
};
// y = y + r x
struct add_multiple {
  template <class T>
  MATOPT_HD T operator()(T& y, T x, T r) const {
    y += r * x;
    return y;
  }
};
struct only_add_multiple {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T r) const {
    y += r * x;
  }
};
struct double_and_sum {
  template <class T>
  MATOPT_HD T operator()(T& y, T x) const {
    y = x + x;
    return y;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("GPU: for_each with every kind of argument", "[cuda]", float, double, bfloat16) {
  using T = TestType;
  using C = arithmetic_t<T>;
  stream s;
  cuda_backend gpu(s.s);
  for (const layout l : all_layouts)
    for (const auto [m, n] : awkward)
      for (const index_t batch : {1, 3}) {
        CAPTURE(name_of(l), m, n, batch);
        on_device<T> x(gpu, m, n, l, batch), y(gpu, m, n, l, batch);
        on_device<C> row(gpu, m, 1, layout::row_major, batch), column(gpu, 1, n),
            one(gpu, 1, 1, layout::row_major, batch);
        x.host.fill_random(1), y.host.fill_random(2), row.host.fill_random(3), column.host.fill_random(4),
            one.host.fill_random(5);
        x.up(), y.up(), row.up(), column.up(), one.up();
        gpu.for_each(nullptr, mix{}, y.v(), x.cv(), per_row(row.cv()), per_column(column.cv()), per_matrix(one.cv()),
                     row_number{}, column_number{});
        y.down();
        for (index_t b = 0; b < batch; ++b)
          for (index_t i = 0; i < m; ++i)
            for (index_t j = 0; j < n; ++j) {
              const double expected = static_cast<double>(x.host(i, j, b)) * static_cast<double>(row.host(i, 0, b)) +
                                      static_cast<double>(column.host(0, j)) * static_cast<double>(one.host(0, 0, b)) +
                                      static_cast<double>(i - j);
              REQUIRE(static_cast<double>(y.host(i, j, b)) ==
                      Approx(expected).margin(4 * eps<T> * static_cast<double>(2 + i + j)));
            }
        REQUIRE(y.host.intact());
      }
}

TEMPLATE_TEST_CASE("GPU: reductions, with outputs, guarded and not", "[cuda]", float, double) {
  using T = TestType;
  stream s;
  cuda_backend gpu(s.s);
  cuda_backend::buffer word = gpu.allocate(3 * sizeof(status_word));
  const auto* guard = reinterpret_cast<const status_word*>(word.data());
  for (const layout l : all_layouts)
    for (const auto [m, n] : {size{1, 1}, {1, 300}, {300, 1}, {17, 16}, {65, 129}, {300, 257}, {1000, 1025}})
      for (const index_t batch : {1, 3}) {
        CAPTURE(name_of(l), m, n, batch);
        on_device<T> x(gpu, m, n, l, batch), y(gpu, m, n, l, batch), total(gpu, 1, 1, layout::row_major, batch),
            pair(gpu, 1, 2, layout::row_major, batch), row(gpu, m, 1, l, batch),
            most(gpu, 1, 1, layout::row_major, batch);
        x.host.fill_random(1, 3), x.up(), total.host.fill_random(5), total.up();
        gpu.reduce(guard, double_and_sum{}, total.v(), y.v(), x.cv());
        gpu.reduce(guard, fn::scaled_norm{}, pair.v(), x.cv());
        gpu.reduce(guard, fn::abs_max{}, most.v(), x.cv());
        gpu.reduce_rows(guard, fn::norm{}, row.v(), x.cv());
        total.down(), pair.down(), row.down(), y.down(), most.down();
        for (index_t b = 0; b < batch; ++b) {
          const mat a = to_mat(x.host.cv().matrix(b));
          double sum = 0, size = 0;
          for (const double e : a.a) sum += 2 * e, size += std::abs(e);
          REQUIRE(static_cast<double>(total.host(0, 0, b)) == Approx(sum).margin(8 * size * eps<T>));
          REQUIRE(static_cast<double>(pair.host(0, 0, b)) * std::sqrt(static_cast<double>(pair.host(0, 1, b))) ==
                  Approx(frobenius(a)).epsilon((20 + std::sqrt(static_cast<double>(m * n))) * eps<T>));
          REQUIRE(static_cast<double>(most.host(0, 0, b)) == largest(a));
          for (index_t i = 0; i < m; ++i) {
            double squares = 0;
            for (index_t j = 0; j < n; ++j) {
              squares += a(i, j) * a(i, j);
              REQUIRE(static_cast<double>(y.host(i, j, b)) == 2 * a(i, j));
            }
            REQUIRE(static_cast<double>(row.host(i, 0, b)) == Approx(std::sqrt(squares)).epsilon(20 * eps<T>));
          }
        }
      }
  const status_word stop = 1;
  gpu.upload(word.data(), &stop, sizeof stop);
  on_device<T> x(gpu, 33, 65), total(gpu, 1, 1), row(gpu, 33, 1);
  total.host.fill_random(1), row.host.fill_random(2), total.up(), row.up();
  const auto before = elements(row.host.cv());
  const T whole = total.host(0, 0);
  gpu.reduce(guard, fn::square{}, total.v(), x.cv());
  gpu.reduce_rows(guard, fn::square{}, row.v(), x.cv());
  gpu.for_each(guard, fn::assign{}, row.v(), total.cv());
  total.down(), row.down();
  CHECK(total.host(0, 0) == whole);
  CHECK(same_bits(elements(row.host.cv()), before));
}

TEMPLATE_TEST_CASE("GPU: sums, numbers and elements of rows at once", "[cuda]", float, double, bfloat16) {
  using X = TestType;
  using T = arithmetic_t<X>;
  stream s;
  cuda_backend gpu(s.s);
  cuda_backend::buffer word = gpu.allocate(3 * sizeof(status_word));
  const auto* guard = reinterpret_cast<const status_word*>(word.data());
  for (const layout l : all_layouts)
    for (const auto [m, n] : {size{1, 1},
                              {1, 300},
                              {300, 1},
                              {17, 16},
                              {65, 129},
                              {300, 257},
                              {3, 5000},
                              {2000, 33},
                              {1500, 768},
                              {1400, 777},
                              {5, 1536},
                              {5, 1540},
                              {4, 3072},
                              {4, 3075},
                              {3, 6200}})
      for (const index_t batch : {1, 3})
        for (const auto [reduces, both_shared] : {std::pair{false, true}, {false, false}, {true, true}})
          for (const status_word stop : {0U, 1U}) {
            if (m * n > 1000000 && (l != layout::row_major || batch == 1 || stop)) continue;
            CAPTURE(name_of(l), m, n, batch, reduces, both_shared, stop);
            const std::vector<status_word> stops(static_cast<std::size_t>(batch), stop);
            gpu.upload(word.data(), stops.data(), stops.size() * sizeof stop);
            on_device<X> x(gpu, m, n, l, batch);
            on_device<T> y(gpu, m, n, l, batch), out(gpu, m, 2, layout::row_major, batch),
                kept(gpu, m, 1, layout::row_major, batch), r(gpu, m, 1, layout::row_major, batch),
                one(gpu, 1, 1, layout::row_major, batch), total(gpu, 1, 1, layout::row_major, batch);
            x.host.fill_random(1), y.host.fill_random(2), kept.host.fill_random(3), one.host.fill_random(4),
                out.host.fill_random(5);
            x.up();
            for (auto* v : {&y, &out, &kept, &r, &one, &total}) v->up();
            std::vector<mat> y_before, kept_before, out_before;
            for (index_t b = 0; b < batch; ++b)
              y_before.push_back(to_mat(y.host.cv().matrix(b))),
                  kept_before.push_back(to_mat(kept.host.cv().matrix(b))),
                  out_before.push_back(to_mat(out.host.cv().matrix(b)));
            const auto numbers =
                work_on(numbers_of_row{}, kept.v(), shared<2>(r.v()), sum_result<0>(out.v().col_block(0, 1)),
                        sum_result<1>(as_const(out.v().col_block(1, 1))), per_matrix(one.cv()));
            // What sums and elements share is kept in registers, the other views are read twice.
            const auto run = [&](const auto& sums, auto y_again, auto x_again) {
              if (reduces)
                gpu.for_rows_and_reduce(guard, sums, out.v(), numbers,
                                        work_on(add_multiple{}, y_again, x_again, shared<2>(per_row(r.cv()))),
                                        total.v());
              else
                gpu.for_rows(guard, sums, out.v(), numbers,
                             work_on(only_add_multiple{}, y_again, x_again, shared<2>(per_row(r.cv()))));
            };
            if (both_shared)
              run(work_on(two_sums{}, shared<0>(x.cv()), shared<1>(y.cv())), shared<1>(y.v()), shared<0>(x.cv()));
            else
              run(work_on(two_sums{}, x.cv(), shared<7>(y.cv())), shared<7>(y.v()), x.cv());
            for (auto* v : {&y, &kept, &r, &total, &out}) v->down();
            const double limit = 100 * eps<T> * static_cast<double>(n + m);
            for (index_t b = 0; b < batch; ++b) {
              double sum = 0, size_of_sum = 1;
              for (index_t i = 0; i < m; ++i) {
                double first = 0, second = 0;
                for (index_t j = 0; j < n; ++j)
                  first += static_cast<double>(x.host(i, j, b)) * y_before[static_cast<std::size_t>(b)](i, j),
                      second += static_cast<double>(x.host(i, j, b));
                const double number = 2 * first - second + static_cast<double>(one.host(0, 0, b));
                const double kept_i = kept_before[static_cast<std::size_t>(b)](i, 0);
                REQUIRE(static_cast<double>(r.host(i, 0, b)) == Approx(stop ? 0 : number).margin(limit));
                REQUIRE(static_cast<double>(out.host(i, 0, b)) ==
                        Approx(stop ? out_before[static_cast<std::size_t>(b)](i, 0) : -first).margin(limit));
                if (!stop) REQUIRE(static_cast<double>(out.host(i, 1, b)) == Approx(second).margin(limit));
                REQUIRE(static_cast<double>(kept.host(i, 0, b)) ==
                        Approx(stop ? kept_i : kept_i + first).margin(limit));
                for (index_t j = 0; j < n; ++j) {
                  const double was = y_before[static_cast<std::size_t>(b)](i, j);
                  const double now = stop ? was : was + number * static_cast<double>(x.host(i, j, b));
                  REQUIRE(static_cast<double>(y.host(i, j, b)) == Approx(now).margin(limit));
                  sum += now, size_of_sum += std::abs(now);
                }
              }
              REQUIRE(static_cast<double>(total.host(0, 0, b)) ==
                      Approx(reduces && !stop ? sum : 0).margin(limit * size_of_sum));
            }
            REQUIRE(y.host.intact());
          }
}

TEMPLATE_TEST_CASE("GPU: norms of huge, tiny and mixed entries", "[cuda]", float, double) {
  using T = TestType;
  stream s;
  cuda_backend gpu(s.s);
  const double big = std::is_same_v<T, float> ? 1e37 : 1e300, tiny = std::is_same_v<T, float> ? 1e-36 : 1e-300;
  for (const double size : {1.0, big, tiny, 0.0})
    for (const double other : {1.0, big, tiny, 0.0}) {
      CAPTURE(size, other);
      on_device<T> x(gpu, 50, 60), pair(gpu, 1, 2);
      x.host.fill([&](index_t i, index_t j, index_t) { return (i + j) % 2 ? size : other; });
      x.up();
      gpu.reduce(nullptr, fn::scaled_norm{}, pair.v(), x.cv());
      pair.down();
      const double top = std::max(size, other);
      const double expected =
          top > 0 ? top * std::sqrt(1500 * ((size / top) * (size / top) + (other / top) * (other / top))) : 0.0;
      CHECK(static_cast<double>(pair.host(0, 0)) * std::sqrt(static_cast<double>(pair.host(0, 1))) ==
            Approx(expected).epsilon(20 * eps<T>));
    }
}

TEST_CASE("GPU: sums of very many equal terms are right to a millionth", "[cuda]") {
  cuda_backend gpu;
  constexpr index_t n = index_t{1} << 26;
  const float value = 0.7F;
  on_device<float> x(gpu, 1, n), out(gpu, 8, 1);
  x.host.fill([&](index_t, index_t, index_t) { return static_cast<double>(value); });
  x.up();
  const auto check = [&](double expected) {
    out.down();
    CHECK(std::abs(static_cast<double>(out.host(0, 0)) / expected - 1) < 1e-6);
  };
  const double length = static_cast<double>(value) * std::sqrt(static_cast<double>(n));
  for (const index_t rows : {index_t{1}, index_t{8}, index_t{4096}, n}) {
    CAPTURE(rows);
    const view<const float> v = row_major<const float>(x.cv().data, rows, n / rows);
    gpu.reduce(nullptr, fn::norm{}, out.v().row_block(0, 1), v);
    check(length);
    gpu.reduce(nullptr, fn::identity{}, out.v().row_block(0, 1), v);
    check(static_cast<double>(value) * static_cast<double>(n));
    if (rows > 8) continue;
    gpu.reduce_rows(nullptr, fn::norm{}, out.v().row_block(0, rows), v);  // a warp along each row
    check(length / std::sqrt(static_cast<double>(rows)));
    const view<const float> columns = row_major<const float>(x.cv().data, n / rows, rows).t();  // and across them
    gpu.reduce_rows(nullptr, fn::norm{}, out.v().row_block(0, rows), columns);
    check(length / std::sqrt(static_cast<double>(rows)));
  }
}

TEMPLATE_TEST_CASE("GPU: products", "[cuda]", float, double, float16, bfloat16, tfloat32) {
  using T = TestType;
  stream s;
  cuda_backend gpu(s.s);
  const auto check = [&](index_t m, index_t n, index_t k, index_t batch, layout la, layout lb, layout ld, double beta,
                         bool in_place) {
    CAPTURE(m, n, k, batch, name_of(la), name_of(lb), name_of(ld), beta, in_place);
    on_device<T> a(gpu, m, k, la, batch), b(gpu, k, n, lb, batch), c(gpu, m, n, ld, batch), d(gpu, m, n, ld, batch);
    a.host.fill_random(1), b.host.fill_random(2), c.host.fill_random(3);
    d.host.fill([](index_t, index_t, index_t) { return std::numeric_limits<double>::quiet_NaN(); });
    a.up(), b.up(), c.up(), d.up();
    auto& out = in_place ? c : d;
    const auto expected_of = [&](index_t z) {
      return 0.75 * (to_mat(a.host.cv().matrix(z)) * to_mat(b.host.cv().matrix(z))) +
             beta * to_mat(c.host.cv().matrix(z));
    };
    std::vector<mat> expected;
    for (index_t z = 0; z < batch; ++z) expected.push_back(expected_of(z));
    gpu.gemm<T>(nullptr, arithmetic_t<T>(0.75), a.cv(), b.cv(), arithmetic_t<T>(beta), c.cv(), out.v());
    out.down();
    for (index_t z = 0; z < batch; ++z)
      REQUIRE(largest(to_mat(out.host.cv().matrix(z)) - expected[static_cast<std::size_t>(z)]) <=
              4 * eps<T> * (2 + std::sqrt(static_cast<double>(k))));
    if (ld == layout::sub_block) REQUIRE(out.host.intact());
  };
  for (const index_t m : {1, 7, 64, 129})
    for (const index_t n : {1, 8, 127})
      for (const index_t k : {1, 33, 128})
        for (const double beta : {0.0, -0.5})
          check(m, n, k, 1 + (m + n) % 3, layout::row_major, layout::row_major, layout::row_major, beta,
                beta != 0 && k == 33);
  for (const layout la : all_layouts)
    for (const layout lb : all_layouts)
      for (const layout ld : all_layouts) check(65, 40, 31, 2, la, lb, ld, 0.5, ld == la);
  check(1000, 257, 129, 1, layout::row_major, layout::column_major, layout::row_major, 1, false);
  check(16, 24, 32, 50, layout::row_major, layout::row_major, layout::column_major, 1, false);
}

template <class T>
void check_block_columns(index_t n, std::initializer_list<layout> layouts, index_t batch) {
  stream s;
  cuda_backend gpu(s.s);
  constexpr index_t k = 12;
  REQUIRE(cuda::block_columns<T>(n) > 1);
  for (const layout l : layouts)
    for (const double beta : {0.0, -0.5}) {
      const bool in_place = l == layout::transposed;
      CAPTURE(n, name_of(l), beta, in_place);
      on_device<T> a(gpu, n, k, layout::row_major, batch), c(gpu, n, n, l, batch), d(gpu, n, n, l, batch);
      a.host.fill_random(1);
      c.host.fill([](index_t i, index_t j, index_t) { return std::sin(static_cast<double>(i * j + i + j)); });
      d.host.fill([](index_t, index_t, index_t) { return std::numeric_limits<double>::quiet_NaN(); });
      a.up(), c.up(), d.up();
      auto& out = in_place ? c : d;
      const mat before = to_mat(c.host.cv().matrix(batch - 1));
      gpu.gemm_symmetric<T>(nullptr, arithmetic_t<T>(0.75), a.cv(), a.cv().t(), arithmetic_t<T>(beta), c.cv(), out.v());
      out.down();
      const mat x = to_mat(a.host.cv().matrix(batch - 1)), y = to_mat(out.host.cv().matrix(batch - 1));
      const double limit = 4 * eps<T> * (2 + std::sqrt(static_cast<double>(k)));
      index_t wrong = 0, askew = 0;
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j <= i; ++j) {
          double sum = beta * before(i, j);
          for (index_t q = 0; q < k; ++q) sum += 0.75 * x(i, q) * x(j, q);
          wrong += !(std::abs(sum - y(i, j)) <= limit), askew += !(y(i, j) == y(j, i));  // NaN is both
        }
      CHECK(wrong == 0);
      CHECK(askew == 0);
      if (l == layout::sub_block) CHECK(out.host.intact());
    }
}
TEMPLATE_TEST_CASE("GPU: symmetric products are the same in block columns", "[cuda]", float, double) {
  for (const index_t n : {1024, 1100, 1555})
    check_block_columns<TestType>(n, {layout::row_major, layout::column_major, layout::transposed, layout::sub_block},
                                  2);
}
TEMPLATE_TEST_CASE("GPU: larger symmetric products are the same in block columns", "[cuda][slow]", float16, tfloat32) {
  // Lines of 4100 elements begin where the kernel of 16-bit products cannot take them.
  check_block_columns<TestType>(4100, {layout::row_major, layout::column_major}, 1);
}

TEST_CASE("GPU: the same random numbers as on the CPU, bit for bit", "[cuda]") {
  stream s;
  cuda_backend gpu(s.s);
  cuda_backend::buffer counter = gpu.allocate(4);
  const std::uint32_t step = 77;
  gpu.upload(counter.data(), &step, 4);
  on_device<double> x(gpu, 300, 257, layout::row_major, 3);
  on_device<float> y(gpu, 31, 257, layout::column_major, 2);
  const view<const std::uint32_t> at{reinterpret_cast<const std::uint32_t*>(counter.data()), 1, 1, 1, 1};
  gpu.random_normal(nullptr, x.v(), 123456789012345ULL, at);
  gpu.random_normal(nullptr, y.v(), 5, at);
  x.down(), y.down();
  for (index_t b = 0; b < 3; ++b)
    for (index_t i = 0; i < 300; ++i)
      for (index_t j = 0; j < 257; ++j)
        REQUIRE(x.host(i, j, b) == philox::normal(123456789012345ULL, static_cast<std::uint32_t>(b), step,
                                                  static_cast<std::uint64_t>(i * 257 + j)));
  for (index_t b = 0; b < 2; ++b)
    for (index_t i = 0; i < 31; ++i)
      for (index_t j = 0; j < 257; ++j)
        REQUIRE(y.host(i, j, b) == static_cast<float>(philox::normal(5, static_cast<std::uint32_t>(b), step,
                                                                     static_cast<std::uint64_t>(i * 257 + j))));
}

template <class T>
void check_decompositions(std::initializer_list<size> sizes) {
  stream s;
  cuda_backend gpu(s.s);
  const double limit = 500 * eps<T>;  // every column takes part in hundreds of rotations
  for (const auto [m, n] : sizes)
    for (const layout l : all_layouts)
      for (const int kind : {0, 1, 2, 3}) {  // random, of rank 2 at most, zero, tiny
        if (m > 50 && l != layout::row_major) continue;
        CAPTURE(m, n, name_of(l), kind);
        const index_t q = std::min(m, n), batch = 2;
        on_device<T> a(gpu, m, n, l, batch), u(gpu, m, q, layout::column_major, batch),
            sv(gpu, q, 1, layout::column_major, batch), v(gpu, n, q, layout::column_major, batch);
        const double scale = kind == 3 ? 1e-30 : 1;
        const mat left = random_mat(m, 2, 3), right = random_mat(2, n, 4), low = left * right;
        if (kind == 0 || kind == 3) a.host.fill_random(9, scale);
        if (kind == 1) a.host.fill([&](index_t i, index_t j, index_t) { return low(i, j); });
        a.up();
        cuda_backend::buffer work = gpu.allocate(gpu.svd_workspace<T>(m, n, batch));
        gpu.svd(nullptr, a.cv(), u.v(), sv.v(), v.v(), work.data());
        u.down(), sv.down(), v.down();
        for (index_t b = 0; b < batch; ++b) {
          const mat x = to_mat(a.host.cv().matrix(b)), ub = to_mat(u.host.cv().matrix(b)),
                    vb = to_mat(v.host.cv().matrix(b));
          mat us = ub;
          for (index_t j = 0; j < q; ++j) {
            const double value = static_cast<double>(sv.host(j, 0, b));
            REQUIRE(value >= 0);
            if (j > 0) REQUIRE(value <= static_cast<double>(sv.host(j - 1, 0, b)));
            for (index_t i = 0; i < m; ++i) us(i, j) *= value;
          }
          REQUIRE(largest(us * transposed(vb) - x) <= limit * (scale + largest(x)));
          if (kind != 0) continue;
          REQUIRE(largest(transposed(ub) * ub - identity(q)) < limit);
          REQUIRE(largest(transposed(vb) * vb - identity(q)) < limit);
        }
      }
}

TEMPLATE_TEST_CASE("GPU: singular value decompositions", "[cuda]", float, double) {
  check_decompositions<TestType>({{1, 1}, {1, 7}, {7, 1}, {5, 3}, {24, 40}});
}
TEMPLATE_TEST_CASE("GPU: larger singular value decompositions", "[cuda][slow]", float, double) {
  check_decompositions<TestType>({{64, 64}, {40, 130}, {130, 120}});
}

// Matrices of many kinds in one batch, so that some are done sweeps before others, one of them left out.
template <class T>
void check_decompositions_by_blocks(size shape, layout l = layout::row_major) {
  const auto [m, n] = shape;
  CAPTURE(m, n, name_of(l));
  stream s;
  cuda_backend gpu(s.s);
  const index_t q = std::min(m, n);
  struct matrix {
    const char* name;
    mat a;
    std::vector<double> values;  // where they are known
  };
  std::vector<matrix> all;
  const auto add = [&](const char* name, const auto& f) {
    mat a(m, n);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) a(i, j) = static_cast<double>(static_cast<T>(f(i, j)));
    all.push_back({name, a, {}});
  };
  const auto with_values = [&](const char* name, const auto& f) {
    std::vector<double> values;
    for (index_t i = 0; i < q; ++i) values.push_back(f(i));
    const mat a = with_spectrum(m, n, values, 5);
    add(name, [&](index_t i, index_t j) { return a(i, j); });
    all.back().values = values;
  };
  const mat noise = random_mat(m, n, 1), few = random_mat(m, 16, 2) * random_mat(16, n, 3);
  add("noise", [&](index_t i, index_t j) { return noise(i, j); });
  add("left out", [&](index_t i, index_t j) { return noise(i, j); });
  add("of rank 16", [&](index_t i, index_t j) { return few(i, j); });
  add("zero", [](index_t, index_t) { return 0.0; });
  add("ones", [](index_t, index_t) { return 1.0; });
  add("identity", [](index_t i, index_t j) { return i == j ? 1.0 : 0.0; });
  add("dead rows", [&](index_t i, index_t j) { return i % 3 == 0 ? 0.0 : noise(i, j); });
  add("equal rows", [&](index_t i, index_t j) { return noise(i - i % 2, j); });
  add("huge", [&](index_t i, index_t j) { return 1e30 * noise(i, j); });
  add("tiny", [&](index_t i, index_t j) { return 1e-30 * noise(i, j); });
  add("graded columns", [&](index_t i, index_t j) {
    return noise(i, j) * std::pow(10.0, -30.0 * static_cast<double>(n - 1 - j) / static_cast<double>(n));
  });
  if (q <= 130) {
    with_values("1/i", [](index_t i) { return 1 / static_cast<double>(i + 1); });
    with_values("1/i^2", [](index_t i) { return 1 / static_cast<double>((i + 1) * (i + 1)); });
    with_values("0.95^i", [](index_t i) { return std::pow(0.95, static_cast<double>(i)); });
    with_values("repeated", [&](index_t i) { return 2 * i < q ? 1.0 : 0.5; });
    with_values("an isometry", [](index_t) { return 1.0; });
  }
  const auto batch = static_cast<index_t>(all.size());
  on_device<T> a(gpu, m, n, l, batch), u(gpu, m, q, layout::column_major, batch),
      sv(gpu, q, 1, layout::column_major, batch), v(gpu, n, q, layout::column_major, batch);
  a.host.fill([&](index_t i, index_t j, index_t b) { return all[static_cast<std::size_t>(b)].a(i, j); });
  a.up();
  std::vector<status_word> words(all.size(), 0);
  words[1] = 1;
  cuda_backend::buffer guard = gpu.allocate(words.size() * sizeof(status_word)),
                       work = gpu.allocate(gpu.svd_workspace<T>(m, n, batch));
  gpu.upload(guard.data(), words.data(), words.size() * sizeof(status_word));
  const auto decompose = [&](const auto& run) {
    for (on_device<T>* x : {&u, &sv, &v}) x->host.fill([](index_t, index_t, index_t) { return 7.0; }), x->up();
    run();
    for (on_device<T>* x : {&u, &sv, &v}) x->down();
  };
  const auto verb = [&] {
    gpu.svd(reinterpret_cast<const status_word*>(guard.data()), a.cv(), u.v(), sv.v(), v.v(), work.data());
  };
  decompose(verb);
  const auto first_u = elements(u.host.cv()), first_s = elements(sv.host.cv()), first_v = elements(v.host.cv());

  // In double a sum of m equal terms may lose half a unit with each; in float long sums are cut.
  const double sums = std::is_same_v<T, double> ? static_cast<double>(std::max(m, n)) / 40 : 0;
  const double rounding = eps<T> * (std::sqrt(static_cast<double>(q)) + sums), limit = 20 * rounding;
  for (index_t b = 0; b < batch; ++b) {
    const auto& [name, x, values] = all[static_cast<std::size_t>(b)];
    CAPTURE(name);
    const mat ub = to_mat(u.host.cv().matrix(b)), vb = to_mat(v.host.cv().matrix(b));
    std::vector<double> found;
    for (index_t j = 0; j < q; ++j) found.push_back(static_cast<double>(sv.host(j, 0, b)));
    if (b == 1) {
      for (const mat* y : {&ub, &vb}) CHECK(std::all_of(y->a.begin(), y->a.end(), [](double e) { return e == 7; }));
      CHECK(std::all_of(found.begin(), found.end(), [](double e) { return e == 7; }));
      continue;
    }
    if (largest(x) == 0) {
      CHECK((largest(ub) == 0 && largest(vb) == 0 && found.front() == 0 && found.back() == 0));
      continue;
    }
    CHECK(std::is_sorted(found.rbegin(), found.rend()));
    CHECK(found.back() >= 0);
    for (std::size_t j = 0; j < values.size(); ++j) CHECK(std::abs(found[j] - values[j]) <= 20 * rounding * values[0]);
    // One factor is orthonormal; the other one's columns are where there is more than rounding in the value.
    index_t kept = 0;
    while (kept < q && found[static_cast<std::size_t>(kept)] > eps<T> * static_cast<double>(std::max(m, n)) * found[0])
      ++kept;
    mat us = ub;
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < q; ++j) us(i, j) *= found[static_cast<std::size_t>(j)] / found[0];
    CHECK(frobenius(us * transposed(vb) - 1 / found[0] * x) <= 20 * rounding * frobenius(x) / found[0]);
    const mat of_u = transposed(ub) * ub - identity(q), of_v = transposed(vb) * vb - identity(q);
    CHECK(std::min(largest(of_u), largest(of_v)) < limit);
    const auto first = [&](const mat& g) {
      double most = 0;
      for (index_t i = 0; i < kept; ++i)
        for (index_t j = 0; j < kept; ++j) most = std::max(most, std::abs(g(i, j)));
      return most;
    };
    CHECK(first(of_u) < limit);
    CHECK(first(of_v) < limit);
  }

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t recorded = nullptr;
  cuda::check(cudaStreamBeginCapture(s.s, cudaStreamCaptureModeThreadLocal), "record");
  verb();
  cuda::check(cudaStreamEndCapture(s.s, &graph), "record");
  cuda::check(cudaGraphInstantiate(&recorded, graph, 0), "record");
  decompose([&] { cuda::check(cudaGraphLaunch(recorded, s.s), "launch"); });
  CHECK(same_bits(elements(u.host.cv()), first_u));
  CHECK(same_bits(elements(sv.host.cv()), first_s));
  CHECK(same_bits(elements(v.host.cv()), first_v));
  cudaGraphExecDestroy(recorded), cudaGraphDestroy(graph);
}

TEMPLATE_TEST_CASE("GPU: singular value decompositions by blocks of columns", "[cuda]", float, double) {
  check_decompositions_by_blocks<TestType>({97, 99});
}
TEMPLATE_TEST_CASE("GPU: singular value decompositions at the borders of blocks", "[cuda][no_racecheck]", float,
                   double) {
  for (const size shape : {size{95, 95}, {96, 96}, {97, 97}, {128, 128}, {129, 129}, {300, 120}, {120, 300}})
    check_decompositions_by_blocks<TestType>(shape);
  for (const layout l : {layout::column_major, layout::transposed, layout::sub_block})
    check_decompositions_by_blocks<TestType>({121, 144}, l);
}
TEMPLATE_TEST_CASE("GPU: large singular value decompositions", "[cuda][slow]", float, double) {
  for (const size shape : {size{200, 200}, {768, 768}, {768, 400}, {1000, 150}})
    check_decompositions_by_blocks<TestType>(shape);
}

template <class T>
void check_basis(const std::vector<size>& shapes) {
  stream s;
  cuda_backend gpu(s.s);
  const double tiny = std::is_same_v<T, float> ? 1e-37 : 1e-300;
  for (const size& shape : shapes) {
    const index_t m = shape.rows, n = shape.cols;
    const mat noise = random_mat(m, n, 1), few = random_mat(m, 3, 2) * random_mat(3, n, 3);
    const auto check = [&](const char* name, layout l, const auto& f) {
      CAPTURE(name, m, n, name_of(l));
      on_device<T> x(gpu, m, n, l, 2), again(gpu, m, n, l, 2);
      for (auto* y : {&x, &again}) y->host.fill([&](index_t i, index_t j, index_t) { return f(i, j); }), y->up();
      cuda_backend::buffer work = gpu.allocate(gpu.orthonormal_basis_workspace<T>(m, n, 2));
      gpu.orthonormal_basis(nullptr, x.v(), work.data());
      gpu.orthonormal_basis(nullptr, again.v(), work.data());
      x.down(), again.down();
      REQUIRE(same_bits(elements(x.host.cv()), elements(again.host.cv())));
      REQUIRE(x.host.intact());
      const mat q = to_mat(x.host.cv().matrix(1));
      CHECK(largest(transposed(q) * q - identity(n)) < (std::is_same_v<T, float> ? 1e-5 : 1e-12));
      return q;
    };
    for (const layout l : {layout::column_major, layout::row_major}) {
      const mat q = check("noise", l, [&](index_t i, index_t j) { return noise(i, j); });
      const mat r = transposed(q) * noise;
      CHECK(largest(q * r - noise) < 1000 * eps<T>);
      for (index_t j = 0; j < n; ++j) {
        CHECK(r(j, j) > 0);
        for (index_t i = j + 1; i < n; ++i) REQUIRE(std::abs(r(i, j)) < 1000 * eps<T>);
      }
    }
    const layout l = layout::column_major;
    const mat zero = check("zero", l, [](index_t, index_t) { return 0.0; });
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) REQUIRE(zero(i, j) == (i == j));
    check("ones", l, [](index_t, index_t) { return 1.0; });
    check("a triangle", l, [](index_t i, index_t j) { return i >= j ? 1.0 : 0.0; });
    check("equal in pairs", l, [&](index_t i, index_t j) { return noise(i, j - j % 2); });
    check("rank three", l, [&](index_t i, index_t j) { return few(i, j); });
    check("a dead row", l, [&](index_t i, index_t j) { return i == 0 ? 0.0 : noise(i, j); });
    check("dead columns", l, [&](index_t i, index_t j) { return j % 3 == 0 ? 0.0 : noise(i, j); });
    check("tiny", l, [&](index_t i, index_t j) { return tiny * noise(i, j); });
    check("graded rows", l, [&](index_t i, index_t j) {
      return noise(i, j) * std::pow(10.0, -35.0 * static_cast<double>(i) / static_cast<double>(m));
    });
  }
}
TEMPLATE_TEST_CASE("GPU: orthonormal_basis is orthonormal whatever the columns are", "[cuda]", float, double) {
  check_basis<TestType>({{7, 3}, {40, 33}});
}
TEMPLATE_TEST_CASE("GPU: orthonormal_basis of larger matrices", "[cuda][no_racecheck]", float, double) {
  check_basis<TestType>({{1, 1}, {129, 65}, {300, 130}, {384, 384}, {3072, 64}});
}

// As large as SOAP's bases, so the product that checks them is the device's. Terms of one sign are what sums lose most of.
TEST_CASE("GPU: orthonormal_basis of thousands of columns", "[cuda][slow]") {
  stream s;
  cuda_backend gpu(s.s);
  for (const auto& [m, n] : {size{768, 768}, {1536, 1536}, {3072, 768}, {3072, 3072}}) {
    on_device<float> x(gpu, m, n, layout::column_major);
    on_device<double> q(gpu, m, n, layout::column_major), gram(gpu, n, n, layout::column_major);
    cuda_backend::buffer work = gpu.allocate(gpu.orthonormal_basis_workspace<float>(m, n, 1));
    const auto check = [&, m = m, n = n](const char* name) {
      x.up();
      gpu.orthonormal_basis(nullptr, x.v(), work.data());
      x.down();
      q.host.fill([&](index_t i, index_t j, index_t) { return static_cast<double>(x.host(i, j, 0)); });
      q.up();
      gpu.gemm(nullptr, 1.0, q.v().t(), q.v(), 0.0, gram.v(), gram.v());
      gram.down();
      double most = 0;
      for (index_t j = 0; j < n; ++j)
        for (index_t i = 0; i < n; ++i) most = std::max(most, std::abs(gram.host(i, j, 0) - (i == j ? 1 : 0)));
      CAPTURE(name, m, n);
      CHECK(most < 1e-5);
    };
    x.host.fill_random(1);
    check("noise");
    x.host.fill([](index_t i, index_t j, index_t) { return i >= j ? 1.0 : 0.0; });
    check("a triangle");
    x.host.fill([](index_t i, index_t j, index_t) { return 1 / static_cast<double>(i + j + 1); });
    check("Hilbert");
  }
}

template <class T>
void check_spans(const std::vector<size>& shapes) {
  stream s;
  cuda_backend gpu(s.s);
  cuda_backend::buffer words = gpu.allocate(3 * sizeof(status_word));
  const status_word left_out[] = {0, 1, 0};
  gpu.upload(words.data(), left_out, sizeof left_out);
  const auto* const guard = reinterpret_cast<const status_word*>(words.data());
  for (const auto [m, n] : shapes)
    for (const span_case& c : span_cases<T>(m, n)) {
      const layout l = all_layouts[(m + n) % 4];
      CAPTURE(c.name, m, n, name_of(l));
      on_device<T> x(gpu, m, n, l, 3), all(gpu, m, n, l, 3);
      for (auto* y : {&x, &all}) y->host.fill([&](index_t i, index_t j, index_t) { return c.x(i, j); }), y->up();
      const mat before = to_mat(x.host.cv().matrix(0));
      orthonormalize(gpu, guard, x.v(), n % 2 ? 0 : 32 * eps<T>);
      orthonormalize(gpu, nullptr, all.v(), n % 2 ? 0 : 32 * eps<T>);
      x.down(), all.down();
      REQUIRE(x.host.intact());
      for (const index_t b : {0, 2})
        REQUIRE(same_bits(elements(x.host.cv().matrix(b)), elements(all.host.cv().matrix(b))));
      const span_errors e = errors_of_span(to_mat(x.host.cv().matrix(2)), before);
      // In double a sum of m equal terms may lose a part of a unit with each; in float long sums are cut.
      CHECK(e.orthogonality < (60 + (std::is_same_v<T, double> ? static_cast<double>(m) / 8 : 0)) * eps<T>);
      if (c.span_kept) CHECK(e.span < 200 * eps<T>);
      CHECK(e.diagonal_positive);
      if (c.dependent)
        for (index_t j = 0; j < n; ++j) CHECK(e.zero[static_cast<std::size_t>(j)] == c.dependent(j));
    }
}
TEMPLATE_TEST_CASE("GPU: orthonormalize: columns are orthonormal or zero, and span what was there", "[cuda]", float,
                   double) {
  check_spans<TestType>({{1, 1}, {40, 31}, {70, 33}});
}
TEMPLATE_TEST_CASE("GPU: orthonormalize, larger matrices", "[cuda][no_racecheck]", float, double) {
  check_spans<TestType>({{40, 1}, {32, 32}, {33, 40}, {80, 65}, {100, 100}, {700, 70}, {1100, 100}});
}
// By blocks of 128 columns, whole and not.
TEST_CASE("GPU: orthonormalize, wide matrices", "[cuda][no_racecheck]") {
  check_spans<float>({{150, 515}, {530, 520}});
}

TEMPLATE_TEST_CASE("GPU: Cholesky factors by blocks, one of them not positive definite", "[cuda]", float, double) {
  using T = TestType;
  stream s;
  cuda_backend gpu(s.s);
  cuda_backend::buffer words = gpu.allocate(3 * sizeof(status_word));
  const view<status_word> status = row_major(reinterpret_cast<status_word*>(words.data()), 1, 1, 3);
  for (const index_t n : {1, 7, 31, 32, 33, 65, 100})
    for (const layout l : all_layouts)
      for (const index_t bad : {index_t(0), n / 2, n - 1}) {
        CAPTURE(n, name_of(l), bad);
        const mat root = random_mat(n, 2 * n, 8), positive = root * transposed(root) + identity(n);
        on_device<T> a(gpu, n, n, l, 3), x(gpu, n, 3, l, 3);
        a.host.fill(
            [&](index_t i, index_t j, index_t b) { return b == 1 && i == bad && j == bad ? -1 : positive(i, j); });
        x.host.fill_random(6);
        a.up(), x.up();
        const mat start = to_mat(x.host.cv().matrix(2));
        gpu.cholesky(nullptr, a.v(), status);
        gpu.solve_lower(nullptr, a.cv(), x.v(), false);
        x.down();
        const mat half = to_mat(x.host.cv().matrix(2));
        gpu.solve_lower(nullptr, a.cv(), x.v(), true);
        a.down(), x.down();
        status_word flags[3] = {9, 9, 9};
        gpu.download(flags, words.data(), sizeof flags);
        CHECK((flags[0] == 0 && flags[1] == 1 && flags[2] == 0));
        REQUIRE((a.host.intact() && x.host.intact()));
        const double limit = 30 * eps<T> * largest(positive);
        for (const index_t b : {0, 2}) {
          const mat lower = to_mat(a.host.cv().matrix(b));
          for (index_t i = 0; i < n; ++i)
            for (index_t j = i + 1; j < n; ++j) REQUIRE(lower(i, j) == 0);
          CHECK(largest(lower * transposed(lower) - positive) < limit);
          if (b == 2) CHECK(largest(lower * half - start) < limit);
        }
        CHECK(largest(positive * to_mat(x.host.cv().matrix(2)) - start) < limit);
      }
}

TEMPLATE_TEST_CASE("GPU: orthonormal columns, Cholesky factors and triangular solves", "[cuda]", float, double) {
  using T = TestType;
  stream s;
  cuda_backend gpu(s.s);
  const double limit = 300 * eps<T>;
  for (const auto [m, n] : {size{1, 1}, {7, 3}, {40, 40}, {129, 65}, {300, 130}}) {
    CAPTURE(m, n);
    on_device<T> x(gpu, m, n, layout::column_major, 2), before(gpu, m, n, layout::column_major, 2);
    // Column 1 depends on column 0, and the last one is zero.
    x.host.fill_random(4);
    if (n > 2)
      for (index_t b = 0; b < 2; ++b)
        for (index_t i = 0; i < m; ++i) x.host.v()(i, 1, b) = -2 * x.host(i, 0, b), x.host.v()(i, n - 1, b) = 0;
    x.up();
    orthonormalize(gpu, nullptr, x.v(), n % 2 ? 0 : 32 * eps<T>);
    x.down();
    for (index_t b = 0; b < 2; ++b) {
      mat expected = identity(n);
      if (n > 2) expected(1, 1) = expected(n - 1, n - 1) = 0;
      const mat q = to_mat(x.host.cv().matrix(b));
      REQUIRE(largest(transposed(q) * q - expected) < limit);
    }
    const index_t k = n;
    on_device<T> a(gpu, k, k, layout::column_major, 2), r(gpu, k, m, layout::column_major, 2);
    const mat root = random_mat(k, 2 * k, 8), positive = root * transposed(root) + identity(k);
    a.host.fill([&](index_t i, index_t j, index_t) { return positive(i, j); });
    r.host.fill_random(6);
    a.up(), r.up();
    const mat start = to_mat(r.host.cv().matrix(1));
    cuda_backend::buffer words = gpu.allocate(2 * sizeof(status_word));
    const view<status_word> status = row_major(reinterpret_cast<status_word*>(words.data()), 1, 1, 2);
    gpu.cholesky(nullptr, a.v(), status);
    gpu.solve_lower(nullptr, a.cv(), r.v(), false);
    gpu.solve_lower(nullptr, a.cv(), r.v(), true);
    a.down(), r.down();
    status_word flags[2] = {9, 9};
    gpu.download(flags, words.data(), sizeof flags);
    CHECK((flags[0] == 0 && flags[1] == 0));
    const mat l = to_mat(a.host.cv().matrix(1));
    for (index_t i = 0; i < k; ++i)
      for (index_t j = i + 1; j < k; ++j) REQUIRE(l(i, j) == 0);
    REQUIRE(largest(l * transposed(l) - positive) < limit * largest(positive));
    REQUIRE(largest(positive * to_mat(r.host.cv().matrix(1)) - start) < limit * largest(positive) * 10);
  }
  on_device<T> a(gpu, 3, 3, layout::column_major);
  a.host.fill([](index_t i, index_t j, index_t) { return i == j ? (i == 1 ? -1.0 : 1.0) : 0.0; });
  a.up();
  cuda_backend::buffer word = gpu.allocate(sizeof(status_word));
  gpu.cholesky(nullptr, a.v(), row_major(reinterpret_cast<status_word*>(word.data()), 1, 1));
  status_word flag = 9;
  gpu.download(&flag, word.data(), sizeof flag);
  CHECK(flag == 1);
}

TEMPLATE_TEST_CASE("GPU: codes of 8 bits are those of the CPU, and so is what they stand for", "[cuda]", float,
                   double) {
  using T = TestType;
  cuda_backend gpu;
  for (const size n : awkward)
    for (const layout l : {layout::row_major, layout::column_major})
      for (const index_t block : {1, 3, 8, 256, 700, 2048, 1 << 20})
        for (const code_map map : {code_map::linear, code_map::dynamic, code_map::e4m3}) {
          CAPTURE(n.rows, n.cols, block, static_cast<int>(map));
          constexpr index_t batch = 3;
          const block_format f{map, block};
          const index_t each = n.rows * n.cols, blocks = f.blocks(each);
          on_device<T> x(gpu, n.rows, n.cols, l, batch), back(gpu, n.rows, n.cols, l, batch);
          x.host.fill_random(4);
          x.up();
          const auto count = static_cast<std::size_t>(each * batch),
                     scale_bytes = sizeof(float) * static_cast<std::size_t>(blocks * batch);
          std::vector<std::uint8_t> ours(count, 9), theirs(count, 9);
          std::vector<float> our_scales(static_cast<std::size_t>(blocks * batch), 7), their_scales = our_scales;
          std::vector<T> our_values(count);
          cuda_backend::buffer codes = gpu.allocate(count), scales = gpu.allocate(scale_bytes),
                               guards = gpu.allocate(3 * sizeof(status_word));
          gpu.upload(codes.data(), ours.data(), count), gpu.upload(scales.data(), our_scales.data(), scale_bytes);
          const status_word guard[batch] = {0, 1, 0};
          gpu.upload(guards.data(), guard, sizeof guard);
          const auto of = [&](std::uint8_t* c, float* s) {
            return std::pair{row_major(c, n.rows, n.cols, batch), row_major(s, 1, blocks, batch)};
          };
          const auto [gc, gs] =
              of(reinterpret_cast<std::uint8_t*>(codes.data()), reinterpret_cast<float*>(scales.data()));
          const auto [cc, cs] = of(ours.data(), our_scales.data());
          gpu.quantize(reinterpret_cast<const status_word*>(guards.data()), f, x.cv(), gc, gs);
          for (index_t b = 0; b < batch; ++b)
            for (index_t k = 0; k < blocks && guard[b] == 0; ++k)
              matopt::detail::quantize_block(f, k, x.host.cv(), cc, cs, b);
          gpu.download(theirs.data(), codes.data(), count);
          gpu.download(their_scales.data(), scales.data(), scale_bytes);
          REQUIRE(ours == theirs);
          REQUIRE(our_scales == their_scales);
          gpu.dequantize(nullptr, f, as_const(gc), as_const(gs), back.v());
          back.down();
          for (index_t b = 0; b < batch; ++b)
            for (index_t k = 0; k < blocks; ++k)
              matopt::detail::dequantize_block(f, k, as_const(cc), as_const(cs),
                                               row_major(our_values.data(), n.rows, n.cols, batch), b);
          for (index_t b = 0; b < batch; ++b)
            for (index_t i = 0; i < n.rows; ++i)
              for (index_t j = 0; j < n.cols; ++j)
                REQUIRE(back.host.cv()(i, j, b) == our_values[static_cast<std::size_t>(b * each + i * n.cols + j)]);
        }
}
