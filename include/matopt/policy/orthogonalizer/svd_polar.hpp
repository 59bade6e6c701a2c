// The exact polar factor of the leading singular directions: what the other orthogonalizers are tested against, and
// NuMuon without approximation.
//
//   M = U diag(s) V^T     ->     sum over i <= k of  t_i u_i v_i^T                           NuMuon eq. 13
//   t_i = 1, except t_k = pass.tail()                                                       NuMuon Prop. 3.2, eq. 12
//
// k is pass.rank(): all min(rows, cols) unless the constraint limits them. Directions with s_i <= max(m, n) eps s_1 are
// left out: they are noise of a rank-deficient input (the truncated polar factor of the NuMuon paper, arXiv 2603.03597,
// eq. 2). Where all directions are wanted and q = min(m, n) >= 64, the same comes from products alone, to the rounding
// of the type (policy/detail/polar_by_products.hpp): 35 to 88 products instead of a decomposition. State: none. Scratch
// per matrix: q (m + n + 1) scalars and the backend's workspace, or mn + 3 q^2 scalars. Needs: svd, gemm.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "../../core/policy.hpp"
#include "../detail/polar_by_products.hpp"
#include "../detail/polar_nearby.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// u = 0 where s <= cut s_1; u as it is elsewhere
struct keep_above {
  double cut;
  template <class T>
  MATOPT_HD void operator()(T& u, T s, T s1) const {
    if (!(s > T(cut) * s1)) u = T(0);  // NuMuon eq. 2: the truncated polar factor
  }
};
}  // namespace fn

namespace detail {
// Zeroes the directions of u (m x q) that carry no signal, keeps the first `rank`, and weighs the last of them by the
// tail.
template <class E, class T>
view<T> leading_directions(E& e, view<T> u, view<T> s, index_t larger_side) {
  const index_t k = math::min(e.rank(), u.cols);
  const view<T> kept = u.col_block(0, k);
  e.for_each(fn::keep_above{static_cast<double>(larger_side) * static_cast<double>(std::numeric_limits<T>::epsilon())},
             kept, per_column(s.row_block(0, k).t()), per_matrix(s.row_block(0, 1)));
  e.for_each(fn::multiply{}, kept.col_block(k - 1, 1), e.tail());  // NuMuon eq. 12: the residual direction
  return kept;
}
}  // namespace detail

struct svd_polar {
  static constexpr bool honours_rank = true;

  static std::string name() { return "svd_polar"; }

  template <class E, class St, class T>
  requires E::can_factor void orthogonalize(E& e, St&, view<T> m) const {
    if (e.rank() == all_directions && detail::polar_by_products_pays(m.rows, m.cols))
      return detail::polar_by_products(e, m);
    const auto frame = e.frame();
    const index_t q = math::min(m.rows, m.cols);
    const view<T> u = e.take(m.rows, q, true), s = e.take(q, 1), v = e.take(m.cols, q, true);
    e.svd(m, u, s, v);
    const view<T> kept = detail::leading_directions(e, u, s, math::max(m.rows, m.cols));
    e.gemm(T(1), kept, v.col_block(0, kept.cols).t(), T(0), m, m);  // NuMuon eq. 13: U_k V_k^T
  }
  // The same of a weight that is probably nearly orthonormal, where that is quicker, in place; returns whether it is.
  template <class E, class W>
  requires E::can_factor bool orthogonalize_nearby(E& e, view<W> w) const {
    if constexpr (sizeof(typename E::product) < sizeof(typename E::compute))
      if (detail::polar_by_products_pays(w.rows, w.cols)) return detail::polar_nearby(e, w), true;
    return false;
  }
};

}  // namespace MATOPT_NAMESPACE
