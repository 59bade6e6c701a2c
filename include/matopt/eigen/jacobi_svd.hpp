// One matrix's thin singular value decomposition by one-sided Jacobi rotations, without allocation.
//
//   R-step      A P = Q R     Householder with column pivoting (tall side first); X = R^T
//   rotations   X J_1 J_2 ... = V' S: pairs of columns are made orthogonal until all cosines are below eps
//   result      A = (Q J) S (P V')^T
//
// Rotating R^T instead of A makes the columns start nearly sorted and nearly orthogonal, so few sweeps are enough
// (Drmac, Veselic: New fast and accurate Jacobi SVD algorithm, SIAM J. Matrix Anal. 29, 2008). Small singular values
// keep their relative accuracy, unlike through a Gram matrix. The order of rotations is fixed, so the result is
// deterministic.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/view.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class T>
class jacobi_svd {
  using matrix = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>>;
  using vector = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>;

 public:
  static constexpr int max_sweeps = 40;

  // Scratch scalars for an m x n matrix.
  static std::size_t workspace(index_t rows, index_t cols) {
    const auto m = static_cast<std::size_t>(std::max(rows, cols)), n = static_cast<std::size_t>(std::min(rows, cols));
    return m * n + 2 * n * n + 4 * n;
  }

  // A (m x n) = U diag(s) V^T with q = min(m, n) columns in U and V and s descending; `work` holds workspace(m, n)
  // scalars.
  static void run(const view<const T>& a, const view<T>& u, const view<T>& s, const view<T>& v, T* work) {
    if (a.rows < a.cols) return run(a.t(), v, s, u, work);
    const index_t m = a.rows, n = a.cols;
    matrix q(work, m, n), x(work + m * n, n, n), j(work + m * n + n * n, n, n);
    vector tau(work + m * n + 2 * n * n, n), norm(tau.data() + n, n), pivot(norm.data() + n, n),
        order(pivot.data() + n, n);

    T largest = 0;
    for (index_t k = 0; k < n; ++k)
      for (index_t i = 0; i < m; ++i) largest = std::max(largest, std::abs(a(i, k)));
    if (!(largest > T(0))) {
      for (index_t k = 0; k < n; ++k) {
        s(k, 0) = 0;
        for (index_t i = 0; i < m; ++i) u(i, k) = 0;
        for (index_t i = 0; i < n; ++i) v(i, k) = 0;
      }
      return;
    }
    for (index_t k = 0; k < n; ++k)
      for (index_t i = 0; i < m; ++i) q(i, k) = a(i, k) / largest;

    pivoted_qr(q, tau, norm, pivot);
    x.setZero();
    for (index_t k = 0; k < n; ++k)
      for (index_t i = 0; i <= k; ++i) x(k, i) = q(i, k);  // X = R^T, lower triangular
    j.setIdentity();
    rotate(x, j, norm);

    for (index_t k = 0; k < n; ++k) order(k) = static_cast<T>(k);
    const auto key = [&](T k) {  // NaN would break the order that sort relies on
      const T length = norm(static_cast<index_t>(k));
      return length >= T(0) ? length : T(-1);
    };
    std::sort(order.data(), order.data() + n, [&](T l, T r) { return key(l) != key(r) ? key(l) > key(r) : l < r; });
    // U = Q [J; 0], the reflectors applied from the last to the first; V = P X / s
    for (index_t k = 0; k < n; ++k) {
      const auto from = static_cast<index_t>(order(k));
      s(k, 0) = norm(from) * largest;
      const T inverse = norm(from) > T(0) ? T(1) / norm(from) : T(0);
      for (index_t i = 0; i < n; ++i) v(static_cast<index_t>(pivot(i)), k) = x(i, from) * inverse;
      for (index_t i = 0; i < m; ++i) u(i, k) = i < n ? j(i, from) : T(0);
    }
    apply_reflectors(q, tau, u);
  }

