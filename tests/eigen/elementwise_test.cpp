// The CPU backend's elementwise verbs, reductions and random numbers against naive references in double, at sizes
// around its tile and lane boundaries.
#include <catch2/catch.hpp>

#include <cstring>
#include <matopt/core/pass.hpp>
#include <matopt/eigen.hpp>
#include <matopt/policy/momentum/adam_direction.hpp>
#include <random>

#include "../support/matrices.hpp"

using namespace matopt;
using namespace matopt::test;
using Catch::Matchers::Contains;

TEST_CASE("CPU: memory is zero, aligned, on the boundaries of large pages where it is large, and moves", "[eigen]") {
  eigen_backend cpu(1);
  for (const auto& [bytes, boundary] : {std::pair<std::size_t, std::size_t>{0, 1},
                                        {1, 256},
                                        {300, 256},
                                        {(std::size_t{8} << 20) - 1, 256},
                                        {std::size_t{8} << 20, std::size_t{1} << 21},
                                        {(std::size_t{9} << 20) + 77, std::size_t{1} << 21}}) {
    CAPTURE(bytes, boundary);
    eigen_backend::buffer memory = cpu.allocate(bytes);
    std::byte* const begin = memory.data();
    CHECK(reinterpret_cast<std::uintptr_t>(begin) % boundary == 0);
    CHECK(std::all_of(begin, begin + bytes, [](std::byte b) { return b == std::byte{0}; }));
    eigen_backend::buffer other(std::move(memory)), third;
    CHECK((memory.data() == nullptr && other.data() == begin && third.data() == nullptr));
    third = std::move(other);
    CHECK(third.data() == begin);
    third = cpu.allocate(3);
    if (bytes > 0) CHECK(third.data() != nullptr);
  }
}

namespace {

template <class T>
constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());

// y = x row + column, z = z + one
struct two_outputs {
  template <class T>
  void operator()(T& y, T& z, T x, T row, T column, T one) const {
    y = x * row + column;
    z = z + one;
  }
};

