// The top-k polar factor by warm-started subspace iteration in which every orthonormalisation is a polar factor:
// products and elementwise passes only.
//
//   X = M / rms(M)                                          transposed if rows < columns, so that n <= m
//   Z = (V + noise G / sqrt(n)) diag(1 .. 1/2)              V: n x k, from the last step;  G ~ N(0, 1), drawn anew
//   repeat `iterations` times:   Y = polar(X Z)   (m x k)   Z = polar(X^T Y)   (n x k)
//   V <- Z     ->     Y Z^T, the last column of Z times pass.tail()               k = n:  polar(M), nothing else
//
// Y Z^T is the U_k V_k^T of NuMuon (arXiv 2603.03597, eq. 13), found otherwise than by the paper's Algorithm 3.
// For any orthonormal Y the Z that maximises <M, Y Z^T> is polar(M^T Y), so the update is the best in the span of Y.
// Subspace iteration with a random start: Halko, Martinsson, Tropp, arXiv 0909.4061; Dion (arXiv 2504.05295) and
// PowerSGD carry the subspace from step to step as here. polar() is newton_schulz with polar_express, in the type that
// the backend's products are best done in: `polar_steps` steps in the last iteration, and `inner_polar_steps` before,
// where only the span is needed and all that matters is that no direction gets lost in rounding.
//
// The noise lets directions come back that V has lost; a column that is still zero begins as a column of the identity,
// with more noise. The weights 1 .. 1/2 change no span, but turn V step by step towards singular vectors in falling
// order (it maximises tr(Z^T X^T X Z D) over orthonormal Z, with D falling), so that a rank that falls drops the least,
// and the last column is the one that the tail belongs to.
//
// Limits: singular values of the update are 1 to 1e-2 where those of M are above 2e-3 ||M||_F, and less below (in
// float16 noise of the size of 1e-1 may appear there). A first step, without V, reaches about 0.9 of the best
// <M, update> rather than 0.98 and more; so does a step after the rank rose by many. With tail < 1 and k = n the last
// direction is a coordinate. Zero gives zero. State: n n scalars per matrix: the rank is not known when it is laid out.
// Scratch per matrix: (m + n) k and what newton_schulz takes for m x k; mn more if the products' type is not the
// compute type. FLOPs per iteration: 4 m n k and two polar factors of about 4 m k^2 + 8 k^3 steps; 2 m n k at the
// end. Needs: gemm, random_normal.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "newton_schulz.hpp"
#include "svd_polar.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// x = (1 - slope row) (v + noise unit g); where all of the row v is zero, a row of the identity and more noise
struct perturbed_basis {
  double unit, noise, slope;
  template <class T>
  MATOPT_HD void operator()(T& x, T v, T g, T largest, T row, T column) const {
    const T warm = math::one_if_positive(largest), cold = T(1) - warm;
    const T start = warm * v + cold * math::max(T(0), T(1) - math::abs(row - column));
    x = (T(1) - T(slope) * row) * (start + (warm * T(noise) + cold * T(0.3)) * T(unit) * g);
  }
};
}  // namespace fn

struct subspace_polar {
  static constexpr bool honours_rank = true, takes_norm = true;

  index_t iterations = 2;
  index_t polar_steps = 6, inner_polar_steps = 2;
  double noise = 0.05;
  index_t seed = 0;

  static std::string name() { return "subspace_polar"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("subspace_iterations", self.iterations, range{.low = 1, .high = 64});
    visit("subspace_polar_steps", self.polar_steps, range{.low = 1, .high = 99});
    visit("subspace_inner_polar_steps", self.inner_polar_steps, range{.low = 1, .high = 99});
    visit("subspace_noise", self.noise, range{.low = 0, .high = 1});
    visit("subspace_seed", self.seed, range{.low = 0, .high = 9007199254740992.0});
  }

  template <class S, class C>
  struct state {
    view<C> basis;  // V^T, in its first k rows
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    const index_t n = math::min(l.row_count(), l.column_count());
    s.basis = l.block("subspace_basis", n, n);
  }

  template <class E, class To>
  using result = std::conditional_t<std::is_same_v<To, detail::anywhere>, view<typename E::product>, void>;

