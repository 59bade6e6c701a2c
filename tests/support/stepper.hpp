// An optimizer of one double matrix, with its weight, gradient and state within reach.
#pragma once
#include <matopt/eigen.hpp>
#include <matopt/optimizer.hpp>

#include "matrices.hpp"

namespace matopt::test {

template <class Rule, class T = double>
class stepper {
 public:
  stepper(const Rule& rule, const mat& w0, const parameter_options& o = {})
      : w_(w0.rows, w0.cols), g_(w0.rows, w0.cols), opt_(cpu_, rule) {
    w_.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
    opt_.add("w", w_.v(), g_.cv(), o);
    opt_.finalize();
  }
  const mat& step(const mat& g, double lr) {
    g_.fill([&](index_t i, index_t j, index_t) { return g(i, j); });
    opt_.step(lr);
    return now_ = to_mat(w_.cv());
  }
  mat weight() const { return to_mat(w_.cv()); }
  // The state called `name`, to read and write.
  view<T> state(const std::string& name) {
    for (const auto& s : opt_.state_tensors())
      if (s.name == "w." + name) return {static_cast<T*>(s.data), s.rows, s.cols, s.row_stride, s.col_stride};
    throw std::runtime_error("no state " + name);
  }
  auto& optimizer() { return opt_; }

 private:
  eigen_backend cpu_{1};
  stored<T> w_, g_;
  matopt::optimizer<Rule, eigen_backend, types<T>> opt_;
  mat now_{};
};

inline double row_norm_of(const mat& w, index_t i) {
  double n = 0;
  for (index_t j = 0; j < w.cols; ++j) n += w(i, j) * w(i, j);
  return std::sqrt(n);
}

}  // namespace matopt::test
