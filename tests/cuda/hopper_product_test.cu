// The kernel of 16-bit products against cuBLAS in double on the same numbers: awkward sizes, strides, batches, fresh
// random inputs, poisoned outputs, and nothing written beside them. On a GPU without the kernel there is nothing to
// test.
#define CATCH_CONFIG_NO_CPP17_UNCAUGHT_EXCEPTIONS
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "device.cuh"

using namespace matopt;
using namespace matopt::test;

namespace {

struct poison {
  template <class T>
  MATOPT_HD void operator()(T& y) const {
    y = T(NAN);
  }
};
struct mean_with {  // of a matrix and its transpose
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = (x + y) / T(2);
  }
};

struct sign {
  template <class T>
  MATOPT_HD void operator()(T& y) const {
    y = y < T(0) ? T(-1) : T(1);
  }
};
struct differs {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = x == y ? T(0) : T(1);
  }
};

// A batch of matrices on the device whose lines begin at multiples of 16 bytes, with room between them.
template <class T>
struct panel {
  panel(cuda_backend& gpu, index_t rows, index_t cols, bool by_rows, index_t batch)
      : line(((by_rows ? cols : rows) + 15) / 8 * 8),
        elements(line * (by_rows ? rows : cols)),
        memory(gpu.allocate(static_cast<std::size_t>(elements * batch) * sizeof(T))),
        v{reinterpret_cast<T*>(memory.data()), rows, cols, by_rows ? line : 1, by_rows ? 1 : line, batch, elements} {
    gpu.for_each(nullptr, poison{}, row_major(v.data, batch, elements));
  }
  index_t line, elements;
  cuda_backend::buffer memory;
  view<T> v;
};

struct shape {
  index_t m, n, k, batch;
};

template <class T>
class subject {
 public:
  explicit subject(cuda_backend& gpu) : gpu_(gpu) {}

  // C may be D; symmetric: B = A^T and C symmetric.
  void check(shape s, bool a_by_rows, bool b_by_rows, double beta, bool symmetric, bool in_place) {
    CAPTURE(s.m, s.n, s.k, s.batch, a_by_rows, b_by_rows, beta, symmetric, in_place);
    panel<T> a(gpu_, s.m, s.k, a_by_rows, s.batch), b(gpu_, s.k, s.n, b_by_rows, s.batch),
        c(gpu_, s.m, s.n, true, s.batch), d(gpu_, s.m, s.n, true, s.batch);
    fill(a.v), fill(b.v), fill(c.v);
    const view<const T> right = symmetric ? as_const(a.v.t()) : as_const(b.v);
    if (symmetric) make_symmetric(c.v);

    const auto exact_a = exact(as_const(a.v)), exact_b = exact(right), expected = exact(as_const(c.v));
    gpu_.gemm<double>(nullptr, 0.75, as_const(exact_a.v), as_const(exact_b.v), beta, as_const(expected.v), expected.v);

    auto& out = in_place ? c : d;
    const bool taken = kernel_.run<T>(gpu_.stream(), nullptr, 0.75F, as_const(a.v), right, static_cast<float>(beta),
                                      as_const(c.v), out.v, symmetric);
    REQUIRE(taken == (s.n % 8 == 0));
    if (!taken)
      gpu_.gemm_symmetric<T>(nullptr, 0.75F, as_const(a.v), right, static_cast<float>(beta), as_const(c.v), out.v);
    const auto got = exact(as_const(out.v));
    const std::vector<double> x = down(got), y = down(expected);
    double error = 0, norm = 0, worst = 0;
    for (index_t z = 0; z < s.batch; ++z)
      for (index_t i = 0; i < s.m; ++i)
        for (index_t j = 0; j < s.n; ++j) {
          const auto at = static_cast<std::size_t>(z * got.elements + i * got.line + j);
          const double e = std::abs(x[at] - y[at]);
          error += e * e, norm += y[at] * y[at];
          worst = std::max(worst, e);
        }
    // Rounding of the result, and sums in float.
    constexpr double ulp = std::is_same_v<T, float16> ? 0x1p-11 : 0x1p-8;
    const auto depth = static_cast<double>(s.k);
    const double scale = symmetric ? 2 * depth + 4 : 2 + std::sqrt(depth);
    REQUIRE(worst <= 6 * ulp * scale);
    REQUIRE(std::sqrt(error) <= ulp * std::sqrt(norm));  // false for NaN
    REQUIRE(spilled(out) == 0);
  }

