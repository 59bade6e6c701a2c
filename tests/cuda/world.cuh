// The GPU for tests/training/checks.hpp: eager steps, and recorded ones.
#pragma once
#include <matopt/cuda/captured_step.cuh>

#include "../training/checks.hpp"
#include "device.cuh"

namespace matopt::test {

struct gpu_world {
  using backend = cuda_backend;
  stream s;
  backend b{s.s};

  template <class T>
  struct matrix : on_device<T> {
    matrix(gpu_world& world, index_t rows, index_t cols, layout l = layout::row_major, index_t batch = 1)
        : on_device<T>(world.b, rows, cols, l, batch) {}
  };
  template <class Optimizer>
  using stepping = cpu_world::stepping<Optimizer>;
};

struct recorded_world : gpu_world {
  template <class Optimizer>
  class stepping {
   public:
    explicit stepping(Optimizer& opt) : recorded_(opt) {}
    template <class... A>
    void operator()(A... numbers) {
      recorded_.step(numbers...);
    }

   private:
    cuda::captured_step<Optimizer> recorded_;
  };
};

}  // namespace matopt::test
