// The thin singular value decomposition by one-sided Jacobi rotations of blocks of columns, for batches of matrices of
// more than some dozen columns, without the host.
//
//   A = Q R, R^T = P L^T   by orthonormal_basis, tall side first; R = Q^T A and L^T = P^T R^T
//   X = L                  n x n; its columns start much more orthogonal than A's, so fewer sweeps are enough
//   X J = Y S              J from rotations of pairs of blocks; Y's columns are orthonormal, or zero
//   A = (Q Y) S (P J)^T    P J is orthogonal even where singular values are zero
//
// A sweep takes every pair of blocks once, in rounds of disjoint pairs (a round-robin tournament), which run side by
// side. A round is two launches. In the first a CUDA block forms the Gram matrix of a pair's columns, in double, and
// makes one sweep of two-sided rotations over it in shared memory; the product of the rotations, with its columns
// sorted by what they make of X's, longest first, is what the second launch multiplies the columns of X and J by. Pairs
// whose columns are orthogonal are left alone, and once a matrix has none else, the rest of its launches return at
// once: the shape alone decides what is launched, so that a graph can hold it.
//
// Two factorisations do what pivots do for one (Drmac, Veselic: SIAM J. Matrix Anal. 29, 2008): where columns depend on
// each other, one alone would leave them to the sweeps. Blocks: Becka, Oksa, Vajtersic (Parallel Computing 28, 2002).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>

#include "../core/backend.hpp"
#include "../core/broadcast.hpp"
#include "../core/functors.hpp"
#include "block_jacobi.cuh"
#include "error.cuh"
#include "householder.cuh"

namespace MATOPT_NAMESPACE::fn {
// to = from, or 0 if A = 0
struct assign_unless_zero {
  template <class T>
  MATOPT_HD void operator()(T& to, T from, T largest) const {
    to = largest > T(0) ? from : T(0);
  }
};
}  // namespace MATOPT_NAMESPACE::fn

namespace MATOPT_NAMESPACE::cuda {

// Width: columns of a block. Sweeps: over a pair's columns each time it is met.
template <class T, int Width = 24, int Sweeps = 1>
class block_jacobi_svd {
 public:
  static constexpr int most_sweeps = 20;

  // Bytes
  static std::size_t workspace(index_t rows, index_t cols, index_t batch) { return pieces(rows, cols, batch).bytes; }

  // A = U diag(s) V^T; `verbs` are the backend's, and its memory has a workspace for this shape.
  template <class Backend>
  static void run(Backend& verbs, cudaStream_t stream, const status_word* guard, const view<const T>& a,
                  const view<T>& u, const view<T>& s, const view<T>& v, std::byte* workspace) {
    if (a.rows > a.cols)
      run_tall(verbs, stream, guard, a, u, s, v, workspace);
    else
      run_tall(verbs, stream, guard, a.t(), v, s, u, workspace);
  }

  // Where the kernels' numbers lie in a workspace.
  static block_jacobi_memory<T> memory(index_t rows, index_t cols, index_t batch, std::byte* workspace) {
    const index_t n = math::min(rows, cols);
    const pieces at(rows, cols, batch);
    T* const rest = reinterpret_cast<T*>(workspace + at.rest);
    block_jacobi_memory<T> l{};
    l.n = n, l.blocks = at.blocks;
    l.x = reinterpret_cast<T*>(workspace + at.tall), l.j = reinterpret_cast<T*>(workspace + at.square);
    l.rotation = rest;
    l.norm = l.rotation + batch * l.pairs() * 4 * Width * Width;
    l.largest = l.norm + batch * n;
    l.squares = l.largest + batch;
    l.turned = reinterpret_cast<int*>(l.squares + batch);
    return l;
  }

