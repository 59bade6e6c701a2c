// Singular value decompositions by cuSOLVER in place of the library's own (cuda/cusolver.cuh).
#include <catch2/catch.hpp>

#include <limits>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/cuda/cusolver.cuh>
#include <matopt/numuon.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <memory>

#include "../support/tolerance.hpp"
#include "device.cuh"

using namespace matopt;
using namespace matopt::test;

namespace {

using cuda::svd_routine;
std::unique_ptr<cuda::svd_library> cusolver(svd_routine r) { return std::make_unique<cuda::cusolver>(r); }

// Asks for every shape, and counts what it was asked for.
class counting : public cuda::cusolver {
 public:
  counting(svd_routine r, int& runs) : cuda::cusolver(r), runs_(&runs) {}
  void run(cudaStream_t stream, const cuda::svd_problem& p, std::byte* workspace) override {
    ++*runs_;
    cuda::cusolver::run(stream, p, workspace);
  }

 private:
  int* runs_;
};

}  // namespace

TEMPLATE_TEST_CASE("GPU: cuSOLVER's decompositions are decompositions of what they were given", "[cuda][slow]", float,
                   double) {
  using T = TestType;
  stream s;
  const double limit = 200 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (const svd_routine routine : {svd_routine::gesvdp, svd_routine::gesvdj})
    for (const auto& [m, n] : {std::pair<index_t, index_t>{97, 97}, {150, 70}, {70, 150}, {5, 3}}) {
      int runs = 0;
      cuda_backend gpu(s.s, std::make_unique<counting>(routine, runs));
      const index_t q = std::min(m, n);
      const mat noise = random_mat(m, n, 1), low = random_mat(m, 3, 2) * random_mat(3, n, 3);
      const T nan = std::numeric_limits<T>::quiet_NaN();
      on_device<T> a(gpu, m, n, layout::row_major, 6), u(gpu, m, q, layout::row_major, 6),
          sv(gpu, q, 1, layout::column_major, 6), v(gpu, n, q, layout::column_major, 6);
      const auto entry = [&, m = m, n = n](index_t i, index_t j, index_t b) {
        (void)m, (void)n;
        return b == 0   ? noise(i, j)
               : b == 1 ? low(i, j)
               : b == 2 ? 0.
               : b == 3 ? 1e30 * noise(i, j)
                        : 1e-30 * noise(i, j);
      };
      a.host.fill([&](index_t i, index_t j, index_t b) { return b == 5 ? nan : static_cast<T>(entry(i, j, b)); });
      a.up();
      cuda_backend::buffer work = gpu.allocate(gpu.svd_workspace<T>(m, n, 6));
      gpu.svd(nullptr, a.cv(), u.v(), sv.v(), v.v(), work.data());
      u.down(), sv.down(), v.down();
      CHECK(runs == (q > 64 ? 1 : 0));  // small ones are the library's own
      for (index_t b = 0; b < 5; ++b) {
        CAPTURE(static_cast<int>(routine), m, n, b);
        const mat x = to_mat(a.host.cv().matrix(b)), vb = to_mat(v.host.cv().matrix(b));
        mat us = to_mat(u.host.cv().matrix(b));
        for (index_t j = 0; j < q; ++j) {
          const double value = static_cast<double>(sv.host(j, 0, b));
          CHECK(value >= 0);
          if (j > 0) CHECK(value <= static_cast<double>(sv.host(j - 1, 0, b)));
          for (index_t i = 0; i < m; ++i) us(i, j) *= value;
        }
        CHECK(largest(us * transposed(vb) - x) <= limit * largest(x));
      }
    }
}

TEST_CASE("GPU: a step by cuSOLVER's decompositions is the step by the library's own, and no graph", "[cuda]") {
  using exact = numuon::with_orthogonalizer<svd_polar>;
  exact rule;
  rule.constraint.rank = {.start = 0.5, .end = 0.5, .hold = 0, .total = 1};
  stream s;
  const index_t m = 96, n = 130;
  const auto stepped = [&](std::unique_ptr<cuda::svd_library> library) {
    const bool waits = library != nullptr;
    cuda_backend gpu(s.s, std::move(library));
    on_device<float> w(gpu, m, n), g(gpu, m, n);
    w.host.fill_random(1), g.host.fill_random(2);
    w.up(), g.up();
    optimizer<exact, cuda_backend> opt(gpu, rule);
    opt.add("w", w.v(), g.cv());
    opt.finalize();
    for (int i = 0; i < 3; ++i) opt.step(0.1);
    w.down();
    if (waits)
      CHECK_THROWS_WITH(cuda::captured_step(opt), Catch::Contains("library that waits for the device"));
    else
      cuda::captured_step fast(opt);
    return to_mat(w.host.cv());
  };
  const mat own = stepped(nullptr);
  for (const svd_routine routine : {svd_routine::gesvdp, svd_routine::gesvdj})
    CHECK(largest(stepped(cusolver(routine)) - own) < 1e-3 * largest(own));
}
