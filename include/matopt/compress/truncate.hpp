// Rank-k approximations of a weight W (m x n; rows = fan-out): plain, by input scale, and by the Gram matrix of the
// inputs.
//
//   W S = U diag(s) V^T      left = U_k diag(s_k)^1/2      right = diag(s_k)^1/2 V_k^T S^-1
//
//   truncated_svd   S = 1                      least ||W - W'||_F (Eckart, Young)
//   asvd            S = Diag(a^alpha + 1e-6)   a_j = mean |x_j|: ASVD (arXiv 2312.05821), alpha 0.5
//   svd_llm         S S^T = H = sum x x^T      least ||(W - W') X||_F: SVD-LLM whitening (arXiv 2403.07378)
//
// SVD-LLM, where the official code adds an absolute ridge after a failure, adds a relative one: H + ridge mean(diag H)
// 1, with ridge 0 first and then 1e-6, 1e-5, ... until the double Cholesky factor exists and has no pivot below 1e-14
// of the largest; the ridge is reported. H may be the sum over any number of inputs: its scale does not matter.
// Everything is in double on the host. Errors: bad_value for a rank outside [1, min(m, n)], wrong shapes, entries that
// are not finite, a zero H.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../core/thin_svd.hpp"
#include "factored.hpp"

namespace matopt {

namespace detail {

inline void check_rank(index_t k, const dense<double>& w) {
  const index_t q = std::min(w.rows(), w.cols());
  if (k < 1 || k > q) throw bad_value("rank", std::to_string(k), "[1, " + std::to_string(q) + "]");
}

// The factors of the rank-k part of `scaled` = W S; `unscale` replaces the rows y of diag(s)^1/2 V^T by y S^-1.
template <class B, class Unscale>
factored split(B& backend, const dense<double>& scaled, index_t k, Unscale unscale) {
  const thin_svd d = thin_svd::of(backend, scaled);
  factored f{dense<double>(scaled.rows(), k), dense<double>(k, scaled.cols())};
  for (index_t r = 0; r < k; ++r) {
    const double root = std::sqrt(d.s(r, 0));
    for (index_t i = 0; i < scaled.rows(); ++i) f.left(i, r) = d.u(i, r) * root;
    for (index_t j = 0; j < scaled.cols(); ++j) f.right(r, j) = d.v(j, r) * root;
  }
  unscale(f.right);
  return f;
}

}  // namespace detail

template <class B, class T>
factored truncated_svd(B& backend, const view<T>& weight, index_t k) {
  const dense<double> w(weight);
  detail::check_rank(k, w);
  return detail::split(backend, w, k, [](dense<double>&) {});
}

// `magnitude`: mean |x_j| of each of the n inputs.
template <class B, class T>
factored asvd(B& backend, const view<T>& weight, const std::vector<double>& magnitude, index_t k, double alpha = 0.5) {
  dense<double> w(weight);
  detail::check_rank(k, w);
  if (static_cast<index_t>(magnitude.size()) != w.cols())
    throw bad_value("magnitude", std::to_string(magnitude.size()) + " numbers",
                    std::to_string(w.cols()) + ", the columns of the weight");
  std::vector<double> scale;
  for (const double a : magnitude) {
    if (!(a >= 0) || !math::finite(a)) throw bad_value("magnitude", std::to_string(a), "finite and >= 0");
    scale.push_back(std::pow(a, alpha) + 1e-6);
  }
  for (index_t i = 0; i < w.rows(); ++i)
    for (index_t j = 0; j < w.cols(); ++j) w(i, j) *= scale[static_cast<std::size_t>(j)];
  return detail::split(backend, w, k, [&](dense<double>& right) {
    for (index_t r = 0; r < k; ++r)
      for (index_t j = 0; j < right.cols(); ++j) right(r, j) /= scale[static_cast<std::size_t>(j)];
  });
}

// `gram`: H = sum of x x^T over the inputs x, n x n.
template <class B, class T, class U>
factored svd_llm(B& backend, const view<T>& weight, const view<U>& gram, index_t k) {
  const dense<double> w(weight);
  const index_t n = w.cols();
  detail::check_rank(k, w);
  if (gram.rows != n || gram.cols != n)
    throw bad_value("gram", std::to_string(gram.rows) + "x" + std::to_string(gram.cols),
                    std::to_string(n) + "x" + std::to_string(n));
  double mean = 0;
  for (index_t i = 0; i < n; ++i) mean += static_cast<double>(gram(i, i)) / static_cast<double>(n);
  if (!(mean > 0) || !math::finite(mean))
    throw bad_value("mean of the diagonal of gram", std::to_string(mean), "finite and > 0");

  dense<double> s;
  double ridge = 0;
  for (;; ridge = ridge > 0 ? ridge * 10 : 1e-6) {
    s = dense<double>(gram);
    double largest = 0, least = mean;
    for (index_t i = 0; i < n; ++i) s(i, i) += ridge * mean;
    status_word failed = 0;
    backend.cholesky(nullptr, s.view(), row_major(&failed, 1, 1));
    for (index_t i = 0; i < n; ++i) {
      const double pivot = s(i, i) * s(i, i);
      largest = std::max(largest, pivot);
      least = pivot < least ? pivot : least;
    }
    if (!failed && least >= 1e-14 * largest) break;
    if (ridge > 1) throw bad_value("gram", "not positive semi-definite", "a sum of x x^T");
  }
  dense<double> ws(w.rows(), n);
  backend.gemm(nullptr, 1.0, w.view(), std::as_const(s).view(), 0.0, std::as_const(ws).view(), ws.view());
  factored f = detail::split(backend, ws, k, [&](dense<double>& right) {
    backend.solve_lower(nullptr, std::as_const(s).view(), right.view().t(), true);  // right S^-1 = (S^-T right^T)^T
  });
  f.ridge = ridge;
  return f;
}

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

}  // namespace matopt
