// decompositions: the verbs of cuda_backend that factor matrices. They launch kernels and the backend's own products,
// as many as the shape alone decides.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "../core/backend.hpp"
#include "../core/block_cholesky.hpp"
#include "../core/block_gram_schmidt.hpp"
#include "../core/householder.hpp"
#include "block_gram_schmidt.cuh"
#include "factorize.cuh"
#include "householder.cuh"
#include "jacobi_svd.cuh"
#include "on_device.cuh"
#include "packed_svd.cuh"
#include "svd_library.cuh"
#include "wide_gram_schmidt.cuh"
#include "wide_projections.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class Backend>
class decompositions {
 public:
  explicit decompositions(std::unique_ptr<svd_library> library) : library_(std::move(library)) {}
  // Whether a verb may wait for the device, so that a step with it cannot be recorded.
  bool may_wait() const { return library_ != nullptr; }

  template <class T>
  std::size_t svd_workspace(index_t rows, index_t cols, index_t batch) const {
    if (const svd_problem p = problem<T>(rows, cols, batch); library_ && library_->takes(p))
      return packed_svd<T>::bytes(p) + library_->workspace(p);
    return jacobi_svd<T>::workspace(rows, cols, batch);
  }
  template <class T>
  void svd(const status_word* guard, view<const std::type_identity_t<T>> a, view<T> u, view<T> s, view<T> v,
           std::byte* workspace) {
    const on_device here(self().device());
    if (const svd_problem p = problem<T>(a.rows, a.cols, a.batch); library_ && library_->takes(p)) {
      const packed_svd<T> packed(p, workspace);
      packed.load(self(), guard, a);
      library_->run(self().stream(), packed.problem, workspace + packed_svd<T>::bytes(p));
      return packed.store(self(), guard, u, s, v);
    }
    jacobi_svd<T>::run(self(), self().stream(), guard, a, u, s, v, workspace);
    check_launch("svd");
  }
  template <class T>
  std::size_t orthonormalize_workspace(index_t rows, index_t cols, index_t batch) const {
    if (wide<T>(cols))
      return wide_round::workspace(rows, batch) +
             wide_projections::bytes(rows, cols, wide_round::blocks::width, batch) +
             wide_round::blocks::workspace(rows, cols, batch);
    return panel_round<T>::workspace(rows, batch) + panel_round<T>::blocks::workspace(rows, cols, batch);
  }
  template <class T>
  void orthonormalize(const status_word* guard, view<T> x, std::type_identity_t<T> tolerance, std::byte* workspace) {
    const on_device here(self().device());
    if (x.rows == 0 || x.cols == 0 || x.batch == 0) return;
    const auto by = [&]<class Round>(Round, std::byte* more, const auto& projections) {
      Round::blocks::run(
          self(), guard, x, more,
          [&](const view<T>& p, const view<T>& kept, index_t before, bool last) {
            Round::run(self().stream(), guard, p, kept, before, last, tolerance, workspace);
            check_launch("orthonormalize");
            return false;
          },
          projections);
    };
    if constexpr (std::is_same_v<T, float>)
      if (wide<T>(x.cols)) {
        constexpr index_t width = wide_round::blocks::width;
        std::byte* const pieces = workspace + wide_round::workspace(x.rows, x.batch);
        return by(wide_round{}, pieces + wide_projections::bytes(x.rows, x.cols, width, x.batch),
                  wide_projections(x.rows, x.cols, width, x.batch, pieces));
      }
    by(panel_round<T>{}, workspace + panel_round<T>::workspace(x.rows, x.batch),
       matopt::detail::plain_projections<T>{});
  }
  template <class T>
  std::size_t orthonormal_basis_workspace(index_t rows, index_t cols, index_t batch) const {
    return basis_in_blocks<T>::workspace(rows, cols, batch);
  }
  template <class T>
  void orthonormal_basis(const status_word* guard, view<T> x, std::byte* workspace) {
    const on_device here(self().device());
    if (x.cols == 0 || x.batch == 0) return;
    const auto batch = static_cast<unsigned>(x.batch);
    basis_in_blocks<T>::blocks::run(
        self(), guard, x, workspace + basis_in_blocks<T>::of_panels(x.rows, x.batch),
        [&](const view<T>& v, const view<const T>& norm, const view<T>& sign, index_t before) {
          const unsigned threads = v.rows >= 256 ? 1024 : 256;
          reflect_kernel<<<batch, threads, 0, self().stream()>>>(guard, v, norm, sign, before);
          check_launch("orthonormal_basis");
        },
        [&](const view<const T>& v, const view<T>& t, const view<T>& along) {
          const index_t sets = along.rows / matopt::detail::householder<T>::width + 1;
          const panel_gram gram(v.rows, workspace, sets);
          gram.of(self().stream(), guard, v, v.col_block(along.rows, t.cols));
          triangle_kernel<<<dim3(batch, static_cast<unsigned>(sets)), 1024, 0, self().stream()>>>(guard, gram, t,
                                                                                                  along);
          check_launch("orthonormal_basis");
        });
  }
  template <class T>
  void cholesky(const status_word* guard, view<T> a, view<status_word> status) {
    const on_device here(self().device());
    if (a.cols == 0 || a.batch == 0) return;
    matopt::detail::block_cholesky<T>::factorize(
        self(), guard, a,
        [&](const view<T>& diagonal, bool first) {
          cholesky_kernel<<<static_cast<unsigned>(a.batch), 1024, 0, self().stream()>>>(guard, diagonal, status, first);
          check_launch("cholesky");
        },
        [&](const view<const T>& r, const view<T>& p) {
          solve_rows(self().stream(), guard, r, p);
          check_launch("cholesky");
        });
  }
  template <class T>
  void solve_lower(const status_word* guard, view<const std::type_identity_t<T>> l, view<T> x, bool transpose) {
    const on_device here(self().device());
    if (x.rows == 0 || x.cols == 0 || x.batch == 0) return;
    matopt::detail::block_cholesky<T>::solve_lower(self(), guard, l, x, transpose,
                                                   [&](const view<const T>& r, const view<T>& p) {
                                                     solve_rows(self().stream(), guard, r, p);
                                                     check_launch("solve_lower");
                                                   });
  }

 private:
  Backend& self() { return static_cast<Backend&>(*this); }
  // Whether orthonormalize takes 128 columns at a time. Of few, or in double, the factor of their Gram matrix takes
  // longer than the wider products save.
  template <class T>
  static bool wide(index_t cols) {
    return std::is_same_v<T, float> && cols >= 512;
  }
  template <class T>
  static svd_problem problem(index_t rows, index_t cols, index_t batch) {
    return {element_type_of<T>(), std::max(rows, cols), std::min(rows, cols), batch};
  }

  std::unique_ptr<svd_library> library_;
};

}  // namespace MATOPT_NAMESPACE::cuda
