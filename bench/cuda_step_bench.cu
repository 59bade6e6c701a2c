// Whole optimizer steps on the GPU over the matrices of a model: recorded once, replayed, timed by events.
//
//   cuda_step_bench --benchmark_filter=gpt2_124m [--benchmark_out=FILE --benchmark_out_format=json]
//
// Counters: the optimizer's memory beyond weights and gradients in MiB, and the launches of a step. Weights, gradients
// and state are float; gradients are normal random numbers. Google Benchmark's time is the mean over the repeats of a
// case; ask for the median by --benchmark_repetitions.
#include <benchmark/benchmark.h>

#include <map>
#include <matopt/adamw.hpp>
#include <matopt/cuda.cuh>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/moonlight.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_vs.hpp>
#include <matopt/muown.hpp>
#include <matopt/normuon.hpp>
#include <matopt/numuon.hpp>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace matopt;

struct group {
  index_t count, rows, cols;
};
const std::map<std::string, std::vector<group>> models{
    {"gpt2_124m", {{48, 768, 768}, {12, 3072, 768}, {12, 768, 3072}}},
    {"gpt2_350m", {{96, 1024, 1024}, {24, 4096, 1024}, {24, 1024, 4096}}},
    {"llama_1b", {{64, 2048, 2048}, {32, 7168, 2048}, {16, 2048, 7168}}},
    {"many_tiny", {{512, 64, 64}, {256, 128, 32}}},
};

// The caller's matrices, on the device.
class matrices {
 public:
  matrices(cuda_backend& gpu, const std::vector<group>& model) : model_(model) {
    index_t total = 0;
    for (const group& g : model) total += g.count * g.rows * g.cols;
    weights_ = gpu.allocate(static_cast<std::size_t>(total) * sizeof(float));
    gradients_ = gpu.allocate(static_cast<std::size_t>(total) * sizeof(float));
    counter_ = gpu.allocate(sizeof(std::uint32_t));
    const view<const std::uint32_t> zero{reinterpret_cast<const std::uint32_t*>(counter_.data()), 1, 1, 1, 1};
    for (auto [memory, seed] : {std::pair{&weights_, 1}, {&gradients_, 2}})
      gpu.random_normal(nullptr, row_major(reinterpret_cast<float*>(memory->data()), 1, total),
                        static_cast<std::uint64_t>(seed), zero);
  }
  template <class Optimizer>
  void add_to(Optimizer& opt) {
    float* w = reinterpret_cast<float*>(weights_.data());
    float* g = reinterpret_cast<float*>(gradients_.data());
    for (std::size_t i = 0; i < model_.size(); ++i) {
      const auto [count, rows, cols] = model_[i];
      opt.add("w" + std::to_string(i), row_major(w, rows, cols, count), row_major<const float>(g, rows, cols, count));
      w += count * rows * cols, g += count * rows * cols;
    }
  }

 private:
  std::vector<group> model_;
  cuda_backend::buffer weights_, gradients_, counter_;
};

template <class Rule>
void step(benchmark::State& state, const std::vector<group>& model, const Rule& rule) {
  cudaStream_t stream = nullptr;
  cuda::check(cudaStreamCreate(&stream), "create a stream");
  {
    cuda_backend gpu(stream);
    matrices all(gpu, model);
    any_optimizer<cuda_backend> opt(gpu, rule);
    all.add_to(opt);
    state.counters["MiB"] = static_cast<double>(opt.memory().total()) / (1 << 20);
    opt.finalize();
    cuda::captured_step fast(opt);
    for (int i = 0; i < 4; ++i) fast.step(1e-3);
    cudaEvent_t begin = nullptr, end = nullptr;
    cudaEventCreate(&begin), cudaEventCreate(&end);
    for (auto _ : state) {
      cudaEventRecord(begin, stream);
      fast.step(1e-3);
      cudaEventRecord(end, stream);
      cuda::check(cudaEventSynchronize(end), "wait for a step");
      float ms = 0;
      cudaEventElapsedTime(&ms, begin, end);
      state.SetIterationTime(static_cast<double>(ms) / 1e3);
    }
    cudaEventDestroy(begin), cudaEventDestroy(end);
    if (!fast.nodes().empty()) state.counters["launches"] = static_cast<double>(fast.nodes().back());
    if (!opt.poll_status()) state.SkipWithError("a gradient was not finite");
  }
  cudaStreamDestroy(stream);
}

template <class Rule>
void add(const std::string& name, const Rule& rule) {
  for (const auto& [model, groups] : models)
    benchmark::RegisterBenchmark((model + "/" + name).c_str(),
                                 [groups = groups, rule](benchmark::State& s) { step(s, groups, rule); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  muon standard;
  standard.orthogonalizer.form = newton_schulz_form::standard;
  numuon quarter;
  quarter.constraint.rank = {.start = 0.25, .end = 0.25, .hold = 0, .total = 1};
  add("muon", muon{});
  add("muon_standard_form", standard);
  add("muon_bfloat16", muon::with_orthogonalizer<newton_schulz<bfloat16>>{});
  add("muon_tfloat32", muon::with_orthogonalizer<newton_schulz<tfloat32>>{});
  add("moonlight", moonlight{});
  add("normuon", normuon{});
  add("muown", muown{});
  add("muon_vs", muon_vs{});
  add("adamw", adamw{});
  add("numuon_rank_quarter", quarter);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
