// What the benchmark programs share. The same source is compiled by the C++ compiler to measure eigen_backend and by
// nvcc to measure cuda_backend: `bench::device` is the one or the other.
//
// A case is named subject/key:value/key:value..., so that bench/report can join ours with the peers'. Its time is the
// mean over the repeats, as Google Benchmark has it; the counters have
//   median_ms, best_ms, mean_ms, worst_ms    of one repeat
//   flops, bytes          of the algorithm, as counting_backend counts them or as the subject says
//   flops_per_s, bytes_per_s, fraction_of_peak (measured in the same run), fraction_of_bandwidth
#pragma once
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "counting_backend.hpp"
#include "options.hpp"
#ifdef __CUDACC__
#include "device_cuda.cuh"
#else
#include "device_eigen.hpp"
#endif

namespace bench {

using matopt::index_t;

// Memory of `count` elements, filled with normal random numbers.
template <class T>
class numbers {
 public:
  numbers(index_t rows, index_t cols, index_t batch, std::uint64_t seed)
      : memory_(device::memory(static_cast<std::size_t>(rows * cols * batch) * sizeof(T))),
        v_(matopt::row_major(reinterpret_cast<T*>(memory_.data()), rows, cols, batch)) {
    auto counter = device::memory(sizeof(std::uint32_t));
    const matopt::view<const std::uint32_t> zero{reinterpret_cast<const std::uint32_t*>(counter.data()), 1, 1, 1, 1};
    if constexpr (matopt::storage_only<T>) {
      const numbers<float> drawn(rows, cols, batch, seed);
      device::the_backend().for_each(nullptr, matopt::fn::assign{}, v_, as_const(drawn.v()));
      device::wait();
    } else {
      device::the_backend().random_normal(nullptr, v_, seed, zero);
    }
    device::wait();
  }
  const matopt::view<T>& v() const { return v_; }

 private:
  typename device::backend::buffer memory_;
  matopt::view<T> v_;
};

// --- the machine's measured peaks ---

struct peaks {
  std::map<std::string, double> flops;  // by element type, FLOP/s
  double bytes = 0;                     // per second
};
inline peaks& measured() {
  static peaks p;
  return p;
}
inline void measure_peaks() {
  device::elements::each([]<class T>(T) { measured().flops[element_name<T>] = device::peak<T>(); });
  measured().bytes = device::bandwidth();
}

// --- cases ---

// Google Benchmark calls a case several times until it has run long enough. What the case needs is kept meanwhile, and
// dropped when another case asks for something else.
struct kept_thing {
  std::string name;
  std::shared_ptr<void> thing;
};
inline kept_thing& last_kept() {
  static kept_thing last;
  return last;
}
template <class Fixture, class Make>
Fixture& kept(const std::string& name, Make make) {
  kept_thing& last = last_kept();
  if (last.name != name || !last.thing) {
    last = {};  // first, so that both need not fit
    last = {name, std::shared_ptr<Fixture>(make())};
  }
  return *static_cast<Fixture*>(last.thing.get());
}

// Runs what Google Benchmark asks for. `run` does the work `at_once` times.
template <class Run>
void measure(benchmark::State& state, Run run, int at_once = 1) {
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(device::seconds(run) / at_once);
    state.SetIterationTime(times.back());
  }
  if (times.empty()) return;
  std::sort(times.begin(), times.end());
  state.counters["median_ms"] = 1e3 * times[times.size() / 2];
  state.counters["best_ms"] = 1e3 * times.front();
  state.counters["worst_ms"] = 1e3 * times.back();
  state.counters["mean_ms"] =
      1e3 * std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
}

// What the case did in one iteration, and on which element type its products ran (empty: no peak to compare with).
inline void count(benchmark::State& state, const work& w, const std::string& element) {
  using benchmark::Counter;
  const auto rate = [](double per_iteration) { return Counter(per_iteration, Counter::kIsIterationInvariantRate); };
  state.counters["bytes"] = w.bytes;
  state.counters["bytes_per_s"] = rate(w.bytes);
  if (measured().bytes > 0) state.counters["fraction_of_bandwidth"] = rate(w.bytes / measured().bytes);
  if (w.flops == 0) return;
  state.counters["flops"] = w.flops;
  state.counters["flops_per_s"] = rate(w.flops);
  const auto peak = measured().flops.find(element);
  if (peak != measured().flops.end()) state.counters["fraction_of_peak"] = rate(w.flops / peak->second);
}

// What goes wrong in a case ends the case, not the program.
template <class Case>
benchmark::internal::Benchmark* add(const std::string& name, Case one) {
  return benchmark::RegisterBenchmark(name.c_str(),
                                      [one](benchmark::State& state) {
                                        try {
                                          one(state);
                                        } catch (const std::exception& e) {
                                          last_kept() = {};
                                          state.SkipWithError(e.what());
                                        }
                                      })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

// The whole of main().
template <class Register>
int run(int argc, char** argv, Register add_cases) {
  try {
    take_options(argc, argv);
    bool lists = false, min_time = false;
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      lists |= argument.starts_with("--benchmark_list_tests");
      min_time |= argument.starts_with("--benchmark_min_time");
    }
    std::vector<char*> arguments(argv, argv + argc);
    std::string shorter = "--benchmark_min_time=0.05";
    if (!min_time) arguments.push_back(shorter.data());
    argc = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    benchmark::Initialize(&argc, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(argc, arguments.data())) return 2;
    benchmark::AddCustomContext("backend", device::name);
    if (!lists) {
      benchmark::AddCustomContext("kernels", device::the_backend().describe());
      for (const auto& [key, value] : device::description()) benchmark::AddCustomContext(key, value);
      measure_peaks();
      for (const auto& [element, peak] : measured().flops)
        benchmark::AddCustomContext("peak_flops_" + element, std::to_string(peak));
      benchmark::AddCustomContext("peak_bytes", std::to_string(measured().bytes));
    }
    add_cases();
    benchmark::RunSpecifiedBenchmarks();
    last_kept() = {};
    benchmark::Shutdown();
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}

}  // namespace bench
