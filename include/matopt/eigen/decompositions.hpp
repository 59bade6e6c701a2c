// decompositions: the verbs of eigen_backend that factor matrices. Blocks of columns are done here, a task per matrix;
// the rest is products. (The functions that do the work have the names of the verbs, and so are called by their full
// names.)
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "../core/backend.hpp"
#include "../core/block_cholesky.hpp"
#include "../core/block_gram_schmidt.hpp"
#include "../core/householder.hpp"
#include "factorize.hpp"
#include "guarded.hpp"
#include "jacobi_svd.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class Backend>
class decompositions {
 public:
  template <class T>
  std::size_t svd_workspace(index_t rows, index_t cols, index_t batch) const {
    // One set per thread: any thread of the pool may run any task.
    return static_cast<std::size_t>(batch > 1 ? self().threads() : 1) * detail::jacobi_svd<T>::workspace(rows, cols) *
           sizeof(T);
  }
  template <class T>
  void svd(const status_word* guard, view<const std::type_identity_t<T>> a, view<T> u, view<T> s, view<T> v,
           std::byte* workspace) {
    if (detail::all_stopped(guard, a.batch)) return;
    const std::size_t each = detail::jacobi_svd<T>::workspace(a.rows, a.cols);
    self().pool().parallel_for(a.batch, [&](index_t b, int worker) {
      detail::jacobi_svd<T>::run(a.matrix(b), u.matrix(b), s.matrix(b), v.matrix(b),
                                 reinterpret_cast<T*>(workspace) + static_cast<std::size_t>(worker) * each);
    });
  }

  template <class T>
  std::size_t orthonormalize_workspace(index_t rows, index_t cols, index_t batch) const {
    return detail::block_gram_schmidt<T>::workspace(rows, cols, batch);
  }
  // By Gram-Schmidt: a column that keeps no more than `tolerance` of its length becomes zero.
  template <class T>
  void orthonormalize(const status_word* guard, view<T> x, std::type_identity_t<T> tolerance, std::byte* workspace) {
    if (detail::all_stopped(guard, x.batch)) return;
    detail::block_gram_schmidt<T>::run(self(), guard, x, workspace,
                                       [&](const view<T>& p, const view<T>& kept, index_t before, bool last) {
                                         self().pool().parallel_for(p.batch, [&](index_t b) {
                                           if (!guard || !guard[b])
                                             detail::gram_schmidt(p.matrix(b), kept.matrix(b), before, last, tolerance);
                                         });
                                         return before == 0;
                                       });
  }

  template <class T>
  std::size_t orthonormal_basis_workspace(index_t rows, index_t cols, index_t batch) const {
    return detail::householder<T>::workspace(rows, cols, batch);
  }
  template <class T>
  void orthonormal_basis(const status_word* guard, view<T> x, std::byte* workspace) {
    if (detail::all_stopped(guard, x.batch)) return;
    detail::householder<T>::run(
        self(), guard, x, workspace,
        [&](const view<T>& v, const view<const T>& norm, const view<T>& sign, index_t before) {
          self().pool().parallel_for(
              v.batch, [&](index_t b) { detail::reflect(v.matrix(b), norm.matrix(b), sign.matrix(b), before); });
        },
        [&](const view<const T>& v, const view<T>& t, const view<T>& along) {
          self().pool().parallel_for(
              v.batch, [&](index_t b) { detail::reflection_triangle(v.matrix(b), t.matrix(b), along.matrix(b)); });
        });
  }

  // A = L L^T in place, upper part zeroed; status 1 where A is not positive definite (A is then unspecified).
  template <class T>
  void cholesky(const status_word* guard, view<T> a, view<status_word> status) {
    if (detail::all_stopped(guard, a.batch)) return;
    detail::block_cholesky<T>::factorize(
        self(), guard, a,
        [&](const view<T>& diagonal, bool first) {
          self().pool().parallel_for(a.batch, [&](index_t b) {
            const bool failed = !first && status(0, 0, b);
            status(0, 0, b) = !detail::cholesky(diagonal.matrix(b)) || failed;
          });
        },
        [&](const view<const T>& r, const view<T>& p) { solve_rows(r, p); });
  }
  // X = L^-1 X, or L^-T X
  template <class T>
  void solve_lower(const status_word* guard, view<const std::type_identity_t<T>> l, view<T> x, bool transpose) {
    if (detail::all_stopped(guard, x.batch)) return;
    detail::block_cholesky<T>::solve_lower(self(), guard, l, x, transpose,
                                           [&](const view<const T>& r, const view<T>& p) { solve_rows(r, p); });
  }

 private:
  Backend& self() { return static_cast<Backend&>(*this); }
  const Backend& self() const { return static_cast<const Backend&>(*this); }

  template <class T>
  void solve_rows(const view<const T>& r, const view<T>& p) {
    constexpr index_t few = 4, many = 32;
    const index_t each = p.rows <= few ? few : many, pieces = (p.rows + each - 1) / each;
    const auto solve = [&](index_t task) {
      const index_t b = task / pieces, first = task % pieces * each;
      const view<T> rows = p.matrix(b).row_block(first, std::min(each, p.rows - first));
      each == few ? detail::solve_rows<few>(r.matrix(b), rows) : detail::solve_rows<many>(r.matrix(b), rows);
    };
    constexpr index_t worth_waking = 1 << 17;  // products
    self().pool().parallel_for(p.batch * pieces, solve, p.batch * p.rows * p.cols * p.cols >= worth_waking);
  }
};

}  // namespace MATOPT_NAMESPACE::detail