// sum (x / s)^2
struct scaled_square {
  template <class T>
  T operator()(T x, T s) const {
    return x / s * (x / s);
  }
};
// y = 2 x, and the sum of y
struct double_and_sum {
  template <class T>
  T operator()(T& y, T x) const {
    y = x + x;
    return y;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("a norm neither overflows nor vanishes, whatever the sizes of the entries", "[eigen]", float,
                   double) {
  using T = TestType;
  eigen_backend cpu(1);
  const double big = std::is_same_v<T, float> ? 1e37 : 1e300, tiny = std::is_same_v<T, float> ? 1e-36 : 1e-300;
  for (const double size : {1.0, big, tiny, 0.0})
    for (const double other : {1.0, big, tiny, 0.0}) {
      CAPTURE(size, other);
      stored<T> x(5, 37), row(5, 1), pair(1, 2);
      x.fill([&](index_t i, index_t j, index_t) { return (i + j) % 2 ? size : other; });
      cpu.reduce(nullptr, fn::scaled_norm{}, pair.v(), x.cv());
      cpu.reduce_rows(nullptr, fn::norm{}, row.v(), x.cv());
      const double top = std::max(size, other);
      const auto expected = [&](double sizes, double others) {
        return top > 0 ? top * std::sqrt(sizes * (size / top) * (size / top) + others * (other / top) * (other / top))
                       : 0.0;
      };
      const double whole = static_cast<double>(pair(0, 0)) * std::sqrt(static_cast<double>(pair(0, 1)));
      CHECK(whole == Approx(expected(92, 93)).epsilon(20 * eps<T>));
      CHECK(static_cast<double>(row(0, 0)) == Approx(expected(18, 19)).epsilon(20 * eps<T>));
    }
}

TEMPLATE_TEST_CASE("a reduction stores the outputs among its arguments", "[eigen]", float, double) {
  using T = TestType;
  for (const int threads : {1, 3})
    for (const layout l : all_layouts)
      for (const index_t n : {1, 17, 400}) {
        CAPTURE(threads, name_of(l), n);
        eigen_backend cpu(threads);
        stored<T> x(n, 129, l, 2), y(n, 129, l, 2), z(n, 129, l, 2), total(1, 1, layout::row_major, 2), row(n, 1, l, 2);
        x.fill_random(1);
        cpu.reduce(nullptr, double_and_sum{}, total.v(), y.v(), x.cv());
        cpu.reduce_rows(nullptr, double_and_sum{}, row.v(), z.v(), x.cv());
        for (index_t b = 0; b < 2; ++b) {
          double sum = 0;
          for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < 129; ++j) {
              REQUIRE(y(i, j, b) == 2 * x(i, j, b));
              REQUIRE(z(i, j, b) == 2 * x(i, j, b));
              sum += static_cast<double>(y(i, j, b));
            }
          REQUIRE(static_cast<double>(total(0, 0, b)) == Approx(sum).margin(static_cast<double>(n) * 129 * eps<T>));
        }
        REQUIRE(y.intact());
      }
}

TEMPLATE_TEST_CASE("reduce and reduce_rows: every storage, batches, broadcasts", "[eigen]", float, double) {
  using T = TestType;
  for (const int threads : {1, 4}) {
    eigen_backend cpu(threads);
    for (const layout l : all_layouts)
      for (const auto& [rows, cols] :
           {std::pair<index_t, index_t>{1, 1}, {1, 300}, {300, 1}, {17, 16}, {65, 129}, {300, 257}})
        for (const index_t batch : {1, 2, 5}) {
          if (batch > 1 && rows * cols > 20000) continue;
          CAPTURE(threads, name_of(l), rows, cols, batch);
          stored<T> x(rows, cols, l, batch), scale(rows, 1), total(1, 1, layout::row_major, batch),
              row(rows, 1, l, batch);
          x.fill_random(1), scale.fill([](index_t i, index_t, index_t) { return static_cast<double>(1 + i % 3); });
          cpu.reduce(nullptr, fn::square{}, total.v(), x.cv());
          cpu.reduce_rows(nullptr, scaled_square{}, row.v(), x.cv(), per_row(scale.cv()));
          for (index_t b = 0; b < batch; ++b) {
            const mat m = to_mat(x.cv().matrix(b));
            REQUIRE(static_cast<double>(total(0, 0, b)) == Approx(dot(m, m)).epsilon(40 * eps<T>));
            for (index_t i = 0; i < rows; ++i) {
              double sum = 0;
              for (index_t j = 0; j < cols; ++j) sum += m(i, j) * m(i, j);
              sum /= static_cast<double>((1 + i % 3) * (1 + i % 3));
              REQUIRE(static_cast<double>(row(i, 0, b)) == Approx(sum).epsilon(40 * eps<T>));
            }
          }
          cpu.reduce(nullptr, fn::abs_max{}, total.v(), x.cv());
          REQUIRE(static_cast<double>(total(0, 0, batch - 1)) == largest(to_mat(x.cv().matrix(batch - 1))));
        }
  }
}

TEST_CASE("reduce: a flag anywhere is found", "[eigen]") {
  eigen_backend cpu(2);
  stored<float> x(130, 70, layout::sub_block);
  status_word flag = 9;
  for (const auto& [i, j] : {std::pair<index_t, index_t>{0, 0}, {129, 69}, {64, 33}, {0, 69}})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), 1.0f}) {
      x.fill_random(1);
      x.v()(i, j) = bad;
      cpu.reduce(nullptr, fn::not_finite{0x1p104}, view<status_word>{&flag, 1, 1, 1, 1}, x.cv());
      CHECK(flag == (bad == 1.0f ? 0U : 1U));
    }
}

TEMPLATE_TEST_CASE("for_each: outputs, broadcasts and mixed types in every storage", "[eigen]", bfloat16, float16) {
  using Narrow = TestType;
  for (const int threads : {1, 3}) {
    eigen_backend cpu(threads);
    for (const layout ly : all_layouts)
      for (const layout lx : all_layouts)
        for (const auto& [rows, cols] : {std::pair<index_t, index_t>{1, 1}, {1, 9}, {9, 1}, {37, 53}, {190, 200}}) {
          CAPTURE(threads, name_of(ly), name_of(lx), rows, cols);
          stored<float> y(rows, cols, ly, 2), row(rows, 1, layout::row_major, 2), one(1, 1);
          stored<Narrow> z(rows, cols, lx, 2);
          stored<double> x(rows, cols, lx, 2), column(1, cols);
          const auto value = [](index_t i, index_t j, index_t b) {
            return static_cast<double>(i % 5 + 10 * (j % 4) + 100 * b);
          };
          x.fill(value), z.fill(value);
          row.fill([](index_t i, index_t, index_t b) { return static_cast<double>(i % 3 + b); });
          column.fill([](index_t, index_t j, index_t) { return static_cast<double>(j % 7); });
          one.fill([](auto...) { return 1.0; });
          cpu.for_each(nullptr, two_outputs{}, y.v(), z.v(), x.cv(), per_row(row.cv()), per_column(column.cv()),
                       per_matrix(one.cv()));
          bool right = true;
          for (index_t b = 0; b < 2; ++b)
            for (index_t i = 0; i < rows; ++i)
              for (index_t j = 0; j < cols; ++j) {
                right &= static_cast<double>(y(i, j, b)) ==
                         value(i, j, b) * static_cast<double>(i % 3 + b) + static_cast<double>(j % 7);
                right &= static_cast<float>(z(i, j, b)) == static_cast<float>(value(i, j, b) + 1);
              }
          REQUIRE(right);
          REQUIRE(y.intact());
          REQUIRE(z.intact());
        }
  }
}

