// Shampoo's two factors of a matrix and the bases that follow their eigenvectors, for rules that work in these bases.
//
//   left   an average of G G^T, m x m        left_basis    its eigenvectors as columns, Ql
//   right  an average of G^T G, n x n        right_basis   Qr
//
// The bases are orthonormal to rounding whatever the factors are: directions that a factor lacks (dead rows, equal
// rows, zeros) are completed. They begin as identities. A renewal makes one step of orthogonal iteration, the Q of S Q:
// SOAP (arXiv 2409.11321), Algorithm 4.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <limits>
#include <utility>

#include "../../core/policy.hpp"
#include "norms.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// bias corrections that begin to count with the second call
struct started_corrections {
  double beta1, beta2;
  template <class T>
  MATOPT_HD void operator()(T& c1, T& c2, T started) const {
    const T on = math::one_if<T>(started > T(0)), off = T(1) - on;
    c1 = (on * T(beta1) + off) * c1 + on * T(1 - beta1);
    c2 = (on * T(beta2) + off) * c2 + on * T(1 - beta2);
  }
};
struct multiply_into {
  template <class T>
  MATOPT_HD void operator()(T& y, T a, T b) const {
    y = a * b;
  }
};
// y = y most / largest, where that is below y
struct scale_down {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& y, T largest) const {
    y *= T(most) / math::max(largest, T(most));
  }
};
// number of larger entries, and of equal ones before: the place of an entry in descending order
struct comes_before {
  template <class T>
  MATOPT_HD T operator()(T other, T mine, T other_index, T my_index) const {
    const T by_index = math::one_if<T>(other_index < my_index), tie = other == mine ? by_index : T(0);
    return other > mine ? T(1) : tie;
  }
};
struct permutation_entry {  // 1 where column `place` takes entry `row`
  template <class T>
  MATOPT_HD void operator()(T& x, T place, T column) const {
    x = place == column ? T(1) : T(0);
  }
};
}  // namespace fn

