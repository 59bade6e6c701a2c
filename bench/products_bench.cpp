// Products of the CPU backend beside Eigen's public product and OpenBLAS, and whole Newton-Schulz iterations made of
// them.
//   products_bench [--threads=2] [Google Benchmark's options]
//
// Counters: FLOP/s, where a symmetric product and what is made of it count as if computed whole; and the same as a
// fraction of the peak, which is measured at the start by a loop of multiply-adds in registers on all threads.
// OpenBLAS is loaded at run time, if libopenblas is found. Version 0.3.21 does not know many newer processors and then
// picks kernels without AVX-512, so OPENBLAS_CORETYPE=SkylakeX is set where the processor has AVX-512 and nothing is
// set. bench/products runs this and prints the ratios.
#include <benchmark/benchmark.h>
#include <dlfcn.h>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <matopt/core/pass.hpp>
#include <matopt/eigen.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace matopt;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int threads = 2;
double peak = 0;  // FLOP/s
eigen_backend& cpu() {
  static eigen_backend backend(threads);
  return backend;
}

// --- OpenBLAS ---

struct openblas {
  enum { row_major = 101, plain = 111, transposed = 112 };
  using sgemm_function = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float,
                                  float*, int);
  sgemm_function sgemm = nullptr;
  std::string name = "none";

  openblas() {
    if (__builtin_cpu_supports("avx512f")) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
    void* const library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    sgemm = reinterpret_cast<sgemm_function>(dlsym(library, "cblas_sgemm"));
    if (const auto set = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"))) set(threads);
    if (const auto get = reinterpret_cast<const char* (*)()>(dlsym(library, "openblas_get_config"))) name = get();
  }
  // D = alpha A op(B) + beta D
  void operator()(float alpha, const matrix& a, const matrix& b, bool b_transposed, float beta, matrix& d) const {
    const auto i = [](Eigen::Index x) { return static_cast<int>(x); };
    sgemm(row_major, plain, b_transposed ? transposed : plain, i(d.rows()), i(d.cols()), i(a.cols()), alpha, a.data(),
          i(a.cols()), b.data(), i(b.cols()), beta, d.data(), i(d.cols()));
  }
};
const openblas& blas() {
  static const openblas library;
  return library;
}

// --- the peak ---

double measured_peak() {
#ifdef __AVX512F__
  constexpr int lanes = 16;
#else
  constexpr int lanes = 8;
#endif
  typedef float packet __attribute__((vector_size(lanes * sizeof(float))));
  constexpr int chains = 12, rounds = 200000;
  double best = 0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    cpu().pool().parallel_for(threads, [&](index_t) {
      packet sum[chains] = {}, x = packet{} + 0.5F, y = packet{} + 0.25F;
      for (int r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (auto& s : sum) s = s * x + y;
      }
      for (auto& s : sum) benchmark::DoNotOptimize(s);
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2.0 * lanes * chains * rounds * threads / taken.count());
  }
  return best;
}

void count(benchmark::State& state, double flops) {
  state.counters["FLOPs"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["of_peak"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()) / peak, benchmark::Counter::kIsRate);
}

template <class T>
struct owned {
  std::vector<T> memory;
  view<T> v;
  owned(index_t rows, index_t cols)
      : memory(static_cast<std::size_t>(rows * cols)), v(row_major(memory.data(), rows, cols)) {}
  explicit owned(const matrix& from) : owned(from.rows(), from.cols()) {
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<T>(from.data()[i]);
  }
};
matrix random(index_t rows, index_t cols) {
  // Not timed: the threads of OpenBLAS and OpenMP wait some tens of milliseconds for work before they leave their core.
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  std::srand(1);
  return matrix::Random(rows, cols);
}

// --- one product: D = A B, m x k times k x n ---

template <class T, bool Symmetric>
void product_ours(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1), k = state.range(2);
  owned<T> a(random(m, k)), b(random(k, n)), d(m, n);
  for (auto _ : state) {
    if constexpr (Symmetric)
      cpu().gemm_symmetric(nullptr, 1, a.v, a.v.t(), 0, d.v, d.v);
    else
      cpu().gemm(nullptr, 1, a.v, b.v, 0, d.v, d.v);
  }
  count(state, 2.0 * static_cast<double>(m * n) * static_cast<double>(k));
}
void product_eigen(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1), k = state.range(2);
  const matrix a = random(m, k), b = random(k, n);
  matrix d(m, n);
  for (auto _ : state) d.noalias() = a * b;
  count(state, 2.0 * static_cast<double>(m * n) * static_cast<double>(k));
}
void product_openblas(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1), k = state.range(2);
  const matrix a = random(m, k), b = random(k, n);
  matrix d(m, n);
  for (auto _ : state) blas()(1, a, b, false, 0, d);
  count(state, 2.0 * static_cast<double>(m * n) * static_cast<double>(k));
}

// --- five quintic steps of Newton-Schulz on m x n, m <= n ---

double flops_of_newton_schulz(index_t m, index_t n) {
  return 5 * static_cast<double>(m * m) * (4 * static_cast<double>(n) + 2 * static_cast<double>(m));
}

