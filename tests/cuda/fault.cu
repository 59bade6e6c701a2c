// After a fault in a kernel of the calling program CUDA is lost for the whole process: what is called next throws a
// cuda_error that names its verb, recorded steps and eager ones alike, and all objects can be destroyed.
#include <matopt/adamw.hpp>
#include <matopt/cuda.cuh>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/engine/any_optimizer.hpp>

#include "../support/expect.hpp"

using namespace matopt;
using namespace matopt::test;

__global__ void write_to(int* p) { *p = 1; }

int main() {
  cudaStream_t stream = nullptr;
  cuda::check(cudaStreamCreate(&stream), "create a stream");
  {
    cuda_backend gpu(stream);
    cuda_backend::buffer w = gpu.allocate(64 * sizeof(float)), g = gpu.allocate(64 * sizeof(float));
    any_optimizer<cuda_backend> opt(gpu, adamw{}), unfinished(gpu, adamw{});
    const auto weight = row_major(reinterpret_cast<float*>(w.data()), 8, 8);
    const auto gradient = row_major<const float>(reinterpret_cast<const float*>(g.data()), 8, 8);
    opt.add("w", weight, gradient), unfinished.add("w", weight, gradient);
    opt.finalize();
    cuda::captured_step fast(opt);
    for (int t = 0; t < 4; ++t) fast.step(0.1);
    expect(opt.poll_status().skipped == 0, "steps before the fault are good");

    write_to<<<1, 1, 0, stream>>>(reinterpret_cast<int*>(std::uintptr_t{64}));
    // The launch itself is good; when CUDA tells of the fault depends on when the kernel runs, but poll_status() waits.
    std::string text = error_of<cuda_error>([&] { opt.step(0.1), opt.poll_status(); });
    std::puts(text.c_str());
    expect_words(text, "matopt: CUDA: ");
    expect_words(text, "illegal memory access");
    bool names_a_verb = false;
    for (const char* verb : {"upload", "for_each", "reduce", "download", "synchronize"})
      names_a_verb |= text.find(std::string("CUDA: ") + verb + ": ") != std::string::npos;
    expect(names_a_verb, "the verb in \"" + text + '"');

    // From now on nothing works, and nothing pretends to.
    const auto throws = [](const char* what, auto call) {
      expect(!error_of<cuda_error>(call).empty(), std::string(what) + " after a fault throws a cuda_error");
    };
    throws("step", [&] { opt.step(0.1); });
    throws("a recorded step", [&] { fast.step(0.1); });
    throws("poll_status", [&] { opt.poll_status(); });
    throws("allocate", [&] { gpu.allocate(1024); });
    throws("finalize", [&] { unfinished.finalize(); });
    throws("a new backend", [&] { cuda_backend another(stream); });
    any_optimizer<cuda_backend> moved(std::move(opt));
  }  // and here all is destroyed
  cudaStreamDestroy(stream);
  std::puts("destroyed");
  return failures;
}