namespace detail {

// A side without a preconditioner has views without rows.
template <class C>
struct kronecker_factors {
  view<C> left, right, left_basis, right_basis;
};

template <class Layout, class C>
void lay_out_factors(Layout& l, kronecker_factors<C>& f, index_t longest) {
  const index_t m = l.row_count(), n = l.column_count();
  if (m <= longest) f.left = l.block("left", m, m), f.left_basis = l.block("left_basis", m, m);
  if (n <= longest) f.right = l.block("right", n, n), f.right_basis = l.block("right_basis", n, n);
}
template <class E, class C>
void begin_bases(E& e, const kronecker_factors<C>& f) {
  if (f.left.rows > 0) e.for_each(fn::set_identity{}, f.left_basis, row_number{}, column_number{});
  if (f.right.rows > 0) e.for_each(fn::set_identity{}, f.right_basis, row_number{}, column_number{});
}

// y = Ql^T x Qr, or back: Ql x Qr^T
template <class E, class C, class X, class Y>
void turn(E& e, const kronecker_factors<C>& f, view<X> x, view<Y> y, bool into) {
  const auto frame = e.frame();
  view<C> a = e.template take_like<C>(x), b = e.template take_like<C>(x);
  e.for_each(fn::assign{}, a, as_const(x));
  if (f.left.rows > 0) {
    e.gemm(C(1), into ? f.left_basis.t() : f.left_basis, a, C(0), b, b);
    std::swap(a, b);
  }
  if (f.right.rows > 0) {
    e.gemm(C(1), a, into ? f.right_basis : f.right_basis.t(), C(0), b, b);
    std::swap(a, b);
  }
  e.for_each(fn::assign{}, y, as_const(a));
}

// A matrix with entries so large that the factors' products would overflow counts as a smaller multiple of it.
template <class E, class C>
void limit_for_products(E& e, view<C> y) {
  const auto frame = e.frame();
  const view<C> largest = e.take(1, 1);
  const double size = static_cast<double>(math::max(y.rows, y.cols));
  e.reduce(fn::abs_max{}, largest, as_const(y));
  e.for_each(fn::scale_down{1e-4 * std::sqrt(static_cast<double>(std::numeric_limits<C>::max())) / size}, y,
             per_matrix(largest));
}
// side <- keep side + take g g^T: SOAP Alg. 3, after line 12
template <class E, class C>
void average_product(E& e, double keep, double take, view<C> side, view<C> g) {
  if (side.rows == 0) return;
  const auto frame = e.frame();
  const view<C> sum = e.take(side.rows, side.rows, true);
  e.gemm_symmetric(C(take), g, g.t(), C(keep), side, sum);
  e.for_each(fn::assign{}, side, as_const(sum));
}

// basis: orthonormal, with `vectors` as its first columns
template <class E, class C>
void complete_basis(E& e, view<C> vectors, view<C> basis) {
  if (basis.rows == 0) return;
  const auto frame = e.frame();
  const view<C> all = e.take(basis.rows, basis.rows, true);
  e.for_each(fn::set_zero{}, all);
  e.for_each(fn::assign{}, all.col_block(0, vectors.cols), as_const(vectors));
  e.orthonormal_basis(all);
  e.for_each(fn::assign{}, basis, as_const(all));
}
// The eigenvectors of G G^T and G^T G, largest first. They are taken as singular vectors of G, because squaring G would
// lose half of the digits.
template <class E, class C>
requires E::can_factor void bases_of_gradient(E& e, const kronecker_factors<C>& f, view<C> g) {
  const auto frame = e.frame();
  const index_t q = math::min(g.rows, g.cols);
  const view<C> left = e.take(g.rows, q, true), values = e.take(q, 1), right = e.take(g.cols, q, true);
  if (f.left.rows > 0 || f.right.rows > 0) e.svd(g, left, values, right);
  complete_basis(e, left, f.left_basis), complete_basis(e, right, f.right_basis);
}
// The eigenvectors of a factor, largest first; and its eigenvalues, if they are asked for.
template <class E, class C>
requires E::can_factor void basis_of_factor(E& e, view<C> side, view<C> basis, view<C> eigenvalues = {}) {
  if (side.rows == 0) return;
  const auto frame = e.frame();
  const index_t n = side.rows;
  const view<C> vectors = e.take(n, n, true), values = e.take(n, 1), same = e.take(n, n, true);
  e.svd(side, vectors, values, same);
  complete_basis(e, vectors, basis);
  if (eigenvalues.rows > 0) e.for_each(fn::assign{}, eigenvalues, as_const(values));
}

// image = side basis; a direction that `side` does not have yet stays, by the tiny multiple of the old basis
template <class E, class C>
void image_of_basis(E& e, view<C> side, view<C> basis, view<C> image) {
  e.gemm(C(1), side, basis, C(1e-30), basis, image);
}
// What `side` carries in each direction of a basis, given its image: the diagonal of Q^T S Q.
template <class E, class C>
void carried_by(E& e, view<C> basis, view<C> image, view<C> carried) {
  e.reduce_rows(fn::product{}, carried, as_const(image.t()), as_const(basis.t()));
}
// The matrix that sorts columns by `values` when they are multiplied by it from the right, the largest first.
template <class E, class C>
void descending_order(E& e, view<C> values, view<C> permutation) {
  const auto frame = e.frame();
  const view<C> place = e.take(values.rows, 1);
  // permutation holds, row by row, what the others carry
  e.for_each(fn::assign{}, permutation, per_column(values.t()));
  e.reduce_rows(fn::comes_before{}, place, as_const(permutation), per_row(values), column_number{}, row_number{});
  e.for_each(fn::permutation_entry{}, permutation, per_row(place), column_number{});
}
// rows of v in the order of a permutation of columns
template <class E, class C, class V>
void sort_rows(E& e, view<C> permutation, view<V> v) {
  const auto frame = e.frame();
  const view<C> before = e.template take_like<C>(v), after = e.template take_like<C>(v);
  e.for_each(fn::assign{}, before, as_const(v));
  e.gemm(C(1), permutation.t(), before, C(0), after, after);
  e.for_each(fn::assign{}, v, as_const(after));
}

// Sorts the basis by how much of `side` each direction carries, the rows of v with it, and makes one step of orthogonal
// iteration.
template <class E, class C, class V>
requires E::can_factor void renew_sorted_basis(E& e, view<C> side, view<C> basis, view<V> v) {
  if (side.rows == 0) return;
  const auto frame = e.frame();
  const index_t n = side.rows;
  const view<C> image = e.take(n, n, true), sorted = e.take(n, n, true), permutation = e.take(n, n, true);
  const view<C> carried = e.take(n, 1);
  image_of_basis(e, side, basis, image);
  carried_by(e, basis, image, carried);
  descending_order(e, carried, permutation);
  sort_rows(e, permutation, v);
  e.gemm(C(1), image, permutation, C(0), sorted, sorted);
  e.orthonormal_basis(sorted);  // SOAP Alg. 4, here with sorted columns
  e.for_each(fn::assign{}, basis, as_const(sorted));
}
// One step of orthogonal iteration; columns stay in their order.
template <class E, class C>
requires E::can_factor void renew_basis(E& e, view<C> side, view<C> basis) {
  if (side.rows == 0) return;
  const auto frame = e.frame();
  const view<C> image = e.take(side.rows, side.rows, true);
  image_of_basis(e, side, basis, image);
  e.orthonormal_basis(image);  // SOAP Alg. 4
  e.for_each(fn::assign{}, basis, as_const(image));
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