void newton_schulz_ours(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1);
  const matrix start = random(m, n);
  owned<float> x(start);
  const auto orthogonalize = [&](arena& scratch) {
    const newton_schulz<> policy;
    struct {
    } none;
    pass<eigen_backend, float> e(cpu(), scratch, nullptr, nullptr, 1, m);
    policy.orthogonalize(e, none, x.v);
  };
  eigen_backend::buffer memory = cpu().allocate(static_cast<std::size_t>(m * n + 2 * m * m) * sizeof(float) + 65536);
  for (auto _ : state) {
    arena scratch{memory.data()};
    orthogonalize(scratch);
  }
  count(state, flops_of_newton_schulz(m, n));
}
// The same steps in bfloat16, from the verbs.
template <class T>
void newton_schulz_verbs(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1);
  owned<T> x(matrix(random(m, n) / std::sqrt(static_cast<float>(m * n)))), y(m, n), gram(m, m), poly(m, m);
  for (auto _ : state)
    for (index_t i = 0; i < 5; ++i) {
      const auto [a, b, c] = coefficients(coefficient_set::keller, i);
      const auto f = [](double q) { return static_cast<float>(q); };
      cpu().gemm_symmetric(nullptr, 1, x.v, x.v.t(), 0, gram.v, gram.v);
      cpu().gemm_symmetric(nullptr, f(c), gram.v, gram.v, f(b), gram.v, poly.v);
      cpu().gemm(nullptr, 1, poly.v, x.v, f(a), x.v, y.v);
      std::swap(x.v, y.v);
    }
  count(state, flops_of_newton_schulz(m, n));
}
template <class Multiply>
void newton_schulz_by(benchmark::State& state, Multiply multiply) {
  const index_t m = state.range(0), n = state.range(1);
  matrix x = random(m, n), y(m, n), gram(m, m), poly(m, m);
  for (auto _ : state) {
    x /= x.norm() + 1e-7F;
    for (index_t i = 0; i < 5; ++i) {
      const auto [a, b, c] = coefficients(coefficient_set::keller, i);
      multiply(static_cast<float>(a), static_cast<float>(b), static_cast<float>(c), x, y, gram, poly);
      x.swap(y);
    }
  }
  count(state, flops_of_newton_schulz(m, n));
}
void newton_schulz_eigen(benchmark::State& state) {
  newton_schulz_by(state, [](float a, float b, float c, const matrix& x, matrix& y, matrix& gram, matrix& poly) {
    gram.noalias() = x * x.transpose();
    poly = b * gram;
    poly.noalias() += c * gram * gram;
    y = a * x;
    y.noalias() += poly * x;
  });
}
void newton_schulz_openblas(benchmark::State& state) {
  newton_schulz_by(state, [](float a, float b, float c, const matrix& x, matrix& y, matrix& gram, matrix& poly) {
    blas()(1, x, x, true, 0, gram);
    poly = gram;
    blas()(c, gram, gram, false, b, poly);
    y = x;
    blas()(1, poly, x, false, a, y);
  });
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (const std::string option = argv[i]; option.starts_with("--threads=")) {
      threads = std::stoi(option.substr(10));
      std::rotate(argv + i, argv + i + 1, argv + argc);
      --argc, --i;
    }
  Eigen::setNbThreads(threads);
  peak = measured_peak();
  benchmark::AddCustomContext("threads", std::to_string(threads));
  benchmark::AddCustomContext("peak_gflops", std::to_string(peak * 1e-9));
  benchmark::AddCustomContext("openblas", blas().name);
#ifdef MATOPT_HIGHWAY
  const auto sets = simd::kernel_sets();
  benchmark::AddCustomContext("kernels", sets.empty() ? "Eigen" : sets.front()->name);
#else
  benchmark::AddCustomContext("kernels", "Eigen");
#endif
  const auto products = [](auto* b) {
    for (const index_t n : {768, 1024}) b->Args({n, n, n});
    b->Unit(benchmark::kMillisecond)->UseRealTime();
  };
  const auto iterations = [](auto* b) {
    for (const auto& [m, n] : {std::pair{768, 768}, {1024, 1024}, {768, 3072}}) b->Args({m, n});
    b->Unit(benchmark::kMillisecond)->UseRealTime();
  };
  using benchmark::RegisterBenchmark;
  products(RegisterBenchmark("product/ours", product_ours<float, false>));
  products(RegisterBenchmark("product/ours_symmetric", product_ours<float, true>));
  products(RegisterBenchmark("product/ours_bf16", product_ours<bfloat16, false>));
  products(RegisterBenchmark("product/eigen", product_eigen));
  iterations(RegisterBenchmark("ns5/ours", newton_schulz_ours));
  iterations(RegisterBenchmark("ns5/ours_verbs", newton_schulz_verbs<float>));
  iterations(RegisterBenchmark("ns5/ours_bf16", newton_schulz_verbs<bfloat16>));
  iterations(RegisterBenchmark("ns5/eigen", newton_schulz_eigen));
  if (blas().sgemm) {
    products(RegisterBenchmark("product/openblas", product_openblas));
    iterations(RegisterBenchmark("ns5/openblas", newton_schulz_openblas));
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