TEST_CASE("for_each: one number serves a batch of numbers", "[eigen]") {
  eigen_backend cpu(1);
  const std::vector<double> one{3, 100, 200, 300, 400};
  for (const index_t stride : {index_t{0}, index_t{1}}) {
    CAPTURE(stride);
    std::vector<double> x{1, 2, 3, 4, 5};
    cpu.for_each(nullptr, fn::add{}, view<double>{x.data(), 1, 1, 1, 1, 5, 1},
                 view<const double>{one.data(), 1, 1, 1, 1, 1, stride});
    CHECK(x == std::vector<double>{4, 5, 6, 7, 8});
  }
}

TEST_CASE("random_normal: the same numbers in every storage; matrix b is stream b", "[eigen]") {
  const std::uint32_t counter = 7;
  const view<const std::uint32_t> count{&counter, 1, 1, 1, 1};
  for (const int threads : {1, 3})
    for (const layout l : all_layouts) {
      eigen_backend cpu(threads);
      stored<double> x(33, 70, l, 3);
      cpu.random_normal(nullptr, x.v(), 11, count);
      bool right = true;
      for (index_t b = 0; b < 3; ++b)
        for (index_t i = 0; i < 33; ++i)
          for (index_t j = 0; j < 70; ++j)
            right &= x(i, j, b) ==
                     philox::normal(11, static_cast<std::uint32_t>(b), 7, static_cast<std::uint64_t>(i * 70 + j));
      CHECK(right);
      CHECK(x.intact());
    }
}

TEST_CASE("for_rows: what one work writes and a later one reads carries one mark, or is refused", "[eigen]") {
  eigen_backend cpu(1);
  stored<double> x(3, 5, layout::row_major), norms(3, 1, layout::row_major), factors(3, 1, layout::row_major);
  x.fill_random(1);
  arena none;
  pass<eigen_backend, double> e(cpu, none, nullptr, nullptr, 1, 1);
  const auto sums = work_on(fn::norm{}, x.cv());
  const auto with = [&](auto norm, auto factor, auto factor_again) {
    e.for_rows(sums, norms.v(), work_on(fn::multiple{2}, factor, norm),
               work_on(fn::divide{}, x.v(), x.cv(), factor_again));
  };
  const auto n = norms.cv();
  const auto f = factors.v();
  const mat before = to_mat(x.cv());
  with(sum_result<0>(n), shared<3>(f), shared<3>(per_row(f)));
  for (index_t i = 0; i < 3; ++i) {
    double squares = 0;
    for (index_t j = 0; j < 5; ++j) squares += before(i, j) * before(i, j);
    for (index_t j = 0; j < 5; ++j) CHECK(x(i, j) == Approx(before(i, j) / (2 * std::sqrt(squares))));
  }

  const auto after = elements(x.cv());
  CHECK_THROWS_WITH(with(n, shared<3>(f), shared<3>(per_row(f))), Contains("numbers reads what the sums write"));
  CHECK_THROWS_WITH(with(sum_result<1>(n), shared<3>(f), shared<3>(per_row(f))),
                    Contains("numbers reads what the sums write"));
  CHECK_THROWS_WITH(with(sum_result<0>(n), shared<3>(f), per_row(f)),
                    Contains("elements reads what the formula on numbers writes"));
  CHECK_THROWS_WITH(with(sum_result<0>(n), f, per_row(f)), Contains("shared<number>()"));
  CHECK_THROWS_WITH(with(sum_result<0>(n), shared<3>(f), per_row(n)), Contains("elements reads what the sums write"));
  // The mark of one around another.
  CHECK_THROWS_AS(with(sum_result<0>(n), shared<3>(f), shared<3>(per_row(n))), error);
  CHECK(same_bits(elements(x.cv()), after));
}

#if defined(__x86_64__) && !defined(__AVX2__)
TEMPLATE_TEST_CASE("an update gives the same bits with the vectors of AVX2", "[eigen]", float, double) {
  if (!__builtin_cpu_supports("avx2")) return;
  const index_t n = 3 * lines::width;
  std::vector<TestType> start[4], one_way[4], other_way[4];
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  for (auto& x : start)
    for (index_t i = 0; i < n; ++i)
      x.push_back(static_cast<TestType>(normal(random) * std::pow(10., static_cast<double>(i % 41) - 20)));
  for (auto& v : start[1]) v = v * v;
  start[3][7] = std::numeric_limits<TestType>::infinity();
  for (int i = 0; i < 4; ++i) one_way[i] = other_way[i] = start[i];
  const auto run = [&](auto kernel, std::vector<TestType>* x) {
    kernel(lines::output<TestType>{x[0].data()}, lines::output<TestType>{x[1].data()},
           lines::output<TestType>{x[2].data()}, lines::input<TestType>{x[3].data()},
           lines::number<TestType>{TestType(0.1)}, lines::number<TestType>{TestType(0.001)});
  };
  const fn::adam f{0.9, 0.999, 1e-8, 5e18, true};
  run([&](auto... p) { lines::map_blocks_anywhere<TestType>(f, n, p...); }, one_way);
  run([&](auto... p) { lines::map_blocks_avx2<TestType>(f, n, p...); }, other_way);
  for (int i = 0; i < 4; ++i) {
    CHECK(std::memcmp(one_way[i].data(), other_way[i].data(), one_way[i].size() * sizeof(TestType)) == 0);
    CHECK((i == 3 || one_way[i] != start[i]));
  }
}
#endif