  // Anywhere, the result is u if that is of the products' type, and otherwise lies in scratch or in u's memory.
  template <class E, class St, class C, detail::to_memory To>
  requires(E::template can_multiply<typename E::product>) result<E, To> orthogonalize(
      E& e, St& s, view<C> u, const detail::scaled_norm<C>& norm, To)
  const {
    if constexpr (std::is_same_v<To, detail::anywhere>) {
      return directions(e, s, u, norm);
    } else {
      const auto frame = e.frame();
      const auto x = directions(e, s, u, norm);
      if constexpr (!std::is_same_v<typename E::product, C>) {
        const auto apart = e.template take_like<typename E::product>(u);  // x may lie in u's memory
        e.for_each(fn::assign{}, apart, as_const(x)), e.for_each(fn::assign{}, u, as_const(apart));
      }
    }
  }

 private:
  template <class E, class St, class C>
  auto directions(E& e, St& s, view<C> u, const detail::scaled_norm<C>& norm) const {
    using T = typename E::product;
    const bool wide = u.rows < u.cols;
    const view<C> given = wide ? u.t() : u;
    const index_t n = given.cols, k = math::min(e.rank(), n);
    view<T> x;
    if (k == n) {
      no_state none;
      x = polar<T>(polar_steps).orthogonalize(e, none, given, norm, detail::anywhere{});
      e.for_each(fn::multiply{}, x.col_block(n - 1, 1), e.tail());
      return wide ? x.t() : x;
    }
    if constexpr (std::is_same_v<T, C>)
      x = given;
    else
      x = e.template take_like<T>(given);
    const auto frame = e.frame();
    const view<C> largest = e.take(k, 1), random = e.take_batch(1, 1, n + k - 1);
    e.reduce_rows(fn::abs_max{}, largest, as_const(s.basis.row_block(0, k)));
    e.random_normal(random, static_cast<std::uint64_t>(seed));
    const view<C> factors = detail::normalizing_factors(
        e, norm, 1 / std::sqrt(static_cast<double>(given.rows) * static_cast<double>(n)), 0, true);
    const index_t at_once = math::max(index_t{1}, e.template product_batch<T>(k, given.rows));
    for (index_t first = 0; first < given.batch; first += at_once) {
      const index_t count = math::min(at_once, given.batch - first);
      const auto part = [&](auto v) { return v.matrices(first, count); };
      detail::normalize_by(e, part(x), part(given), part(factors));
      top_directions(e, part(x), part(s.basis.row_block(0, k)), part(largest), random);
    }
    return wide ? x.t() : x;
  }
  template <class T>
  static newton_schulz<T> polar(index_t steps) {
    return {.coefficients = coefficient_set::polar_express, .steps = steps, .eps = 0};
  }
  template <class E, class T>
  static void make_polar(E& e, view<T> x, index_t steps) {
    using C = typename E::compute;
    const auto frame = e.frame();
    const detail::scaled_norm<C> norm{e.take_batch(x.batch, 1, 2)};
    e.reduce(fn::scaled_norm{}, norm.pair, as_const(x));
    no_state none;
    polar<T>(steps).orthogonalize(e, none, x, norm, detail::anywhere{});
  }
  // Replaces x, m x n, by the polar factor of its part along the basis, k x n, after improving that.
  template <class E, class T, class C>
  void top_directions(E& e, view<T> x, view<C> basis, view<C> largest, view<C> random) const {
    const auto frame = e.frame();
    const index_t k = basis.rows, n = basis.cols;
    // Row i is the numbers from the i-th on; the same for every matrix: what a matrix gets must not depend on its place
    // in the bucket.
    const view<const C> noisy{random.data, k, n, 1, 1, x.batch, 0};
    const view<T> y = e.template take_batch<T>(x.batch, k, x.rows), z = e.template take_batch<T>(x.batch, k, n);
    const double slope = 0.5 / static_cast<double>(math::max(index_t{1}, k - 1));
    e.for_each(fn::perturbed_basis{1 / std::sqrt(static_cast<double>(n)), noise, slope}, z, as_const(basis), noisy,
               per_row(largest), row_number{}, column_number{});
    for (index_t i = 0; i < iterations; ++i) {
      const index_t steps = i + 1 < iterations ? inner_polar_steps : polar_steps;
      e.gemm(1, z, x.t(), 0, y, y);
      make_polar(e, y, steps);
      e.gemm(1, y, x, 0, z, z);
      make_polar(e, z, steps);
    }
    e.for_each(fn::assign{}, basis, as_const(z));
    e.for_each(fn::multiply{}, z.row_block(k - 1, 1), e.tail());  // NuMuon eq. 12: the residual direction
    e.gemm(1, y.t(), z, 0, x, x);                                 // NuMuon eq. 13: U_k V_k^T
  }
};

}  // namespace MATOPT_NAMESPACE