  // Whether a call is taken at all.
  bool takes(view<const T> a, view<const T> b, view<const T> c, view<T> d) const {
    return kernel_.run<T>(gpu_.stream(), nullptr, 1, a, b, 1, c, d, false);
  }

 private:
  void fill(view<T> x) {
    panel<float> random(gpu_, x.rows, x.cols, x.col_stride == 1, x.batch);
    const view<const std::uint32_t> counter{reinterpret_cast<std::uint32_t*>(zero_.data()), 1, 1, 1, 1};
    gpu_.random_normal(nullptr, random.v, seed_++, counter);
    gpu_.for_each(nullptr, fn::assign{}, x, as_const(random.v));
  }
  void make_symmetric(view<T> x) {
    panel<float> copy(gpu_, x.rows, x.cols, true, x.batch);
    gpu_.for_each(nullptr, fn::assign{}, copy.v, as_const(x));
    gpu_.for_each(nullptr, mean_with{}, copy.v, as_const(x.t()));
    gpu_.for_each(nullptr, fn::assign{}, x, as_const(copy.v));
  }
  panel<double> exact(view<const T> x) {
    panel<double> wide(gpu_, x.rows, x.cols, true, x.batch);
    gpu_.for_each(nullptr, fn::assign{}, wide.v, x);
    return wide;
  }
  template <class U>
  std::vector<U> down(const panel<U>& x) {
    std::vector<U> host(static_cast<std::size_t>(x.elements * x.v.batch));
    gpu_.download(host.data(), x.memory.data(), host.size() * sizeof(U));
    return host;
  }
  // How many elements beside the matrices are not poison any more.
  index_t spilled(const panel<T>& x) {
    const std::vector<T> host = down(x);
    index_t count = 0;
    for (index_t i = 0; i < x.v.batch * x.v.rows; ++i)
      for (index_t j = x.v.cols; j < x.line; ++j)
        count += !std::isnan(static_cast<float>(host[static_cast<std::size_t>(i * x.line + j)]));
    return count;
  }

  cuda_backend& gpu_;
  cuda::hopper::products kernel_{cuda::device::usable()};
  cuda_backend::buffer zero_ = gpu_.allocate(sizeof(std::uint32_t));
  std::uint64_t seed_ = std::random_device{}();
};

bool has_kernel() {
  const cuda::device d = cuda::device::usable();
  return d.major == 9 && d.minor == 0;
}

}  // namespace

TEMPLATE_TEST_CASE("GPU: the kernel of 16-bit products", "[cuda]", float16, bfloat16) {
  if (!has_kernel()) return;
  stream s;
  cuda_backend gpu(s.s);
  subject<TestType> test(gpu);
  for (const bool a : {true, false})
    for (const bool b : {true, false})
      for (const double beta : {0.0, -0.5}) {
        for (const shape size : {shape{1, 8, 1, 1}, {127, 136, 65, 3}, {129, 120, 7, 2}, {640, 1000, 33, 5}})
          test.check(size, a, b, beta, false, size.k == 33);
        for (const index_t m : {1, 120, 136, 384, 1000}) test.check({m, m, 200, 3}, a, !a, beta, true, true);
      }
}

// Also compiled with --default-stream per-thread, where nullptr is another stream (test_cuda_per_thread).
TEST_CASE("GPU: the kernel of 16-bit products on the default streams", "[cuda]") {
  if (!has_kernel()) return;
  for (const cudaStream_t s : {cudaStream_t{nullptr}, cudaStreamLegacy, cudaStreamPerThread}) {
    cuda_backend gpu(s);
    subject<float16> test(gpu);
    for (const double beta : {0.0, -0.5}) {
      test.check({640, 1000, 200, 5}, true, false, beta, false, true);
      test.check({1000, 1000, 200, 3}, true, false, beta, true, true);
    }
  }
}

TEST_CASE("GPU: what a backend says of itself", "[cuda]") {
  stream s;
  const cuda_backend gpu(s.s);
  const std::string text = gpu.describe();
  CAPTURE(text);
  CHECK(text.find("compute capability " + cuda::device::usable().capability()) != std::string::npos);
  CHECK((text.find("matopt's kernel for sm_90a where it pays") != std::string::npos) == has_kernel());
  CHECK((text.find("cuBLASLt only, because") != std::string::npos) != has_kernel());
}

