// The top-k polar factor by a randomised block Krylov space: NuMuon's Algorithm 3 (arXiv 2603.03597; Musco, Musco,
// arXiv 1504.05477).
//
//   B_0 ~ N(0, 1)^{n x b}, b = k + p, orthonormalised          n = min(rows, cols)
//   for i = 1 .. L:   T = M B_{i-1}     B_i = orth(M^T orth(T))     K = [K B_i]
//   Q = orth(K)     M Q = U S V^T     ->     U_k (Q V_k)^T                              and eq. 13
//
// The update has exactly k unit singular values whatever L is; too few iterations only cost a little of <M, update>. On
// a flat spectrum that is several percent at L = 2 (see docs/rules/numuon.md). The paper leaves open and this header
// decides: Krylov on the short side; if b L >= n the basis would span everything, and the exact decomposition is
// cheaper and taken; orth(T) inside the loop (`stabilise`), without which directions below sqrt(eps) s_1 are lost;
// orth() drops columns that depend on earlier ones, so a matrix of low rank, an isometry or zero yields no spurious
// direction; the random block is drawn anew in each step and is the same for all matrices of a shape; `WarmStart`
// continues from the last V_k. State: n n scalars per matrix with WarmStart. Needs: svd, orthonormalize, gemm,
// random_normal.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <limits>

#include "../../core/policy.hpp"
#include "../detail/random_block.hpp"
#include "svd_polar.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// x = y where y is not 0: a saved basis over a fresh random block
struct replace_if_set {
  template <class T>
  MATOPT_HD void operator()(T& x, T y) const {
    if (y != T(0)) x = y;
  }
};
}  // namespace fn

template <bool WarmStart = false>
struct block_krylov_polar {
  static constexpr bool honours_rank = true;

  index_t iterations = 2;
  index_t oversampling = 8;
  bool stabilise = true;
  index_t seed = 0;

  static std::string name() { return WarmStart ? "warm_block_krylov_polar" : "block_krylov_polar"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("krylov_iterations", self.iterations, range{.low = 1, .high = 64});
    visit("krylov_oversampling", self.oversampling, range{.low = 0, .high = 4096});
    visit("krylov_stabilise", self.stabilise);
    visit("krylov_seed", self.seed, range{.low = 0, .high = 9007199254740992.0});
  }

  template <class S, class C>
  struct state {
    view<C> basis;  // the last V_k, padded with zero columns; only with WarmStart
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    const index_t n = math::min(l.row_count(), l.column_count());
    if constexpr (WarmStart) s.basis = l.block("krylov_basis", n, n);
  }

  template <class E, class St, class T>
  requires E::can_factor void orthogonalize(E& e, St& s, view<T> u) const {
    const view<T> m = u.rows < u.cols ? u.t() : u;
    const index_t n = m.cols, k = math::min(e.rank(), n), b = math::min(k + oversampling, n);
    if (b * iterations >= n) {
      no_state none;
      svd_polar{}.orthogonalize(e, none, m);
      return;
    }
    const auto frame = e.frame();
    constexpr double tolerance = 32 * static_cast<double>(std::numeric_limits<T>::epsilon());
    const view<T> scaled = e.take_like(m), largest = e.take(1, 1);  // no product of a finite input may overflow
    e.reduce(fn::abs_max{}, largest, as_const(m));
    e.for_each(fn::divide{}, scaled, as_const(m), per_matrix(largest));

    const view<T> start = e.take(n, b, true), image = e.take(m.rows, b, true), krylov = e.take(n, b * iterations, true);
    detail::random_block(e, start, static_cast<std::uint64_t>(seed));  // Alg. 3: B_0
    if constexpr (WarmStart) e.for_each(fn::replace_if_set{}, start.col_block(0, k), as_const(s.basis.col_block(0, k)));
    e.orthonormalize(start, T(tolerance));
    view<T> block = start;
    for (index_t i = 0; i < iterations; ++i) {
      const view<T> next = krylov.col_block(i * b, b);
      e.gemm(T(1), scaled, block, T(0), image, image);  // Alg. 3, in the loop: T = A B_{i-1}
      if (stabilise) e.orthonormalize(image, T(tolerance));
      e.gemm(T(1), scaled.t(), image, T(0), next, next);
      e.orthonormalize(next, T(tolerance));  // Alg. 3, in the loop: B_i = qr(A^T T)
      block = next;
    }
    if (iterations > 1) e.orthonormalize(krylov, T(tolerance));  // Alg. 3: Q = qr(K)

    const index_t c = krylov.cols, r = math::min(m.rows, c);
    const view<T> projected = e.take(m.rows, c, true), left = e.take(m.rows, r, true), values = e.take(r, 1),
                  inner = e.take(c, r, true), right = e.take(n, k, true);
    e.gemm(T(1), scaled, krylov, T(0), projected, projected);  // Alg. 3: T = A Q
    e.svd(projected, left, values, inner);                     // Alg. 3: the thin SVD of T
    const view<T> kept = detail::leading_directions(e, left, values, math::max(m.rows, m.cols));
    e.gemm(T(1), krylov, inner.col_block(0, k), T(0), right, right);  // Alg. 3: V_k = Q V_T[:, 1:k]
    e.gemm(T(1), kept, right.t(), T(0), m, m);                        // NuMuon eq. 13
    if constexpr (WarmStart) e.for_each(fn::assign{}, s.basis.col_block(0, k), as_const(right));
  }
};

}  // namespace MATOPT_NAMESPACE
