// Runs one orthogonalizer on one matrix, outside of an optimizer.
#pragma once
#include <matopt/core/pass.hpp>
#include <matopt/core/state_layout.hpp>
#include <matopt/eigen.hpp>

#include "matrices.hpp"

namespace matopt::test {

// One orthogonalizer with its state, called step after step.
template <class Orthogonalizer, class T>
class stepped_orthogonalizer {
 public:
  stepped_orthogonalizer(const Orthogonalizer& o, index_t rows, index_t cols)
      : orthogonalizer_(o),
        cpu_(1),
        memory_(cpu_.allocate(std::size_t{1} << 24)),
        state_memory_(cpu_.allocate(std::size_t{1} << 22)) {
    arena a{state_memory_.data()};
    state_layout<T, T> layout(a, rows, cols, 1, false);
    lay_out(o, layout, state_);
  }
  mat operator()(const mat& m, index_t rank, double tail = 1) {
    stored<T> x(m.rows, m.cols);
    x.fill([&](index_t i, index_t j, index_t) { return m(i, j); });
    arena scratch{memory_.data()};
    ++numbers_.counter;
    numbers_.tail = static_cast<T>(tail);
    pass<eigen_backend, T> e(cpu_, scratch, nullptr, &numbers_, 1, rank);
    detail::orthogonalize(orthogonalizer_, e, state_, x.v());
    return to_mat(x.cv());
  }

 private:
  Orthogonalizer orthogonalizer_;
  eigen_backend cpu_;
  eigen_backend::buffer memory_, state_memory_;
  state_for<Orthogonalizer, T, T> state_{};
  step_numbers<T> numbers_{};
};

template <class T = double, class Orthogonalizer>
mat orthogonalized(const Orthogonalizer& o, const mat& m, index_t rank = 0, double tail = 1) {
  stepped_orthogonalizer<Orthogonalizer, T> run(o, m.rows, m.cols);
  return run(m, rank > 0 ? rank : std::min(m.rows, m.cols), tail);
}

}  // namespace matopt::test
