// dry_backend<B>: takes the place of B while a step is planned. It touches no data; the step's own code, run on it,
// takes its scratch from a counting arena, and so finds the size that the real step needs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>

#include "backend.hpp"

namespace MATOPT_NAMESPACE {

template <class B>
struct dry_backend {
  static constexpr bool is_dry = true;  // a pass need not even prepare the arguments of its elementwise verbs
  const B& real;

  using buffer = typename B::buffer;
  template <class T>
  index_t product_batch(index_t m, index_t n, index_t batch) const requires requires(const B& b) {
    b.template product_batch<T>(m, n, batch);
  }
  { return real.template product_batch<T>(m, n, batch); }
  bool prefers_bfloat16(double arithmetic) const requires requires(const B& b) { b.prefers_bfloat16(arithmetic); }
  { return real.prefers_bfloat16(arithmetic); }
  template <class T>
  static constexpr bool multiplies = multiplies_type<B, T>;
  template <class C>
  using product_type = typename detail::product_type<B, C>::type;
  buffer allocate(std::size_t) { return {}; }
  void upload(void*, const void*, std::size_t) {}
  void download(void*, const void*, std::size_t) {}
  template <class... A>
  void for_each(A&&...) {}
  template <class... A>
  void reduce(A&&...) {}
  template <class... A>
  void reduce_rows(A&&...) {}
  template <class... A>
  void gemm(A&&...) {}
  template <class... A>
  void gemm_symmetric(A&&...) {}
  template <class... A>
  void random_normal(A&&...) {}
  template <class T>
  void quantize(const status_word*, const block_format&, const view<T>&, const view<std::uint8_t>&,
                const view<float>&) requires quantizing_backend<B, std::remove_const_t<T>> {}
  template <class T>
  void dequantize(const status_word*, const block_format&, const view<const std::uint8_t>&, const view<const float>&,
                  const view<T>&) requires quantizing_backend<B, T> {}
  template <class T, class Of>
  std::size_t gemm_workspace(index_t m, index_t n, index_t k, index_t batch, Of of) const requires
      requires(const B& b) {
    b.template gemm_workspace<T>(m, n, k, batch, of);
  }
  { return real.template gemm_workspace<T>(m, n, k, batch, of); }

  template <class T>
  std::size_t svd_workspace(index_t rows, index_t cols, index_t batch) const requires factoring_backend<B, T> {
    return real.template svd_workspace<T>(rows, cols, batch);
  }
  template <class... A>
  void svd(A&&...) {}
  template <class T>
  std::size_t orthonormalize_workspace(index_t rows, index_t cols,
                                       index_t batch) const requires factoring_backend<B, T> {
    return real.template orthonormalize_workspace<T>(rows, cols, batch);
  }
  template <class... A>
  void orthonormalize(A&&...) {}
  template <class T>
  std::size_t orthonormal_basis_workspace(index_t rows, index_t cols,
                                          index_t batch) const requires factoring_backend<B, T> {
    return real.template orthonormal_basis_workspace<T>(rows, cols, batch);
  }
  template <class... A>
  void orthonormal_basis(A&&...) {}
  template <class... A>
  void cholesky(A&&...) {}
  template <class... A>
  void solve_lower(A&&...) {}
};

}  // namespace MATOPT_NAMESPACE