TEMPLATE_TEST_CASE("GPU: the kernel of 16-bit products, at many sizes", "[cuda][slow]", float16, bfloat16) {
  if (!has_kernel()) return;
  stream s;
  cuda_backend gpu(s.s);
  subject<TestType> test(gpu);
  for (const bool a : {true, false})
    for (const bool b : {true, false})
      for (const double beta : {0.0, -0.5}) {
        for (const shape size : {shape{7, 16, 1000, 50}, {128, 256, 64, 1}, {1000, 4104, 127, 2}, {4097, 8, 129, 1}})
          test.check(size, a, b, beta, false, size.k == 127);
        for (const index_t m : {1, 7, 8, 120, 128, 129, 136, 256, 264, 384, 640, 1000, 2056})
          for (const index_t batch : {1, 3, 50})
            if (m * m * batch < (index_t{1} << 23)) test.check({m, m, 200, batch}, a, !a, beta, true, batch == 3);
      }
  test.check({4096, 4096, 96, 1}, true, false, 1, true, false);
  test.check({4097, 4097, 96, 1}, true, false, 1, true, false);
}

TEST_CASE("GPU: gemm is the same for many tiles as for few", "[cuda]") {
  stream s;
  cuda_backend gpu(s.s);
  constexpr index_t m = 100, n = 264, k = 24, many = 900;
  const auto signs = [&](index_t rows, index_t cols, std::uint64_t seed) {  // so that sums are exact
    panel<float> x(gpu, rows, cols, true, many);
    const cuda_backend::buffer zero = gpu.allocate(sizeof(std::uint32_t));
    gpu.random_normal(nullptr, x.v, seed,
                      view<const std::uint32_t>{reinterpret_cast<std::uint32_t*>(zero.data()), 1, 1, 1, 1});
    gpu.for_each(nullptr, sign{}, x.v);
    gpu.synchronize();
    return x;
  };
  const panel<float> a = signs(m, k, 1), b = signs(k, n, 2), c = signs(m, n, 3);
  const auto narrow = [&](const panel<float>& x, bool by_rows) {
    panel<float16> y(gpu, x.v.rows, x.v.cols, by_rows, many);
    gpu.for_each(nullptr, fn::assign{}, y.v, as_const(x.v));
    return y;
  };
  const panel<float> expected(gpu, m, n, true, many), got(gpu, m, n, true, many);
  gpu.gemm(nullptr, 1.F, a.v, b.v, -2.F, c.v, expected.v);
  for (const bool by_rows : {true, false})
    for (const index_t batch : {index_t{3}, many}) {
      const panel<float16> x = narrow(a, !by_rows), y = narrow(b, by_rows), z = narrow(c, by_rows),
                           d(gpu, m, n, by_rows, many);
      gpu.gemm(nullptr, 1.F, x.v.matrices(0, batch), y.v.matrices(0, batch), -2.F, z.v.matrices(0, batch),
               d.v.matrices(0, batch));
      const view<float> wrong = got.v.matrices(0, batch);
      gpu.for_each(nullptr, fn::assign{}, wrong, as_const(d.v.matrices(0, batch)));
      gpu.for_each(nullptr, differs{}, wrong, as_const(expected.v.matrices(0, batch)));
      const cuda_backend::buffer found = gpu.allocate(sizeof(float));
      const view<float> most{reinterpret_cast<float*>(found.data()), 1, 1, 1, 1};
      gpu.reduce(nullptr, fn::abs_max{}, most, as_const(view<float>{wrong.data, m * batch, n, wrong.row_stride, 1}));
      float answer = -1;
      gpu.download(&answer, found.data(), sizeof answer);
      CHECK(answer == 0);
    }
}

