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

// Counts what it was asked for.
class counting : public cuda::cusolver {
 public:
  explicit counting(int& runs) : runs_(&runs) {}
  void run(cudaStream_t stream, const cuda::svd_problem& p, std::byte* workspace) override {
    ++*runs_;
    cuda::cusolver::run(stream, p, workspace);
  }

 private:
  int* runs_;
};

}  // namespace

TEMPLATE_TEST_CASE("GPU: decompositions with cuSOLVER are decompositions of what they were given", "[cuda][slow]",
                   float, double) {
  using T = TestType;
  stream s;
  const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  for (const auto& [m, n] : {std::pair<index_t, index_t>{97, 97}, {150, 70}, {70, 150}, {5, 3}}) {
    int runs = 0;
    cuda_backend gpu(s.s, std::make_unique<counting>(runs));
    const index_t q = std::min(m, n), batch = 18;
    const mat noise = random_mat(m, n, 1), low = random_mat(m, 3, 2) * random_mat(3, n, 3);
    std::vector<double> falling;
    for (index_t i = 0; i < q; ++i) falling.push_back(std::pow(0.7, static_cast<double>(i)));
    const mat graded = with_spectrum(m, n, falling, 5);
    const mat given[] = {noise, low, mat(m, n), noise, noise, graded};
    on_device<T> a(gpu, m, n, layout::row_major, batch), u(gpu, m, q, layout::row_major, batch),
        sv(gpu, q, 1, layout::column_major, batch), v(gpu, n, q, layout::column_major, batch);
    a.host.fill([&](index_t i, index_t j, index_t b) {
      const double scale = b == 3 ? 1e30 : b == 4 ? 1e-30 : 1;
      return b == 6 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(scale * given[b % 6](i, j));
    });
    a.up();
    cuda_backend::buffer work = gpu.allocate(gpu.svd_workspace<T>(m, n, batch));
    gpu.svd(nullptr, a.cv(), u.v(), sv.v(), v.v(), work.data());
    u.down(), sv.down(), v.down();
    CHECK(runs == (q > 64 && std::is_same_v<T, float> ? 1 : 0));  // the others are the library's own
    for (index_t b = 0; b < 6; ++b) {
      CAPTURE(m, n, b);
      const mat x = to_mat(a.host.cv().matrix(b)), ub = to_mat(u.host.cv().matrix(b)),
                vb = to_mat(v.host.cv().matrix(b));
      mat us = ub;
      for (index_t j = 0; j < q; ++j) {
        const double value = static_cast<double>(sv.host(j, 0, b));
        CHECK(value >= 0);
        if (j > 0) CHECK(value <= static_cast<double>(sv.host(j - 1, 0, b)));
        for (index_t i = 0; i < m; ++i) us(i, j) *= value;
      }
      CHECK(largest(us * transposed(vb) - x) <= 200 * eps * largest(x));
      if (b != 0) continue;
      CHECK(largest(transposed(ub) * ub - identity(q)) < 500 * eps);
      CHECK(largest(transposed(vb) * vb - identity(q)) < 500 * eps);
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
  CHECK(largest(stepped(std::make_unique<cuda::cusolver>()) - own) < 1e-3 * largest(own));
}
