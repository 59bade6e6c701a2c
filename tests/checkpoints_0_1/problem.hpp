// The two matrices that the checkpoints of version 0.1 are of, and their gradients. The program that wrote these files
// and the test that loads them share it, so it uses only what both versions have.
#pragma once
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <matopt/core/view.hpp>

namespace matopt::test {

template <class T>
struct old_problem {
  struct matrix {
    std::string name;
    index_t rows, cols;
    bool column_major;
    std::vector<T> w, g, r;  // weight, gradient, reference gradient

    matrix(const std::string& n, index_t m, index_t k, bool by_columns)
        : name(n), rows(m), cols(k), column_major(by_columns), w(static_cast<std::size_t>(m * k)), g(w), r(w) {
      for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<T>(std::sin(1.7 * static_cast<double>(i) + 0.3));
    }
    view<T> of(std::vector<T>& x) const {
      return column_major ? col_major(x.data(), rows, cols) : row_major(x.data(), rows, cols);
    }
  };
  std::vector<matrix> matrices{{"a", 4, 3, false}, {"b", 2, 5, true}};

  template <class Optimizer>
  void add_to(Optimizer& opt) {
    for (matrix& m : matrices) {
      const view<const T> g = as_const(m.of(m.g)), r = as_const(m.of(m.r));
      if (opt.needs_reference())
        opt.add(m.name, m.of(m.w), g, r);
      else
        opt.add(m.name, m.of(m.w), g);
    }
    opt.finalize();
  }
  template <class Optimizer>
  void step(Optimizer& opt, double lr, int t) {
    for (matrix& m : matrices)
      for (std::size_t i = 0; i < m.g.size(); ++i) {
        const double phase = 0.9 * static_cast<double>(i) + 2.3 * t, scale = 1 + 0.5 * std::cos(0.4 * t);
        m.g[i] = static_cast<T>(scale * std::cos(phase));
        m.r[i] = static_cast<T>(scale * std::cos(phase + 0.2));
      }
    opt.step(lr);
  }
};

}  // namespace matopt::test