TEST_CASE("reduce: the bits of a matrix depend neither on the batch around it nor on threads", "[eigen]") {
  const index_t rows = 90, cols = 3000, batch = 18;
  std::vector<double> x(static_cast<std::size_t>(batch * rows * cols));
  std::mt19937 random(7);
  for (auto& v : x) v = std::normal_distribution<double>()(random);
  const auto norms_of = [&](int threads, index_t at_once) {
    eigen_backend cpu(threads);
    std::vector<double> norms(static_cast<std::size_t>(batch));
    for (index_t b = 0; b < batch; b += at_once)
      cpu.reduce(nullptr, fn::norm{}, view<double>{norms.data() + b, 1, 1, 1, 1, at_once, 1},
                 view<const double>{x.data() + b * rows * cols, rows, cols, cols, 1, at_once, rows * cols});
    return norms;
  };
  const auto expected = norms_of(1, 1);
  CHECK(norms_of(1, batch) == expected);
  CHECK(norms_of(2, batch) == expected);
  CHECK(norms_of(2, 9) == expected);
  CHECK(norms_of(3, batch) == expected);
}

TEST_CASE("eigen: sums of very many equal terms are right to a millionth, on any path", "[eigen]") {
  const float x = 0.7F;
  eigen_backend one(1), two(2);
  float result = 0, of_two = 0;
  const view<float> out{&result, 1, 1, 1, 1};
  const auto is_near = [&](double expected) { return std::abs(static_cast<double>(result) / expected - 1) < 1e-6; };
  const double value = static_cast<double>(x);
  for (const index_t n : {index_t{1} << 26, index_t{1} << 27}) {
    // An expanded number stands for the matrix: the memory would be half a gigabyte.
    const double count = static_cast<double>(n);
    const view<const float> row{&x, 1, n, 0, 0}, square{&x, n / 4096, 4096, 0, 0};
    CAPTURE(n);
    one.reduce(nullptr, fn::norm{}, out, row);
    CHECK(is_near(value * std::sqrt(count)));
    one.reduce(nullptr, fn::identity{}, out, row);
    CHECK(is_near(value * count));
    one.reduce(nullptr, fn::square{}, out, square);
    CHECK(is_near(value * value * count));
    one.reduce_rows(nullptr, fn::norm{}, out, row);
    CHECK(is_near(value * std::sqrt(count)));
  }
  // Contiguous memory: as one row, as one column, as a few rows, and by columns.
  constexpr index_t n = index_t{1} << 22;
  const std::vector<float> memory(static_cast<std::size_t>(n), x);
  const view<const float> row = row_major(memory.data(), 1, n), few = row_major(memory.data(), 4, n / 4);
  for (const auto& v : {row, row.t(), few, few.t()}) {
    CAPTURE(v.rows, v.cols);
    two.reduce(nullptr, fn::norm{}, view<float>{&of_two, 1, 1, 1, 1}, v);
    one.reduce(nullptr, fn::norm{}, out, v);
    CHECK(result == of_two);
    CHECK(is_near(value * std::sqrt(static_cast<double>(n))));
    one.reduce(nullptr, fn::product{}, out, v, v);
    CHECK(is_near(value * value * static_cast<double>(n)));
  }
  float of_rows[4];
  one.reduce_rows(nullptr, fn::norm{}, view<float>{of_rows, 4, 1, 1, 1}, few);
  for (const float r : of_rows)
    CHECK(std::abs(static_cast<double>(r) / (value * std::sqrt(static_cast<double>(n / 4))) - 1) < 1e-6);
  // A column of equal entries, made one of norm 1.
  std::vector<float> column(memory);
  std::vector<std::byte> work(one.orthonormalize_workspace<float>(n, 1, 1));
  one.orthonormalize(nullptr, col_major(column.data(), n, 1), 1e-6F, work.data());
  CHECK(std::abs(static_cast<double>(column[5]) * std::sqrt(static_cast<double>(n)) - 1) < 1e-6);
}
