// A direction turned away from where the input is largest: O = Inner(U), then
//
//   D = O - (contra / 2) U / ||U||_2       u <- D ||O||_F / ||D||_F
//
// For the polar factor, a singular direction of U with sigma gets 1 - (contra / 2) sigma / sigma_1, before the norm is
// restored. Contra-Muon, of the optimizer track of modded-nanogpt, whose code it follows: ||U||_2 by power iterations
// that begin with a constant vector. Such an estimate is too small where the first direction is nearly orthogonal to
// it; here it is never below ||U||_F / sqrt(min(m, n)), so that nothing is divided by zero. Zero gives zero. State:
// Inner's. Scratch: one copy of U. FLOPs: 4 per parameter and iteration, and 12 more. Needs: gemm, and what Inner
// needs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"
#include "../detail/line_norms.hpp"
#include "newton_schulz.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// y = y / ||y||, the norm as scale and sum of scaled squares; 0 stays
struct to_unit {
  template <class T>
  MATOPT_HD void operator()(T& y, T scale, T squares) const {
    y = math::divide_or_zero(y, scale * math::sqrt(squares));
  }
};
// f = -half / max(n, least); n as scale and sum of scaled squares
struct away_factor {
  double half, least;
  template <class T>
  MATOPT_HD void operator()(T& f, T scale, T squares) const {
    f = T(-half) / math::max(scale * math::sqrt(squares), T(least));
  }
};
// y = y + f x
struct add_times {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T f) const {
    y += f * x;
  }
};
// f = n / m, both as scale and sum of scaled squares; 0 for m = 0
struct norm_ratio {
  template <class T>
  MATOPT_HD void operator()(T& f, T scale, T squares, T other_scale, T other_squares) const {
    f = math::divide_or_zero(scale * math::sqrt(squares), other_scale * math::sqrt(other_squares));
  }
};
}  // namespace fn

template <class Inner = newton_schulz<>>
struct contra_polar {
  using decorates = Inner;
  static constexpr bool takes_norm = false, gives_parts = false, honours_rank = false;

  double contra = 0.4;
  index_t iterations = 5;
  Inner inner{};

  static std::string name() { return "contra_polar<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("contra", self.contra, range{.low = 0, .high = 1});
    visit("contra_iterations", self.iterations, range{.low = 1, .high = 100});
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }

  template <class E, class St, class C>
  requires detail::can_orthogonalize<Inner, E, St>
  void orthogonalize(E& e, St& s, view<C> u) const {
    const auto frame = e.frame();
    const view<C> before = e.take_like(u), away = e.take(1, 1), factor = e.take(1, 1);
    const auto norm = detail::frobenius(e, u);
    detail::normalize_by(e, before, u, detail::normalizing_factors(e, norm, 1, 0, true));
    spectral_part(e, before, away);
    detail::orthogonalize(inner, e, s, u);
    const auto whole = detail::frobenius(e, u);
    e.for_each(fn::add_times{}, u, as_const(before), per_matrix(away));
    const auto left = detail::frobenius(e, u);
    e.for_each(fn::norm_ratio{}, factor, as_const(whole.scale), as_const(whole.squares), as_const(left.scale),
               as_const(left.squares));
    e.for_each(fn::multiply{}, u, per_matrix(factor));
  }

 private:
  // factor = -(contra / 2) / ||x||_2, of ||x||_F = 1.
  template <class E, class C>
  void spectral_part(E& e, view<C> x, view<C> factor) const {
    const auto frame = e.frame();
    const view<C> right = e.take(x.cols, 1), left = e.take(x.rows, 1);
    const auto norm = detail::take_norm(e);
    const auto multiply = [&](view<C> by, view<C> from, view<C> to) {
      e.gemm(C(1), by, from, C(0), to, to);
      e.reduce(fn::scaled_norm{}, norm.pair, as_const(to));
    };
    const auto to_unit = [&](view<C> v) {
      e.for_each(fn::to_unit{}, v, per_matrix(norm.scale), per_matrix(norm.squares));
    };
    e.for_each(fn::set_constant{1 / std::sqrt(static_cast<double>(x.cols))}, right);
    for (index_t i = 0; i < iterations; ++i) {
      multiply(x, right, left), to_unit(left);
      multiply(x.t(), left, right), to_unit(right);
    }
    multiply(x, right, left);
    const double least = 1 / std::sqrt(static_cast<double>(math::min(x.rows, x.cols)));
    e.for_each(fn::away_factor{contra / 2, least}, factor, as_const(norm.scale), as_const(norm.squares));
  }
};

}  // namespace MATOPT_NAMESPACE