 private:
  template <class Backend>
  static void run_tall(Backend& verbs, cudaStream_t stream, const status_word* guard, const view<const T>& a,
                       const view<T>& u, const view<T>& s, const view<T>& v, std::byte* workspace) {
    const index_t m = a.rows, n = a.cols, batch = a.batch;
    const pieces at(m, n, batch);
    const auto part = [&](std::size_t first, index_t rows) {
      return col_major(reinterpret_cast<T*>(workspace + first), rows, n, batch);
    };
    const block_jacobi_memory<T> l = memory(m, n, batch, workspace);
    const view<T> scaled = part(at.tall, m), q = part(at.q, m), r = part(at.square, n), p = part(at.p, n),
                  x = part(at.tall, n), y = part(at.shared, n), j = part(at.sorted, n),
                  largest = col_major(l.largest, 1, 1, batch), squares = col_major(l.squares, 1, 1, batch);
    // Long sums piece by piece: their rounding grows with the length.
    const auto multiply = [&](const view<const T>& left, const view<const T>& right, const view<T>& to) {
      constexpr index_t longest = matopt::detail::householder<T>::longest_sum;
      for (index_t first = 0; first < left.cols; first += math::min(longest, left.cols)) {
        const index_t count = math::min(longest, left.cols - first);
        verbs.template gemm<T>(guard, T(1), left.col_block(first, count), right.row_block(first, count), T(first > 0),
                               to, to);
      }
    };
    const auto factor = [&](const view<T>& of, const view<T>& basis) {
      verbs.for_each(guard, fn::assign{}, basis, as_const(of));
      verbs.orthonormal_basis(guard, basis, workspace + at.shared);
    };
    // No square overflows.
    verbs.reduce(guard, fn::abs_max{}, largest, a);
    verbs.for_each(guard, fn::divide{}, scaled, a, per_matrix(as_const(largest)));
    factor(scaled, q);
    multiply(scaled.t(), q, r);  // R^T
    factor(r, p);
    multiply(r.t(), p, x);
    verbs.reduce(guard, fn::square{}, squares, as_const(x));

    const auto grid = [&](index_t blocks) { return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(batch)); };
    block_jacobi_begin<<<grid(n), 256, 0, stream>>>(guard, l);
    rotate(stream, guard, l, batch);
    block_jacobi_norms<<<grid((n + 7) / 8), 256, 0, stream>>>(guard, l);
    block_jacobi_store<<<grid((n + 7) / 8), 256, 0, stream>>>(guard, l, y, s, j);
    check_launch("svd");
    const auto give = [&](const view<T>& basis, const view<T>& of, const view<T>& product, const view<T>& to) {
      multiply(basis, of, product);
      verbs.for_each(guard, fn::assign_unless_zero{}, to, as_const(product), per_matrix(as_const(largest)));
    };
    give(q, y, scaled, u);
    give(p, j, r, v);
  }

  // A workspace's parts.
  struct pieces {
    index_t blocks;
    std::size_t tall;    // A scaled, then X, then Q Y
    std::size_t q, p;    // the bases
    std::size_t square;  // R^T, then J, then P J
    std::size_t shared;  // what orthonormal_basis needs, then Y and J sorted
    std::size_t sorted;  // J sorted, behind Y
    std::size_t rest, bytes;
    pieces(index_t rows, index_t cols, index_t batch) {
      const index_t m = math::max(rows, cols), n = math::min(rows, cols);
      blocks = (n + Width - 1) / Width;
      blocks += blocks % 2;
      const auto after = [](std::size_t at, std::size_t size) { return (at + size + 255) / 256 * 256; };
      const auto scalars = [](index_t count) { return static_cast<std::size_t>(count) * sizeof(T); };
      const std::size_t large = scalars(m * n * batch), small = scalars(n * n * batch);
      tall = 0;
      q = after(tall, large);
      p = after(q, large);
      square = after(p, small);
      shared = after(square, small);
      sorted = after(shared, small);
      rest = after(shared, std::max(basis_in_blocks<T>::workspace(m, n, batch), sorted + small - shared));
      const index_t pairs = blocks / 2;
      bytes = after(rest, scalars(batch * (pairs * 4 * Width * Width + n + 2)) +
                              static_cast<std::size_t>(batch * (4 + pairs)) * sizeof(int));
    }
  };

  static void rotate(cudaStream_t stream, const status_word* guard, const block_jacobi_memory<T>& l, index_t batch) {
    using diagonalization = pair_diagonalization<T, Width>;
    using turn = pair_turn<T, Width>;
    allow(diagonalize_pairs_kernel<T, Width, Sweeps>, diagonalization::shared_bytes);
    allow(turn_pairs_kernel<T, Width>, turn::shared_bytes);
    const auto pairs = static_cast<unsigned>(l.pairs()), matrices = static_cast<unsigned>(batch),
               tiles = static_cast<unsigned>(2 * turn::tiles(l.n));
    for (int sweep = 0; sweep < most_sweeps; ++sweep)
      for (index_t round = 0; round < l.blocks - 1; ++round) {
        diagonalize_pairs_kernel<T, Width, Sweeps>
            <<<dim3(pairs, matrices), diagonalization::threads, diagonalization::shared_bytes, stream>>>(guard, l,
                                                                                                         sweep, round);
        turn_pairs_kernel<T, Width>
            <<<dim3(tiles, pairs, matrices), turn::threads, turn::shared_bytes, stream>>>(guard, l, round);
      }
  }
  // More shared memory than a kernel may have without asking.
  template <class Kernel>
  static void allow(Kernel kernel, std::size_t bytes) {
    if (bytes > 48 * 1024 - 1024)
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), "svd");
  }
};

}  // namespace MATOPT_NAMESPACE::cuda
