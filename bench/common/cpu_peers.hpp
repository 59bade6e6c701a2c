// Products by Eigen's public product and by OpenBLAS, to measure beside ours on the CPU.
//
// OpenBLAS is loaded at run time, if libopenblas is found. Version 0.3.21 does not know many newer processors and then
// picks kernels without AVX-512, so OPENBLAS_CORETYPE=SkylakeX is set where the processor has AVX-512 and nothing is
// set.
#pragma once
#include <benchmark/benchmark.h>
#include <dlfcn.h>

#include <Eigen/Core>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#ifdef __linux__
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#endif

namespace bench {

using row_major_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

class openblas {
 public:
  static const openblas& get(int threads) {
    static const openblas library(threads);
    return library;
  }
  bool found() const { return sgemm_ != nullptr; }
  const std::string& version() const { return version_; }

  // D = alpha A op(B) + beta D
  void operator()(float alpha, const row_major_matrix& a, const row_major_matrix& b, bool b_transposed, float beta,
                  row_major_matrix& d) const {
    enum { row_major = 101, plain = 111, transposed = 112 };
    const auto i = [](Eigen::Index x) { return static_cast<int>(x); };
    sgemm_(row_major, plain, b_transposed ? transposed : plain, i(d.rows()), i(d.cols()), i(a.cols()), alpha, a.data(),
           i(a.cols()), b.data(), i(b.cols()), beta, d.data(), i(d.cols()));
  }

 private:
  using sgemm_function = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float,
                                  float*, int);

  explicit openblas(int threads) {
    if (__builtin_cpu_supports("avx512f")) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
    void* const library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    sgemm_ = reinterpret_cast<sgemm_function>(dlsym(library, "cblas_sgemm"));
    if (const auto set = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"))) set(threads);
    if (const auto get = reinterpret_cast<const char* (*)()>(dlsym(library, "openblas_get_config"))) version_ = get();
  }

  sgemm_function sgemm_ = nullptr;
  std::string version_ = "none";
};

// Systems that save cores pack threads which sleep now and then, as those of our pool and of OpenMP do, onto one core,
// and leave them there.
inline void pin_threads() {
#ifdef __linux__
  cpu_set_t first, rest;
  sched_getaffinity(0, sizeof rest, &rest);
  if (CPU_COUNT(&rest) < 2) return;
  int core = 0;
  while (!CPU_ISSET(core, &rest)) ++core;
  CPU_ZERO(&first);
  CPU_SET(core, &first);
  CPU_CLR(core, &rest);
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    const int thread = std::stoi(entry.path().filename());
    sched_setaffinity(thread, sizeof first, thread == getpid() ? &first : &rest);
  }
#endif
}

// Starts the threads of both peers.
inline void prepare_peers(int threads, bool pin) {
  Eigen::setNbThreads(threads);
  benchmark::AddCustomContext("openblas", openblas::get(threads).version());
#pragma omp parallel num_threads(threads)
  benchmark::ClobberMemory();
  if (pin) pin_threads();
}

// Random numbers. Waits first: the threads of OpenBLAS and OpenMP look out for work some tens of milliseconds before
// they leave their core to others.
inline row_major_matrix random_matrix(Eigen::Index rows, Eigen::Index cols) {
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  std::srand(1);
  return row_major_matrix::Random(rows, cols);
}

}  // namespace bench
