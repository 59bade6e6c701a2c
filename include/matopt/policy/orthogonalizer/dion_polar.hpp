// Dion: an orthonormal update of low rank by one amortised power iteration; its error feedback is the momentum.
//
//   M <- M + U                       B = M, or M^T if rows < columns (transpose = automatic)
//   repeat power_iterations times:   P = orth(B Q),  Q <- R = B^T P
//   M <- M - (1 - mu) P R^T          Q <- R with columns of norm 1, ||R_:k|| + eps the divisor
//   U <- P Q^T                       (transposed back)
//
// Ahn et al.: Dion (arXiv 2504.05295, Algorithm 1, by transcriptions); follows dion_reference.py of microsoft/dion
// (dion_simple.py never transposes). The buffer M is its own, so the momentum before it has to be `no_momentum`. Q
// begins as a random matrix of rank ceil(fraction min(m, n)), rounded up to a multiple; a direction that the input does
// not have is kept from the last step, so that it can come back. P Q^T is not exactly orthogonal: Q's columns are
// normalised, not orthogonalized. Results do not depend on the signs of columns of Q. State: 1 scalar per parameter and
// min(m, n) times the rank. Needs: gemm, orthonormalize, random_normal.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "../detail/random_block.hpp"

namespace MATOPT_NAMESPACE {

enum class dion_transpose { automatic, never };
constexpr auto enum_names(dion_transpose) { return std::array<std::string_view, 2>{"auto", "never"}; }

namespace fn {
// x = kept = x / (n + eps), or old / (m + eps) where n, the norm of x's column, is zero; m: that of old's
struct normalize_or_keep {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& x, T& kept, T n, T m) const {
    const T fresh = math::one_if_positive(n), norm = fresh * n + (T(1) - fresh) * m;
    kept = x = (fresh * x + (T(1) - fresh) * kept) / (norm + T(eps));
  }
};
}  // namespace fn

struct dion_polar {
  static constexpr bool replaces_momentum = true;

  double mu = 0.95, rank_fraction = 1, eps = 1e-8;
  index_t rank_multiple = 1, power_iterations = 1, seed = 0;
  dion_transpose transpose = dion_transpose::automatic;

  static std::string name() { return "dion_polar"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("mu", self.mu, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("dion_rank_fraction", self.rank_fraction, range{.low = 0, .high = 1, .low_open = true});
    visit("dion_rank_multiple", self.rank_multiple, range{.low = 1});
    visit("dion_power_iterations", self.power_iterations, range{.low = 1, .high = 100});
    visit("dion_eps", self.eps, range{.low = 0, .low_open = true});
    visit("dion_transpose", self.transpose);
    visit("dion_seed", self.seed, range{.low = 0, .high = 9007199254740992.0});
  }

  index_t rank(index_t rows, index_t cols) const {
    const double wanted = rank_fraction * static_cast<double>(math::min(rows, cols));
    const index_t multiples = static_cast<index_t>(std::ceil(wanted / static_cast<double>(rank_multiple) - 1e-9));
    return math::min(rank_multiple * math::max(multiples, index_t{1}), math::min(rows, cols));
  }

  template <class S, class C>
  struct state {
    view<S> buffer;
    view<C> basis;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    const index_t m = l.row_count(), n = l.column_count();
    s.buffer = l.matrix("dion_momentum");
    s.basis = l.block("dion_basis", flips(m, n) ? m : n, rank(m, n));
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W>) const {
    detail::random_block(e, s.basis, static_cast<std::uint64_t>(seed));
  }

  template <class E, class St, class C>
  requires E::can_factor void orthogonalize(E& e, St& s, view<C> u) const {
    const auto frame = e.frame();
    const bool flip = flips(u.rows, u.cols);
    const index_t r = s.basis.cols;
    e.for_each(fn::add{}, u, as_const(s.buffer));  // Dion Alg. 1: B = M + G
    const view<C> b = flip ? u.t() : u;
    // q lies as the basis does: a pass over both wants to read both along their lines.
    const view<C> p = e.take(b.rows, r, true), q = e.take(b.cols, r), norm = e.take(1, r), kept = e.take(1, r);
    for (index_t i = 0; i < power_iterations; ++i) {
      e.gemm(C(1), b, i == 0 ? s.basis : q, C(0), p, p);
      e.orthonormalize(p, std::numeric_limits<C>::epsilon());  // Dion Alg. 1: P = orth(B Q)
      e.gemm(C(1), b.t(), p, C(0), q, q);                      // Dion Alg. 1: R = B^T P
    }
    e.gemm(C(mu - 1), p, q.t(), C(1), b, b);  // Dion Alg. 1: the error feedback, M = B - (1 - mu) P R^T
    e.for_each(fn::assign{}, s.buffer, as_const(u));

    detail::row_norms(e, norm.t(), q.t());
    detail::row_norms(e, kept.t(), s.basis.t());
    // Dion Alg. 1: Q = R with columns of norm 1; and the update P Q^T.
    e.for_each(fn::normalize_or_keep{eps}, q, s.basis, per_column(norm), per_column(kept));
    e.gemm(C(1), p, q.t(), C(0), b, b);
  }

 private:
  bool flips(index_t rows, index_t cols) const { return transpose == dion_transpose::automatic && rows < cols; }
};

}  // namespace MATOPT_NAMESPACE
