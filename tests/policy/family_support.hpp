// What the tests of the family share: an optimizer of one matrix under a rule chosen at run time, and the formulas once
// more, in double and without the library.
#pragma once
#include <memory>
#include <vector>

#include <matopt/eigen.hpp>
#include <matopt/engine/any_optimizer.hpp>
#include <matopt/policy/constraint/decoupled_decay.hpp>
#include <matopt/policy/normalizer/no_normalizer.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/scale/scale.hpp>

#include "support/matrices.hpp"

namespace matopt::test {

struct matrix_shape {
  index_t m, n;
};
inline constexpr matrix_shape family_shapes[] = {{5, 5}, {4, 7}, {7, 4}, {1, 6}, {6, 1}};

inline double as_double(index_t n) { return static_cast<double>(n); }
inline double root(double x) { return std::sqrt(x); }

// A momentum alone: with the learning rate 1 the weight moves by its direction.
template <class Momentum>
using only = rule<Momentum, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale>;

template <class T = double>
class runner {
 public:
  template <class Rule>
  runner(const Rule& rule, const mat& w0)
      : w_(w0.rows, w0.cols), g_(w0.rows, w0.cols), r_(w0.rows, w0.cols), opt_(cpu_, rule) {
    put(w_, w0);
    opt_.add("w", w_.v(), g_.cv(), r_.cv());  // a rule of one gradient does not look at the other
    opt_.finalize();
  }
  // One step; the weight after it.
  mat step(const mat& g, double lr = 1) {
    put(g_, g);
    opt_.step(lr);
    return weight();
  }
  mat step(const mat& g, const mat& reference, double lr) {
    put(r_, reference);
    return step(g, lr);
  }
  // One step; how far the weight went down.
  mat update(const mat& g, double lr = 1) {
    const mat before = weight();
    return before - step(g, lr);
  }
  mat weight() const { return to_mat(w_.cv()); }
  view<T> state(const std::string& name) {
    for (const auto& s : opt_.state_tensors())
      if (s.name == "w." + name) return {static_cast<T*>(s.data), s.rows, s.cols, s.row_stride, s.col_stride};
    throw std::runtime_error("no state " + name);
  }
  mat state_matrix(const std::string& name) { return to_mat(state(name)); }
  any_optimizer<eigen_backend, types<T>>& optimizer() { return opt_; }

 private:
  static void put(stored<T>& to, const mat& from) {
    to.fill([&](index_t i, index_t j, index_t) { return from(i, j); });
  }
  eigen_backend cpu_{1};
  stored<T> w_, g_, r_;
  any_optimizer<eigen_backend, types<T>> opt_;
};

// --- elementwise ---
template <class F>
mat mapped(mat x, F f) {
  for (auto& e : x.a) e = f(e);
  return x;
}
template <class F>
mat mapped(mat x, const mat& y, F f) {
  for (std::size_t i = 0; i < x.a.size(); ++i) x.a[i] = f(x.a[i], y.a[i]);
  return x;
}
inline mat signs(const mat& x) {
  return mapped(x, [](double e) { return e > 0 ? 1.0 : e < 0 ? -1.0 : 0.0; });
}
inline mat squares(const mat& x) {
  return mapped(x, [](double e) { return e * e; });
}
inline double row_length(const mat& x, index_t i) {
  double s = 0;
  for (index_t j = 0; j < x.cols; ++j) s += x(i, j) * x(i, j);
  return std::sqrt(s);
}
inline double column_length(const mat& x, index_t j) { return row_length(transposed(x), j); }
template <class F>
mat by_row(mat x, F f) {  // row i times f(its norm)
  for (index_t i = 0; i < x.rows; ++i) {
    const double c = f(row_length(x, i));
    for (index_t j = 0; j < x.cols; ++j) x(i, j) *= c;
  }
  return x;
}
template <class F>
mat by_column(const mat& x, F f) {
  return transposed(by_row(transposed(x), f));
}
inline double rms(const mat& x) { return frobenius(x) / std::sqrt(static_cast<double>(x.a.size())); }

// --- orthogonalizers ---
inline mat polar(const mat& x) { return top_k_polar(x, std::min(x.rows, x.cols)); }
// Five quintic steps with Keller's coefficients, the norm made larger by eps.
inline mat keller(const mat& input, double eps = 1e-7) {
  if (input.rows > input.cols) return transposed(keller(transposed(input), eps));
  const double n = frobenius(input);
  mat x = n > 0 ? 1 / (n + eps) * input : input;
  for (int k = 0; k < 5; ++k) {
    const mat a = x * transposed(x);
    x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a * a)) * x;
  }
  return x;
}
// Orthonormal columns with the span of x's: Gram-Schmidt, twice.
inline mat orthonormal(mat q) {
  for (index_t j = 0; j < q.cols; ++j)
    for (int round = 0; round < 2; ++round) {
      for (index_t k = 0; k < j; ++k) {
        double along = 0;
        for (index_t i = 0; i < q.rows; ++i) along += q(i, k) * q(i, j);
        for (index_t i = 0; i < q.rows; ++i) q(i, j) -= along * q(i, k);
      }
      const double n = column_length(q, j);
      for (index_t i = 0; i < q.rows; ++i) q(i, j) /= n;
    }
  return q;
}

// --- scales ---
inline double fan(const mat& x) { return std::sqrt(std::max(1.0, as_double(x.rows) / as_double(x.cols))); }
inline double matched(const mat& x) { return 0.2 * std::sqrt(as_double(std::max(x.rows, x.cols))); }

template <class F>
void for_shapes(F f) {  // f(w0, seed)
  for (const matrix_shape s : family_shapes)
    for (const std::uint64_t seed : {1U, 2U, 3U}) f(random_mat(s.m, s.n, 100 * seed), 1000 * seed);
}

}  // namespace matopt::test
