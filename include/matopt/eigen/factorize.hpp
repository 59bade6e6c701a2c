// The small parts of factorizations, of one matrix, in place and without allocation; their large parts are products.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <Eigen/Core>
#include <cmath>
#include <type_traits>

#include "../core/block_cholesky.hpp"
#include "../core/block_gram_schmidt.hpp"
#include "../core/functors.hpp"
#include "../core/householder.hpp"
#include "../core/math.hpp"
#include "../core/rounding_of_projections.hpp"
#include "../core/view.hpp"
#include "operand.hpp"

namespace MATOPT_NAMESPACE::detail {

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
  const fn::square square{};
  const lines::line<T> column = lines::operand<T>(as_const(x).t()).line_at(0, j);
  double squares = 0;
  lines::reduce<T, fn::sum>(lines::reduce_kernels<fn::square, view<const T>>::straight, &square, &squares, 1, 0, x.rows,
                            &column, 1, column.direct());
  return static_cast<T>(std::sqrt(squares));
}

// One round of core/block_gram_schmidt.hpp for the columns of one matrix: each is finished, by as many projections as
// it takes, before the next one is begun. The first columns of a matrix need no other.
template <class T>
void gram_schmidt(const view<T>& p, const view<T>& kept, index_t before, bool last, T tolerance) {
  using dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
  Eigen::Map<dense, 0, Eigen::OuterStride<>> m(p.base(0), p.rows, p.cols, Eigen::OuterStride<>(p.col_stride));
  Eigen::Matrix<T, block_gram_schmidt<T>::width, 1> along;
  for (index_t j = 0; j < p.cols; ++j) {
    const T least = math::max(tolerance, rounding_of_projections<T>(before + j));
    T& left = kept(j, 0);
    if (before == 0) left = T(1);
    T of_round = 1;
    for (int pass = 0; pass < 2; ++pass) {
      if (j > 0) {
        along.head(j).noalias() = m.leftCols(j).transpose() * m.col(j);
        m.col(j).noalias() -= m.leftCols(j) * along.head(j);
      }
      const T length = column_norm(p, j);
      of_round *= length;
      if (!(left * of_round > least)) break;
      m.col(j) /= length;
      if (before > 0 && length > T(0.7)) break;  // there are two rounds of this
    }
    left *= of_round;
    if (!(left > least) || (last && !(of_round > T(0.5)))) {
      left = T(0);
      m.col(j).setZero();
    }
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

// T of a block of reflections: the inverse of V^T V's strictly upper part with half its diagonal; zeros below. And along,
// as core/householder.hpp wants it, for one matrix.
template <class T>
void reflection_triangle(const view<const T>& v, const view<T>& t, const view<T>& along) {
  const auto m = mapped(v);
  const index_t before = along.rows;
  for (index_t j = 0; j < t.cols; ++j) {
    const auto column = m.col(before + j).tail(v.rows - j).template cast<double>();
    const auto dot = [&](index_t i) {
      return static_cast<T>(column.dot(m.col(i).tail(v.rows - j).template cast<double>()));
    };
    for (index_t i = 0; i < before; ++i) along(i, j) = dot(i);
    for (index_t i = 0; i <= j; ++i) t(i, j) = dot(before + i);
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

// Some rows of Q R = P, at most Most, as core/block_cholesky.hpp wants it: in a copy in which they lie side by side,
// however P is stored.
template <index_t Most, class T>
void solve_rows(const view<const T>& r, const view<T>& p) {
  T q[block_cholesky<T>::width][static_cast<std::size_t>(Most)] = {};
  for (index_t j = 0; j < p.cols; ++j)
    for (index_t i = 0; i < p.rows; ++i) q[j][i] = p(i, j);
  for (index_t j = 0; j < p.cols; ++j) {
    const T divisor = r(j, j);
    for (index_t i = 0; i < Most; ++i) q[j][i] /= divisor;
    for (index_t k = j + 1; k < p.cols; ++k) {
      const T along = r(j, k);
      for (index_t i = 0; i < Most; ++i) q[k][i] -= along * q[j][i];
    }
  }
  for (index_t j = 0; j < p.cols; ++j)
    for (index_t i = 0; i < p.rows; ++i) p(i, j) = q[j][i];
}

}  // namespace MATOPT_NAMESPACE::detail