 private:
  // Householder QR with column pivoting; R above the diagonal, reflectors (with an implied leading 1) below it.
  static void pivoted_qr(matrix& q, vector& tau, vector& norm, vector& pivot) {
    const index_t m = q.rows(), n = q.cols();
    for (index_t k = 0; k < n; ++k) pivot(k) = static_cast<T>(k);
    for (index_t k = 0; k < n; ++k) {
      index_t best = k;
      for (index_t c = k; c < n; ++c) {
        norm(c) = q.col(c).tail(m - k).squaredNorm();
        if (norm(c) > norm(best)) best = c;
      }
      if (best != k) {
        q.col(k).swap(q.col(best));
        std::swap(pivot(k), pivot(best));
      }
      auto column = q.col(k).tail(m - k);
      const T length = column.norm(), head = column(0);
      if (!(length > T(0))) {
        tau(k) = 0;
        continue;
      }
      const T beta = head < T(0) ? length : -length;
      tau(k) = (beta - head) / beta;
      column.tail(m - k - 1) /= head - beta;
      column(0) = beta;
      for (index_t c = k + 1; c < n; ++c) reflect(q, tau, k, q.col(c).tail(m - k));
    }
  }
  template <class Column>
  static void reflect(const matrix& q, const vector& tau, index_t k, Column&& y) {
    const auto essential = q.col(k).tail(q.rows() - k - 1);
    auto rest = y.tail(q.rows() - k - 1);
    const T w = tau(k) * (y(0) + essential.dot(rest));
    y(0) -= w;
    rest -= w * essential;
  }
  static void apply_reflectors(const matrix& q, const vector& tau, const view<T>& u) {
    using strided = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>, 0, Eigen::InnerStride<>>;
    for (index_t c = 0; c < u.cols; ++c) {
      strided column(u.data + c * u.col_stride, u.rows, Eigen::InnerStride<>(u.row_stride));
      for (index_t k = q.cols() - 1; k >= 0; --k) reflect(q, tau, k, column.tail(q.rows() - k));
    }
  }

  // Makes the columns of x orthogonal, applies the same rotations to j, and leaves the columns' norms in `norm`.
  static void rotate(matrix& x, matrix& j, vector& norm) {
    const index_t n = x.cols();
    const T eps = std::numeric_limits<T>::epsilon();
    const T threshold = eps * std::sqrt(static_cast<T>(n));
    for (int sweep = 0; sweep < max_sweeps; ++sweep) {
      for (index_t k = 0; k < n; ++k) norm(k) = x.col(k).squaredNorm();
      const T negligible = norm.maxCoeff() * eps * eps * eps;
      bool rotated = false;
      for (index_t p = 0; p + 1 < n; ++p)
        for (index_t r = p + 1; r < n; ++r) {
          const T cross = x.col(p).dot(x.col(r)), np = norm(p), nr = norm(r);
          if (np <= negligible || nr <= negligible || std::abs(cross) <= threshold * std::sqrt(np) * std::sqrt(nr))
            continue;
          rotated = true;
          const T zeta = (nr - np) / (T(2) * cross);
          const T t = (zeta < T(0) ? T(-1) : T(1)) / (std::abs(zeta) + std::sqrt(T(1) + zeta * zeta));
          const T c = T(1) / std::sqrt(T(1) + t * t), s = c * t;
          turn(x, p, r, c, s);
          turn(j, p, r, c, s);
          norm(p) = std::max(T(0), np - t * cross);
          norm(r) = nr + t * cross;
        }
      if (!rotated) break;
    }
    for (index_t k = 0; k < n; ++k) norm(k) = x.col(k).norm();
  }
  static void turn(matrix& y, index_t p, index_t r, T c, T s) {
    T* const __restrict__ a = y.col(p).data();
    T* const __restrict__ b = y.col(r).data();
    const index_t n = y.rows();
    for (index_t i = 0; i < n; ++i) {
      const T ai = a[i], bi = b[i];
      a[i] = c * ai - s * bi;
      b[i] = s * ai + c * bi;
    }
  }
};

}  // namespace MATOPT_NAMESPACE::detail
