// truncation: a weight W (m x n; rows = fan-out) decomposed once, to be cut to any rank.
//
//   W S = U diag(s) V^T      at(k):  left = U_k diag(s_k)^1/2      right = diag(s_k)^1/2 V_k^T S^-1
//
//   plain      S = 1                      least ||W - W'||_F (Eckart, Young)
//   asvd       S = Diag(a^alpha + 1e-6)   a_j = mean |x_j|: ASVD (arXiv 2312.05821), alpha 0.5
//   whitened   S S^T = H = sum x x^T      least ||(W - W') X||_F: SVD-LLM (arXiv 2403.07378)
//
// SVD-LLM, where the official code adds an absolute ridge after a failure, adds a relative one: H + ridge mean(diag H)
// 1, with ridge 0 first and then 1e-6, 1e-5, ... until the double Cholesky factor exists and has no pivot below 1e-14
// of the largest; the ridge is reported. H may be the sum over any number of inputs: its scale does not matter.
// Everything is in double on the host. Errors: bad_value for a rank outside [1, min(m, n)], wrong shapes, entries that
// are not finite, a zero H.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../core/thin_svd.hpp"
#include "factored.hpp"

namespace MATOPT_NAMESPACE {

class truncation {
 public:
  template <class B, class T>
  static truncation plain(B& backend, const view<T>& weight) {
    return truncation(thin_svd::of(backend, dense<double>(weight)), 0);
  }

  // `magnitude`: mean |x_j| of each of the n inputs.
  template <class B, class T>
  static truncation asvd(B& backend, const view<T>& weight, const std::vector<double>& magnitude, double alpha = 0.5) {
    if (static_cast<index_t>(magnitude.size()) != weight.cols)
      throw bad_value("magnitude", std::to_string(magnitude.size()) + " numbers",
                      std::to_string(weight.cols) + ", the columns of the weight");
    dense<double> w(weight);
    std::vector<double> scale;
    for (const double a : magnitude) {
      if (!(a >= 0) || !math::finite(a)) throw bad_value("magnitude", detail::text(a), "finite and >= 0");
      scale.push_back(std::pow(a, alpha) + 1e-6);
    }
    for (index_t i = 0; i < w.rows(); ++i)
      for (index_t j = 0; j < w.cols(); ++j) w(i, j) *= scale[static_cast<std::size_t>(j)];
    truncation t(thin_svd::of(backend, w), 0);
    for (index_t j = 0; j < w.cols(); ++j)
      for (index_t r = 0; r < t.svd_.v.cols(); ++r) t.svd_.v(j, r) /= scale[static_cast<std::size_t>(j)];
    return t;
  }

  // `gram`: H = sum of x x^T over the inputs x, n x n.
  template <class B, class T, class U>
  static truncation whitened(B& backend, const view<T>& weight, const view<U>& gram) {
    const index_t n = weight.cols;
    if (gram.rows != n || gram.cols != n)
      throw bad_value("gram", std::to_string(gram.rows) + "x" + std::to_string(gram.cols),
                      std::to_string(n) + "x" + std::to_string(n));
    double ridge = 0;
    const dense<double> s = factor(backend, gram, ridge), w(weight);
    dense<double> ws(w.rows(), n);
    backend.gemm(nullptr, 1.0, w.view(), s.view(), 0.0, std::as_const(ws).view(), ws.view());
    truncation t(thin_svd::of(backend, ws), ridge);
    backend.solve_lower(nullptr, s.view(), t.svd_.v.view(), true);  // V^T S^-1 = (S^-T V)^T
    return t;
  }

  factored at(index_t k) const {
    const index_t q = svd_.s.rows();
    if (k < 1 || k > q) throw bad_value("rank", std::to_string(k), "[1, " + std::to_string(q) + "]");
    factored f{dense<double>(svd_.u.rows(), k), dense<double>(k, svd_.v.rows()), ridge_};
    for (index_t r = 0; r < k; ++r) {
      const double root = std::sqrt(svd_.s(r, 0));
      for (index_t i = 0; i < svd_.u.rows(); ++i) f.left(i, r) = svd_.u(i, r) * root;
      for (index_t j = 0; j < svd_.v.rows(); ++j) f.right(r, j) = svd_.v(j, r) * root;
    }
    return f;
  }

 private:
  truncation(thin_svd d, double ridge) : svd_(std::move(d)), ridge_(ridge) {}

  // Lower L with L L^T = H + ridge mean(diag H) 1, for the least ridge that makes it well-defined.
  template <class B, class U>
  static dense<double> factor(B& backend, const view<U>& gram, double& ridge) {
    const index_t n = gram.rows;
    double mean = 0;
    for (index_t i = 0; i < n; ++i) mean += static_cast<double>(gram(i, i)) / static_cast<double>(n);
    if (!(mean > 0) || !math::finite(mean))
      throw bad_value("mean of the diagonal of gram", detail::text(mean), "finite and > 0");
    for (;; ridge = ridge > 0 ? ridge * 10 : 1e-6) {
      if (ridge > 1) throw bad_value("gram", "not positive semi-definite", "a sum of x x^T");
      dense<double> s(gram);
      for (index_t i = 0; i < n; ++i) s(i, i) += ridge * mean;
      status_word failed = 0;
      backend.cholesky(nullptr, s.view(), row_major(&failed, 1, 1));
      double largest = 0, least = s(0, 0) * s(0, 0);
      for (index_t i = 0; i < n; ++i) {
        const double pivot = s(i, i) * s(i, i);
        largest = std::max(largest, pivot);
        least = pivot < least ? pivot : least;
      }
      if (!failed && least >= 1e-14 * largest) return s;
    }
  }

  thin_svd svd_;  // v already multiplied by S^-T
  double ridge_;
};

// ||(W - W') X||_F from H = X X^T: what a layer's output loses on the inputs behind H.
template <class T, class U, class V>
double output_loss(const view<T>& weight, const view<U>& approximation, const view<V>& gram) {
  double sum = 0;
  std::vector<double> e(static_cast<std::size_t>(weight.cols));
  for (index_t i = 0; i < weight.rows; ++i) {
    for (index_t j = 0; j < weight.cols; ++j)
      e[static_cast<std::size_t>(j)] = static_cast<double>(weight(i, j)) - static_cast<double>(approximation(i, j));
    for (index_t j = 0; j < weight.cols; ++j)
      for (index_t l = 0; l < weight.cols; ++l)
        sum += e[static_cast<std::size_t>(j)] * static_cast<double>(gram(j, l)) * e[static_cast<std::size_t>(l)];
  }
  return std::sqrt(std::max(0.0, sum));
}

}  // namespace MATOPT_NAMESPACE
