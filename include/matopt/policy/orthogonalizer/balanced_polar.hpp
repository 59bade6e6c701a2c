// The polar factor of a matrix whose longer side's lines are scaled so that those of the polar factor become equally
// long. With T = U, or U^T if rows < columns, of a x b with a > b:
//
//   d_i = 1 / max(||T_i||, eps)       O = Inner(diag(d) T)
//   repeat:   d_i <- d_i ((b / a) / max(||O_i||^2, 1e-14))^exponent       O = Inner(diag(d) T)
//
// A polar factor of a x b has a squared norm of b; if all its rows are equally long, each has sqrt(b / a). Aurora
// (tilde-research/aurora-release, whose code it follows) has `iterations` 2, which are two polar factors. A square
// matrix has rows of length 1 anyway, and gets Inner alone. A line of zeros stays zero. State: Inner's. Scratch: one
// copy of U. FLOPs: Inner's, `iterations` times, and 4 per parameter each time.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "newton_schulz.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// d = 1 / max(n, eps); 0 for n = 0
struct inverse_length {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& d, T n) const {
    d = math::one_if_positive(n) / math::max(n, T(eps));
  }
};
// d = d (share / max(n^2, 1e-14))^exponent, and finite: of rows as short as numbers can be d is large
struct balance {
  double share, exponent;
  template <class T>
  MATOPT_HD void operator()(T& d, T n) const {
    d = math::saturated(d * math::pow(T(share) / math::max(n * n, T(1e-14)), T(exponent)));
  }
};
}  // namespace fn

template <class Inner = newton_schulz<>>
struct balanced_polar {
  using decorates = Inner;
  static constexpr bool takes_norm = false, gives_parts = false, honours_rank = false;

  index_t iterations = 2;
  double exponent = 0.5, eps = negligible_norm;
  Inner inner{};

  static std::string name() { return "balanced_polar<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("balance_iterations", self.iterations, range{.low = 1, .high = 10});
    visit("balance_exponent", self.exponent, range{.low = 0, .high = 1});
    visit("balance_eps", self.eps, range{.low = 0, .low_open = true});
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }

  template <class E, class St, class C>
  requires detail::can_orthogonalize<Inner, E, St>
  void orthogonalize(E& e, St& s, view<C> u) const {
    if (u.rows == u.cols) return detail::orthogonalize(inner, e, s, u);
    const auto frame = e.frame();
    const view<C> tall = u.rows > u.cols ? u : u.t();
    const view<C> before = e.take_like(tall), length = e.take(tall.rows, 1), d = e.take(tall.rows, 1);
    const double share = static_cast<double>(tall.cols) / static_cast<double>(tall.rows);
    e.for_each(fn::assign{}, before, as_const(tall));
    detail::row_norms(e, length, tall);
    e.for_each(fn::inverse_length{eps}, d, as_const(length));
    for (index_t i = 0; i < iterations; ++i) {
      if (i > 0) {
        detail::row_norms(e, length, tall);
        e.for_each(fn::balance{share, exponent}, d, as_const(length));
      }
      e.for_each(fn::scaled{}, tall, as_const(before), per_row(d));
      detail::orthogonalize(inner, e, s, tall);
    }
  }
};

}  // namespace MATOPT_NAMESPACE
