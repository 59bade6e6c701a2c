// The backend concepts: the small set of verbs from which every step is built.
//
// Every verb is ordered after the verbs before it, may run later than the call, and works on all matrices of a batch.
// `guard` points to one word for each matrix of the batch, in the backend's memory: where a word is not zero when the
// verb runs, a verb that writes memory which outlives the step writes nothing of that matrix, and reads nothing of it
// (null: all are written). So a step is abandoned as a whole, or a matrix left out of it, without the host ever reading
// anything. Products, svd and the factorizations write scratch only, and need not look at the guards.
//
// Optional members:
//
//   template <class T> static constexpr bool multiplies
//       which storage types (bfloat16, float16, tfloat32) products take besides float and double
//   template <class C> using product_type
//       the type in which a chain of products that starts and ends in C is best done
//   bool prefers_bfloat16(double arithmetic) const
//       whether such a chain from float to float is done faster in bfloat16, with `arithmetic` times as many
//       operations; for backends of which only the running program can know it
//   template <class T> index_t product_batch(m, n, batch) const
//       how many matrices of m x n, m <= n, are best taken through such a chain at a time
//   template <class T> std::size_t gemm_workspace(m, n, k, batch, factor_entries) const
//       how many bytes make a product faster; gemm and gemm_symmetric then take three more arguments: these bytes, the
//       promise about the factors' entries, and whether most guards are probably raised
//   void where_any(guards, count, way)
//       calls way(), and may arrange that what it launches is left out while all of these guards are raised
//   for_rows, for_rows_and_reduce
//       the work of three verbs at once (core/pass.hpp)
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "block_codes.hpp"
#include "functors.hpp"
#include "types.hpp"
#include "view.hpp"

namespace MATOPT_NAMESPACE {

using status_word = std::uint32_t;

// What a policy promises of the factors of a product: bounded, no entry is beyond 64 in size.
enum class factor_entries { any, bounded };

namespace detail {
template <class B, class C>
struct product_type {
  using type = C;
};
template <class B, class C>
requires requires { typename B::template product_type<C>; }
struct product_type<B, C> {
  using type = typename B::template product_type<C>;
};

struct any_functor {  // stands for a functor in the concepts
  template <class... A>
  MATOPT_HD float operator()(A&&...) const {
    return 0;
  }
};
}  // namespace detail

// clang-format off
// What a backend for compute type C must offer:
template <class B, class C>
concept backend = requires(B b, const B cb, const status_word* guard, view<C> m, view<const C> c, view<const std::uint32_t> counter,
                           C alpha, C beta, void* to, const void* from, std::size_t bytes, std::uint64_t seed) {
  typename B::buffer;                                               // owns memory; data() is its std::byte*
  { b.allocate(bytes) } -> std::same_as<typename B::buffer>;        // zeroed; called at set-up only; throws std::bad_alloc or out_of_memory
  { b.upload(to, from, bytes) } -> std::same_as<void>;              // host to backend; `from` may change after the call
  { b.download(to, from, bytes) } -> std::same_as<void>;            // backend to host; waits; never called by a step
  { b.for_each(guard, detail::any_functor{}, m, c) } -> std::same_as<void>;     // f(m(i,j), c(i,j)) for all i, j
  { b.reduce(guard, detail::any_functor{}, m, c) } -> std::same_as<void>;       // m(0,0) = combination over all i, j of f(c(i,j)); outputs are stored, too
  { b.reduce_rows(guard, detail::any_functor{}, m, c) } -> std::same_as<void>;  // m(i,0) = combination over j of f(c(i,j)); further results in further columns
  { b.gemm(guard, alpha, c, c, beta, c, m) } -> std::same_as<void>;             // D = alpha A B + beta C; C may be D
  { b.gemm_symmetric(guard, alpha, c, c, beta, c, m) } -> std::same_as<void>;   // the same; the caller promises a symmetric D
  { b.random_normal(guard, m, seed, counter) } -> std::same_as<void>;           // Philox; matrix b is stream b
};

template <class B, class T>
concept multiplies_type = std::is_same_v<T, float> || std::is_same_v<T, double> || requires { requires B::template multiplies<T>; };

// What exact and top-k orthogonalizers need besides:
template <class B, class C>
concept factoring_backend = backend<B, C> &&
  requires(B b, const B cb, const status_word* guard, view<C> m, view<const C> c, C tolerance, index_t n, std::byte* workspace) {
  { cb.template svd_workspace<C>(n, n, n) } -> std::same_as<std::size_t>;  // bytes for (rows, cols, batch)
  { b.svd(guard, c, m, m, m, workspace) } -> std::same_as<void>;           // A = U diag(s) V^T, thin, s (q x 1) descending
  { cb.template orthonormalize_workspace<C>(n, n, n) } -> std::same_as<std::size_t>;
  { b.orthonormalize(guard, m, tolerance, workspace) } -> std::same_as<void>;  // columns; one that depends on earlier ones becomes 0
  { cb.template orthonormal_basis_workspace<C>(n, n, n) } -> std::same_as<std::size_t>;
  { b.orthonormal_basis(guard, m, workspace) } -> std::same_as<void>;      // columns, rows >= columns; one that depends on earlier ones is replaced
  { b.cholesky(guard, m, view<status_word>{}) } -> std::same_as<void>;     // A = L L^T in place, upper part zeroed; status 1 if not positive
  { b.solve_lower(guard, c, m, true) } -> std::same_as<void>;              // X = L^-1 X, or L^-T X
};

// What state of 8 bits needs besides. The order of a matrix is row after row, whatever the strides; there is one scale per block, in a row.
template <class B, class C>
concept quantizing_backend = backend<B, C> &&
  requires(B b, const status_word* guard, const block_format& format, view<C> m, view<const C> c, view<std::uint8_t> codes,
           view<const std::uint8_t> read_codes, view<float> scales, view<const float> read_scales) {
  { b.quantize(guard, format, c, codes, scales) } -> std::same_as<void>;
  { b.dequantize(guard, format, read_codes, read_scales, m) } -> std::same_as<void>;
};
// clang-format on

}  // namespace MATOPT_NAMESPACE