TEST_CASE("GPU: the kernel leaves what it cannot take to cuBLAS", "[cuda]") {
  if (!has_kernel()) return;
  stream s;
  cuda_backend gpu(s.s);
  subject<float16> test(gpu);
  const cuda_backend::buffer memory = gpu.allocate(4 << 20);
  const auto data = reinterpret_cast<float16*>(memory.data());
  const auto square = [&](index_t offset, index_t line) { return view<float16>{data + offset, 64, 64, line, 1, 1, 0}; };
  const view<float16> good = square(0, 64), out = square(1 << 20, 64);
  CHECK(test.takes(good, good, good, out));
  CHECK(test.takes(good.t(), good, good, out));
  for (const view<float16> bad : {square(4, 64), square(0, 68), view<float16>{data, 64, 64, 128, 2, 1, 0}}) {
    CHECK_FALSE(test.takes(bad, good, good, out));
    CHECK_FALSE(test.takes(good, bad, good, out));
    CHECK_FALSE(test.takes(good, good, bad, out));
    CHECK_FALSE(test.takes(good, good, good, bad));
  }
  CHECK_FALSE(test.takes(good, good, good, out.t()));
  const view<float16> two{out.data, 64, 64, 64, 1, 2, 64 * 64};  // one matrix for both is not taken
  CHECK_FALSE(test.takes(good, two, two, two));
  CHECK_FALSE(test.takes(two, good, two, two));
  CHECK_FALSE(test.takes(two, two, good, two));
  // The copy engine writes 16 bytes at a time, beyond the end of a line.
  CHECK_FALSE(test.takes(good, good.col_block(0, 60), good.col_block(0, 60), out.col_block(0, 60)));
  gpu.synchronize();
}

// Products of float matrices in pieces, whatever the layouts: of entries of any size in pieces of tfloat32, and of
// entries up to 64 in pieces of float16.
TEST_CASE("GPU: products in pieces are float products", "[cuda]") {
  stream s;
  cuda_backend gpu(s.s);
  bool few = false;  // by the library's own kernel, where it takes the shape
  const auto check = [&](factor_entries of, index_t m, index_t n, index_t k, index_t batch, layout la, layout lb,
                         layout ld, double beta, double size) {
    CAPTURE(few, of == factor_entries::bounded, m, n, k, batch, name_of(la), name_of(lb), name_of(ld), beta, size);
    on_device<float> a(gpu, m, k, la, batch), b(gpu, k, n, lb, batch), c(gpu, m, n, ld, batch), d(gpu, m, n, ld, batch);
    a.host.fill_random(1, size), b.host.fill_random(2, of == factor_entries::bounded ? size : 1 / size);
    c.host.fill_random(3);
    d.host.fill([](index_t, index_t, index_t) { return std::numeric_limits<double>::quiet_NaN(); });
    a.up(), b.up(), c.up(), d.up();
    const std::size_t bytes = of == factor_entries::bounded
                                  ? cuda::piecewise_product::workspace<float16>(m, n, k, batch)
                                  : cuda::piecewise_product::workspace<tfloat32>(m, n, k, batch);
    const cuda_backend::buffer workspace = gpu.allocate(bytes);
    gpu.gemm(nullptr, 0.75F, a.cv(), b.cv(), static_cast<float>(beta), c.cv(), d.v(), workspace.data(), of, few);
    d.down();
    for (index_t z = 0; z < batch; ++z) {
      const mat x = to_mat(a.host.cv().matrix(z)), y = to_mat(b.host.cv().matrix(z));
      const mat off = to_mat(d.host.cv().matrix(z)) - 0.75 * (x * y) - beta * to_mat(c.host.cv().matrix(z));
      const double unit = of == factor_entries::bounded ? size * size : 1;
      // Sums of k terms are about sqrt(k) in size.
      REQUIRE(largest(off) <= 0x1p-18 * (unit * std::sqrt(static_cast<double>(k)) + 1));
    }
    if (ld == layout::sub_block) REQUIRE(d.host.intact());
  };
  for (const factor_entries of : {factor_entries::any, factor_entries::bounded}) {
    for (const layout la : all_layouts)
      for (const layout lb : all_layouts)
        for (const layout ld : all_layouts) check(of, 65, 40, 31, 2, la, lb, ld, 0.5, 1);
    check(of, 1, 1, 1, 3, layout::row_major, layout::row_major, layout::row_major, 0, 1);
    check(of, 200, 130, 520, 3, layout::row_major, layout::column_major, layout::row_major, 0, 1);
    check(of, 65, 70, 2500, 2, layout::row_major, layout::row_major, layout::row_major, 0.5, 1);
    check(of, 130, 200, 257, 70, layout::transposed, layout::row_major, layout::column_major, -1, 1);
  }
  few = true;
  for (const layout la : all_layouts)
    for (const layout ld : {layout::row_major, layout::column_major})
      for (const double beta : {0.0, 0.5}) {
        check(factor_entries::bounded, 264, 520, 96, 3, la, layout::row_major, ld, beta, 1);
        check(factor_entries::bounded, 128, 64, 1700, 2, la, layout::row_major, ld, beta, 1);
      }
  check(factor_entries::bounded, 65, 40, 31, 2, layout::row_major, layout::row_major, layout::row_major, 0.5, 1);
  few = false;
  for (const double size : {1e-30, 1e-3, 1e25})
    check(factor_entries::any, 70, 60, 90, 2, layout::row_major, layout::row_major, layout::row_major, 0, size);
  for (const double size : {1e-3, 60.0})
    check(factor_entries::bounded, 70, 60, 90, 2, layout::row_major, layout::row_major, layout::row_major, 0, size);
}

