// What tests of training runs need of a backend, so that they are written once for the CPU and the GPU: matrices that
// the backend can reach, and ways to step an optimizer (on a GPU also by recorded steps).
#pragma once
#include <memory>

#include <matopt/eigen.hpp>

#include "../support/matrices.hpp"

namespace matopt::test {

struct cpu_world {
  using backend = eigen_backend;
  backend b{2};

  template <class T>
  class matrix {
   public:
    matrix(cpu_world&, index_t rows, index_t cols, layout l = layout::row_major, index_t batch = 1)
        : host(rows, cols, l, batch) {}
    view<T> v() { return host.v(); }
    view<const T> cv() { return host.cv(); }
    void up() {}
    void down() {}
    stored<T> host;
  };

  // Steps an optimizer; the arguments are those of its step().
  template <class Optimizer>
  class stepping {
   public:
    explicit stepping(Optimizer& opt) : opt_(&opt) {}
    template <class... A>
    void operator()(A... numbers) {
      opt_->step(numbers...);
    }

   private:
    Optimizer* opt_;
  };
};

}  // namespace matopt::test
