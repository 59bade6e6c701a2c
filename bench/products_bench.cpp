// Products of the types that the backend multiplies: D = A B (plain) and D = A A^T (symmetric), single and in batches.
//   products_bench | cuda_products_bench [--all] [--threads=N] [Google Benchmark's options]
//
// Cases: product/kind:symmetric/element:float16/shape:48x768x768x768 (batch, m, n, depth). A symmetric product counts
// as if computed whole, so that its fraction of the peak may pass one. On the CPU also by:eigen and by:openblas, in
// float. On the GPU a graph holds several products, so that the launch of the graph is not what is measured; their
// operands then lie in the cache if they fit.
#include "common/harness.hpp"
#ifndef __CUDACC__
#include "common/cpu_peers.hpp"
#endif

namespace {

using namespace bench;

struct shape {
  index_t batch, m, n, depth;
  std::string text() const {
    return std::to_string(batch) + "x" + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(depth);
  }
  double flops() const { return 2 * static_cast<double>(batch * m * n) * static_cast<double>(depth); }
};

std::vector<shape> shapes(bool symmetric) {
  std::vector<shape> s;
  const bool all = chosen().all;
  const auto square = [&](index_t n) { s.push_back({1, n, n, n}); };
  const auto batch = [&](index_t b, index_t m, index_t n) {
    symmetric ? s.push_back({b, m, m, n}) : s.push_back({b, m, n, m});
  };
  if (device::is_gpu) {
    for (const index_t n : {512, 1024, 2048, 4096, 8192}) square(n);
    batch(48, 768, 768), batch(16, 1024, 1024), batch(8, 1024, 4096), batch(24, 768, 3072);
  } else {
    for (const index_t n : {256, 512, 768, 1024}) square(n);
    batch(1, 768, 3072);
    if (all) square(2048), batch(48, 768, 768), batch(16, 1024, 1024), batch(8, 1024, 4096), batch(24, 768, 3072);
  }
  return s;
}

template <class T>
struct operands {
  operands(const shape& s, bool symmetric, int at_once)
      : a(s.m, s.depth, s.batch, 1),
        b(symmetric ? 1 : s.depth, symmetric ? 1 : s.n, s.batch, 2),
        d(s.m, s.n, s.batch, 3),
        run([this, symmetric, at_once] {
          for (int i = 0; i < at_once; ++i)
            if (symmetric)
              device::the_backend().template gemm_symmetric<T>(nullptr, 1, a.v(), a.v().t(), 0, d.v(), d.v());
            else
              device::the_backend().template gemm<T>(nullptr, 1, a.v(), b.v(), 0, d.v(), d.v());
        }) {}
  numbers<T> a, b, d;
  device::recorded run;
};

template <class T>
void add_product(const shape& s, bool symmetric) {
  const std::string element = element_name<T>;
  const std::string name =
      std::string("product/kind:") + (symmetric ? "symmetric" : "plain") + "/element:" + element + "/shape:" + s.text();
  add(name, [=](benchmark::State& state) {
    // Some 200 microseconds of work in each graph.
    const double expected = s.flops() / measured().flops.at(element);
    const int at_once = device::is_gpu ? static_cast<int>(std::clamp(2e-4 / expected, 1.0, 64.0)) : 1;
    auto& o = kept<operands<T>>(name, [&] { return new operands<T>(s, symmetric, at_once); });
    measure(
        state, [&] { o.run(); }, at_once);
    const double elements =
        static_cast<double>(s.batch * (s.m * s.depth + s.m * s.n + (symmetric ? index_t{0} : s.n * s.depth)));
    count(state, {s.flops(), elements * sizeof(T)}, element);
  });
}

#ifndef __CUDACC__
template <class Multiply>
void add_peer(const std::string& by, const shape& s, bool symmetric, Multiply multiply) {
  if (s.batch > 1) return;
  const std::string name =
      "product/by:" + by + "/kind:" + (symmetric ? "symmetric" : "plain") + "/element:float/shape:" + s.text();
  add(name, [=](benchmark::State& state) {
    const row_major_matrix a = random_matrix(s.m, s.depth), b = random_matrix(s.depth, s.n);
    row_major_matrix d(s.m, s.n);
    multiply(a, b, symmetric, d);  // not timed: it wakes the threads
    measure(state, [&] { multiply(a, b, symmetric, d); });
    const double elements = static_cast<double>(s.m * s.depth + s.m * s.n + (symmetric ? index_t{0} : s.n * s.depth));
    count(state, {s.flops(), elements * sizeof(float)}, "float");
  });
}
void add_peers(const shape& s, bool symmetric) {
  add_peer("eigen", s, symmetric, [](const auto& a, const auto& b, bool square, auto& d) {
    if (square)
      d.noalias() = a * a.transpose();
    else
      d.noalias() = a * b;
  });
  const openblas& blas = openblas::get(device::the_backend().threads());
  if (!blas.found()) return;
  add_peer("openblas", s, symmetric,
           [&blas](const auto& a, const auto& b, bool square, auto& d) { blas(1, a, square ? a : b, square, 0, d); });
}
#endif

void add_cases() {
#ifndef __CUDACC__
  prepare_peers(device::the_backend().threads(), chosen().pin);
#endif
  for (const bool symmetric : {false, true})
    for (const shape& s : shapes(symmetric)) {
      device::elements::each([&]<class T>(T) { add_product<T>(s, symmetric); });
#ifndef __CUDACC__
      add_peers(s, symmetric);
#endif
    }
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, add_cases); }