TEST_CASE("GPU: the library's own kernel leaves out matrices whose guard is raised", "[cuda]") {
  if (!has_kernel()) return;
  stream s;
  cuda_backend gpu(s.s);
  cuda_backend::buffer words = gpu.allocate(3 * sizeof(status_word));
  const status_word raised[3] = {0, 7, 0};
  gpu.upload(words.data(), raised, sizeof raised);
  const auto* guard = reinterpret_cast<const status_word*>(words.data());
  for (const bool symmetric : {false, true}) {
    on_device<float> a(gpu, 264, 96, layout::row_major, 3), d(gpu, 264, 264, layout::row_major, 3);
    a.host.fill_random(5), d.host.fill([](index_t, index_t, index_t) { return 3.0; });
    a.up(), d.up();
    const cuda_backend::buffer workspace = gpu.allocate(cuda::piecewise_product::workspace<float16>(264, 264, 96, 3));
    const auto of = factor_entries::bounded;
    if (symmetric)
      gpu.gemm_symmetric(guard, 1.0F, a.cv(), a.cv().t(), 0.0F, d.cv(), d.v(), workspace.data(), of, true);
    else
      gpu.gemm(guard, 1.0F, a.cv(), a.cv().t(), 0.0F, d.cv(), d.v(), workspace.data(), of, true);
    d.down();
    for (index_t b = 0; b < 3; ++b) {
      const mat x = to_mat(a.host.cv().matrix(b)), y = to_mat(d.host.cv().matrix(b));
      if (b == 1)
        for (index_t i = 0; i < 264; ++i) REQUIRE(y(i, (7 * i) % 264) == 3);
      else
        CHECK(largest(y - x * transposed(x)) <= 0x1p-18 * 96);
    }
  }
}

TEST_CASE("GPU: a float product takes its workspace where that pays, and is symmetric where it must be", "[cuda]") {
  if (!has_kernel()) return;
  stream s;
  cuda_backend gpu(s.s);
  CHECK(gpu.gemm_workspace<float>(64, 64, 64, 4, factor_entries::any) == 0);
  CHECK(gpu.gemm_workspace<float>(768, 768, 768, 48, factor_entries::any) > 0);
  const std::size_t bytes = gpu.gemm_workspace<float>(768, 768, 768, 48, factor_entries::bounded);
  CHECK(bytes > 0);
  CHECK(bytes <= std::size_t{192} << 20);
  // A A^T, of which the pieces are made once.
  for (const factor_entries of : {factor_entries::any, factor_entries::bounded})
    for (const layout l : all_layouts)
      for (const index_t k : {70, 1700}) {
        CAPTURE(of == factor_entries::bounded, name_of(l), k);
        for (const auto& [n, few] : {std::pair<index_t, bool>{130, false}, {136, true}, {648, true}}) {
          on_device<float> a(gpu, n, k, l, 2), d(gpu, n, n, layout::row_major, 2);
          a.host.fill_random(5), a.up();
          const cuda_backend::buffer workspace = gpu.allocate(cuda::piecewise_product::workspace<tfloat32>(n, n, k, 2));
          gpu.gemm_symmetric(nullptr, 1.0F, a.cv(), a.cv().t(), 0.0F, d.cv(), d.v(), workspace.data(), of, few);
          d.down();
          const mat x = to_mat(a.host.cv().matrix(1)), y = to_mat(d.host.cv().matrix(1));
          CHECK(largest(y - x * transposed(x)) <= 0x1p-18 * static_cast<double>(k));
          CHECK(largest(y - transposed(y)) == 0);
        }
      }
}
