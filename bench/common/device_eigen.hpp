// The CPU as a device to measure on: eigen_backend, wall time.
#pragma once
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <matopt/eigen.hpp>
#include <memory>
#include <string>

#include "elements.hpp"
#include "options.hpp"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace bench {

struct device {
  using backend = matopt::eigen_backend;
  using elements = element_list<float, matopt::bfloat16, double>;
  static constexpr bool is_gpu = false;
  static constexpr const char* name = "cpu";

  static backend& the_backend() {
    static backend b(chosen().threads);
    return b;
  }
  static backend::buffer memory(std::size_t bytes) { return the_backend().allocate(bytes); }

  // Seconds that `call` takes.
  template <class Call>
  static double seconds(Call&& call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  static void wait() {}

  // Work that is prepared once and then repeated.
  class recorded {
   public:
    explicit recorded(std::function<void()> work) : work_(std::move(work)) { work_(); }
    void operator()() { work_(); }

   private:
    std::function<void()> work_;
  };
  // Steps of an optimizer.
  template <class Optimizer>
  class stepper {
   public:
    explicit stepper(Optimizer& opt) : opt_(opt) {}
    void step(double lr) { opt_.step(lr); }
    std::size_t launches() const { return 0; }

   private:
    Optimizer& opt_;
  };

  // FLOP/s of multiply-adds in registers, on all threads, in the vectors that this program was compiled for. bfloat16
  // has a rate of its own only where the processor multiplies pairs of it; elsewhere it is computed with as float.
  template <class T>
  static double peak() {
    if constexpr (std::is_same_v<T, matopt::bfloat16>) {
#ifdef __AVX512BF16__
      constexpr double per_instruction = 64;
      return rate<__m512>(per_instruction, [](__m512& sum, __m512 x, __m512 y) {
        sum = _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(x), std::bit_cast<__m512bh>(y));
      });
#else
      return peak<float>();
#endif
    } else {
#if defined(__AVX512F__)
      constexpr std::size_t width = 64;
#elif defined(__AVX__)
      constexpr std::size_t width = 32;
#else
      constexpr std::size_t width = 16;
#endif
      typedef T packet __attribute__((vector_size(width)));
      return rate<packet>(2.0 * width / sizeof(T), [](packet& sum, packet x, packet y) { sum = sum * x + y; });
    }
  }
  // Bytes per second, read and written, of a copy by all threads.
  static double bandwidth() {
    constexpr std::size_t part = std::size_t{64} << 20;
    matopt::thread_pool& pool = the_backend().pool();
    const auto threads = static_cast<std::size_t>(pool.size());
    const std::unique_ptr<std::byte[]> from(new std::byte[threads * part]), to(new std::byte[threads * part]);
    std::memset(from.get(), 1, threads * part), std::memset(to.get(), 2, threads * part);
    double best = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
      const double taken = seconds([&] {
        pool.parallel_for(pool.size(), [&](matopt::index_t i) {
          std::memcpy(to.get() + static_cast<std::size_t>(i) * part, from.get() + static_cast<std::size_t>(i) * part,
                      part);
        });
      });
      best = std::max(best, 2.0 * static_cast<double>(threads * part) / taken);
    }
    return best;
  }
  static std::map<std::string, std::string> description() {
    std::map<std::string, std::string> d{
        {"threads", std::to_string(the_backend().threads())},
        {"eigen", std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
                      std::to_string(EIGEN_MINOR_VERSION)},
        {"compiler", __VERSION__},
        {"kernels", the_backend().describe()}};
    return d;
  }

 private:
  template <class Packet, class Step>
  static double rate(double flops_per_instruction, Step step) {
    constexpr int chains = 12, rounds = 200000;
    matopt::thread_pool& pool = the_backend().pool();
    double best = 0;
    for (int repeat = 0; repeat < 20; ++repeat) {
      const double taken = seconds([&] {
        pool.parallel_for(pool.size(), [&](matopt::index_t) {
          Packet sum[chains] = {}, x = Packet{} + 0.5F, y = Packet{} + 0.25F;
          for (int r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
            for (auto& s : sum) step(s, x, y);
          }
          for (auto& s : sum) benchmark::DoNotOptimize(s);
        });
      });
      best = std::max(best, flops_per_instruction * chains * rounds * pool.size() / taken);
    }
    return best;
  }
};

}  // namespace bench
