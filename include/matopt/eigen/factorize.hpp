// Factorizations of one matrix, in place and without allocation.
#pragma once
#include <Eigen/Core>
#include <cmath>
#include <type_traits>

#include "../core/functors.hpp"
#include "../core/householder.hpp"
#include "../core/math.hpp"
#include "../core/view.hpp"
#include "blocks.hpp"

namespace matopt::detail {

template <class T>
auto mapped(const view<T>& v) {
  using strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  using dense = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic>;
  using M = std::conditional_t<std::is_const_v<T>, const dense, dense>;
  return Eigen::Map<M, 0, strides>(v.base(0), v.rows, v.cols, strides(v.col_stride, v.row_stride));
}

// ||x(:, j)|| of entries that can be squared
template <class T>
T column_norm(const view<T>& x, index_t j) {
  const auto squares =
      lines::reduce<T, fn::sum>(fn::square{}, 0, x.rows, lines::line<lines::axis::rows>(as_const(x), 0, j));
  return static_cast<T>(std::sqrt(squares[0]));
}

// Gram-Schmidt, each column twice against those before it; one that keeps less than `tolerance` of its length, or no
// more than rounding leaves of a column that depends on them, becomes zero.
template <class T>
void gram_schmidt(const view<T>& x, T tolerance) {
  auto m = mapped(x);
  for (index_t j = 0; j < x.cols; ++j) {
    const T least = math::max(tolerance, rounding_of_projections<T>(j));
    T before = m.col(j).stableNorm();
    if (!(before > T(0))) continue;
    m.col(j) /= before;
    T kept = 1;
    for (int round = 0; round < 2; ++round) {
      for (index_t i = 0; i < j; ++i) {
        const T along = m.col(i).dot(m.col(j));
        m.col(j) -= along * m.col(i);
      }
      const T length = column_norm(x, j);
      kept *= length;
      if (!(kept > least)) break;
      m.col(j) /= length;
    }
    if (!(kept > least)) m.col(j).setZero();
  }
}

// As core/householder.hpp wants it, for one matrix.
template <class T>
void reflect(const view<T>& v, const view<const T>& norm, const view<T>& sign, index_t before) {
  auto m = mapped(v);
  for (index_t k = 0; k < v.cols; ++k) {
    auto column = m.col(k).tail(v.rows - k);
    const T largest = column.cwiseAbs().maxCoeff();
    if (largest > T(0)) column /= largest;
    const T length = column.norm();
    if (length * largest > norm(k, 0) * rounding_of_projections<T>(before + k)) {
      sign(k, 0) = column(0) < T(0) ? T(1) : T(-1);
      column /= column(0) - sign(k, 0) * length;
    } else {
      sign(k, 0) = T(-1);
      column.setZero();
    }
    column(0) = T(1);
    m.col(k).head(k).setZero();
    // What makes the reflection orthogonal, however v was rounded.
    const T twice = T(2) / column.squaredNorm();
    for (index_t j = k + 1; j < v.cols; ++j) {
      auto other = m.col(j).tail(v.rows - k);
      other -= (twice * column.dot(other)) * column;
    }
  }
}

// T of the block of reflections V: the inverse of V^T V's strictly upper part with half its diagonal; zeros below.
template <class T>
void reflection_triangle(const view<const T>& v, const view<T>& t) {
  const auto m = mapped(v);
  for (index_t j = 0; j < v.cols; ++j) {
    const auto column = m.col(j).tail(v.rows - j).template cast<double>();
    for (index_t i = 0; i <= j; ++i)
      t(i, j) = static_cast<T>(column.dot(m.col(i).tail(v.rows - j).template cast<double>()));
    const T inverse = T(2) / t(j, j);
    for (index_t i = 0; i < j; ++i) {
      T sum = 0;
      for (index_t k = i; k < j; ++k) sum += t(i, k) * t(k, j);
      t(i, j) = -inverse * sum;
    }
    t(j, j) = inverse;
    for (index_t i = j + 1; i < t.rows; ++i) t(i, j) = T(0);
  }
}

// A = L L^T in place, upper part zeroed; false where A is not positive definite (A is then unspecified).
template <class T>
bool cholesky(const view<T>& a) {
  auto m = mapped(a);
  for (index_t k = 0; k < a.cols; ++k) {
    const T pivot = m(k, k);
    if (!(pivot > T(0)) || !math::finite(pivot)) return false;
    const index_t below = a.rows - k - 1;
    m(k, k) = math::sqrt(pivot);
    m.col(k).tail(below) /= m(k, k);
    for (index_t j = k + 1; j < a.cols; ++j) m.col(j).tail(a.rows - j) -= m(j, k) * m.col(k).tail(a.rows - j);
    m.col(k).head(k).setZero();
  }
  return true;
}

// y = L^-1 y, or L^-T y, of one column
template <class T>
void solve_lower(const view<const T>& l, const view<T>& y, bool transpose) {
  const auto lower = mapped(l);
  auto x = mapped(y).col(0);
  const index_t n = y.rows;
  if (transpose)
    for (index_t k = n - 1; k >= 0; --k)
      x(k) = (x(k) - lower.col(k).tail(n - k - 1).dot(x.tail(n - k - 1))) / lower(k, k);
  else
    for (index_t k = 0; k < n; ++k) {
      x(k) /= lower(k, k);
      x.tail(n - k - 1) -= x(k) * lower.col(k).tail(n - k - 1);
    }
}

}  // namespace matopt::detail
