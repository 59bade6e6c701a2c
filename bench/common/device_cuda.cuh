// A GPU as a device to measure on: cuda_backend, work recorded as a graph and replayed, time between two events.
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <matopt/cuda.cuh>
#include <matopt/cuda/captured_step.cuh>
#include <string>
#include <utility>

#include "elements.hpp"
#include "options.hpp"

namespace bench {

template <class T>
class numbers;

struct device {
  using backend = matopt::cuda_backend;
  using elements = element_list<matopt::float16, matopt::bfloat16, matopt::tfloat32, float, double>;
  static constexpr bool is_gpu = true;
  static constexpr const char* name = "cuda";

  // Lives as long as the program: what is freed after the driver's own end would only complain.
  static backend& the_backend() {
    static backend* const b = [] {
      cudaStream_t stream = nullptr;
      int count = 0;  // a missing device is told by the backend, better than by the stream
      if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0)
        matopt::cuda::check(cudaStreamCreate(&stream), "create a stream");
      return new backend(stream);
    }();
    return *b;
  }
  static backend::buffer memory(std::size_t bytes) { return the_backend().allocate(bytes); }

  static void wait() { the_backend().synchronize(); }
  template <class Call>
  static double seconds(Call&& call) {
    using matopt::cuda::check;
    static const event begin, end;
    const cudaStream_t stream = the_backend().stream();
    check(cudaEventRecord(begin.handle, stream), "record an event");
    call();
    check(cudaEventRecord(end.handle, stream), "record an event");
    check(cudaEventSynchronize(end.handle), "wait for an event");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin.handle, end.handle), "read an event");
    return static_cast<double>(ms) / 1e3;
  }

  class recorded {
   public:
    // The first run is not recorded: it loads kernels and chooses algorithms.
    explicit recorded(const std::function<void()>& work) {
      using matopt::cuda::check;
      const cudaStream_t stream = the_backend().stream();
      work();
      wait();
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "record");
      cudaGraph_t graph = nullptr;
      try {
        work();
      } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        if (graph) cudaGraphDestroy(graph);
        throw;
      }
      check(cudaStreamEndCapture(stream, &graph), "record");
      const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
      cudaGraphDestroy(graph);
      check(status, "record");
    }
    recorded(recorded&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
    recorded& operator=(recorded&&) = delete;
    ~recorded() {
      if (graph_) cudaGraphExecDestroy(graph_);
    }
    void operator()() { matopt::cuda::check(cudaGraphLaunch(graph_, the_backend().stream()), "launch a graph"); }

   private:
    cudaGraphExec_t graph_ = nullptr;
  };
  template <class Optimizer>
  class stepper {
   public:
    explicit stepper(Optimizer& opt) : fast_(opt) {}
    void step(double lr) { fast_.step(lr); }
    std::size_t launches() const { return fast_.nodes().empty() ? 0 : static_cast<std::size_t>(fast_.nodes().back()); }

   private:
    matopt::cuda::captured_step<Optimizer> fast_;
  };

  // FLOP/s of a product of 8192 x 8192 matrices.
  template <class T>
  static double peak() {
    constexpr matopt::index_t n = 8192;
    const numbers<T> a(n, n, 1, 1), b(n, n, 1, 2), d(n, n, 1, 3);
    const auto multiply = [&] { the_backend().template gemm<T>(nullptr, 1, a.v(), b.v(), 0, d.v(), d.v()); };
    multiply();
    double best = 1e9;
    for (int i = 0; i < 8; ++i) best = std::min(best, seconds(multiply));
    return 2.0 * n * n * n / best;
  }
  // Bytes per second, read and written, of a copy on the device.
  static double bandwidth() {
    constexpr std::size_t bytes = std::size_t{2} << 30;
    const backend::buffer from = memory(bytes), to = memory(bytes);
    double best = 1e9;
    for (int i = 0; i < 8; ++i)
      best = std::min(best, seconds([&] {
                        matopt::cuda::check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice,
                                                            the_backend().stream()),
                                            "copy");
                      }));
    return 2.0 * static_cast<double>(bytes) / best;
  }
  static std::map<std::string, std::string> description() {
    cudaDeviceProp p{};
    matopt::cuda::check(cudaGetDeviceProperties(&p, the_backend().device()), "describe the device");
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver), cudaRuntimeGetVersion(&runtime);
    return {{"device", p.name},
            {"memory_gib", std::to_string(p.totalGlobalMem >> 30)},
            {"cuda_driver", std::to_string(driver)},
            {"cuda_runtime", std::to_string(runtime)},
            {"cublaslt", std::to_string(cublasLtGetVersion())}};
  }

 private:
  struct event {
    cudaEvent_t handle = nullptr;
    event() { matopt::cuda::check(cudaEventCreate(&handle), "create an event"); }
  };
};

}  // namespace bench
