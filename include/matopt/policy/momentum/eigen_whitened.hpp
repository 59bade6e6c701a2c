// Momentum whitened in the eigenbasis of Shampoo's factors, for an orthogonalizer that follows: SOAP-Muon's.
//
//   U = Inner(G)
//   once there are bases   P = Ql^T U Qr       V <- b V + (1 - b) P^2       D = Ql (P / max(V, eps^2)^power) Qr^T
//                          u = D ||U|| / ||D||                  the norm is Schatten's of order 4, or whitening_norm
//   otherwise              u = U
//   L <- b L + (1 - b) G G^T,  R <- b R + (1 - b) G^T G
//   after basis_start gradients   Q = eigenvectors of L and R, largest first
//   every f-th step from there    columns of Q sorted by diag(Q^T L Q), V along with them; Q <- the Q of L Q = Q R
//
// trust_gate: u = U + gate (D - U), brought to ||U|| again. gate = clamp((cos(D, U) - a) / (1 - a)) clamp(cos(D, G) /
// cos(U, G)), held in [floor, cap]; from step trust_floor_end to trust_fade_end the floor falls to 0, and then the cap
// goes. Steps are counted from 0, skipped ones included.
//
// The optimization track of modded-nanogpt, result "2690 steps" (2026-06-19), whose idea is credited to N. Vyas. It has
// basis_start = 1, so its second step already uses bases. After k gradients with k min(m, n) < max(m, n) the longer
// side's factor lacks rank, and the basis of what it lacks is the decomposition's choice: trajectories of correct
// programs then differ; from basis_start >= max / min on they do not. There the gate is on for the projection behind
// attention alone. V is not corrected for its beginning. Cosines are not floored here, so that the gate does not depend
// on the size of gradients. In a direction in which gradients have no part, P is only what rounding leaves of their
// other parts; therefore V counts as at least (u ||U||_F)^2, with u the unit of rounding.
//
// State: Inner's, 1 scalar per parameter and 2 m^2 + 2 n^2 per matrix. FLOPs per step: 6 mn(m + n), and 2 m^2 n + 2
// mn^2 for norms; a renewal about 5 (m^3 + n^3) more. Needs: gemm, svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "../../core/policy.hpp"
#include "../detail/eigenbases.hpp"
#include "../detail/schatten.hpp"
#include "momentum.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// v <- beta v + (1 - beta) p^2       p <- p / max(v, eps^2)^power, of a v that is resolved
struct whiten {
  double beta, eps, largest, resolved;  // largest: of p; resolved: relative to the norm of all p
  template <class T>
  MATOPT_HD void operator()(T& v, T& p, T norm) const {
    p = p / root(v, p, norm);
  }
  template <class T>
  MATOPT_HD T root(T& v, T& p, T norm) const {
    p = math::limited(p, T(largest));
    v = T(beta) * v + T(1 - beta) * p * p;
    return math::max(math::max(math::moment_root(v), T(eps)), T(resolved) * norm);
  }
};
struct whiten_by_power : whiten {
  double power;
  template <class T>
  MATOPT_HD void operator()(T& v, T& p, T norm) const {
    const T r = root(v, p, norm);
    p = p / math::pow(r, T(2 * power));
  }
};
// u = u to / n, both at least eps
struct bring_to_norm {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& u, T n, T to) const {
    u = u / math::max(n, T(eps)) * math::max(to, T(eps));
  }
};
// Three cosines, given the norms.
struct cosines {
  static constexpr int sums = 3, results = 3;
  template <class T>
  MATOPT_HD terms<T, 3> operator()(T d, T u, T g, T of_d, T of_u, T of_g) const {
    const T x = math::divide_or_zero(d, of_d), y = math::divide_or_zero(u, of_u), z = math::divide_or_zero(g, of_g);
    return {{x * y, x * z, y * z}};
  }
  template <class T, class A>
  MATOPT_HD static terms<A, 3> finish(const A* sum) {
    return {{sum[0], sum[1], sum[2]}};
  }
};
// In place of cos(D, U) and cos(D, G): how far D agrees and descends, both in [0, 1]. A formula of its own, because g++
// makes branches of a product of numbers that it has limited to 0 and 1.
struct agreement {
  double least;
  template <class T>
  MATOPT_HD void operator()(T& du, T& dg, T ug) const {
    du = math::min(math::max((du - T(least)) / T(1 - least), T(0)), T(1));
    dg = math::min(math::max(dg / math::max(ug, T(1e-8)), T(0)), T(1));
  }
};
struct trust {
  double floor, cap, floor_end, fade_end;
  template <class T>
  MATOPT_HD void operator()(T& gate, T agrees, T descends, T step) const {
    // What depends on the step alone is chosen by factors: a branch would be one in the loop.
    const T before = T(fade_end) - (step - T(1)), part = before / math::max(T(fade_end - floor_end), T(1e-20));
    const T fading = math::one_if_less(T(0), before), whole = math::one_if_less(T(1), part);
    const T lowest = T(floor) * (part * (T(1) - whole) + whole);  // below 0 once the floor is gone
    gate = math::min(math::max(agrees * descends, lowest), fading * T(cap) + (T(1) - fading));
  }
};
// u = u + gate (d - u)
struct blend {
  template <class T>
  MATOPT_HD void operator()(T& d, T u, T gate) const {
    d = u + gate * (d - u);
  }
};
}  // namespace fn

template <class Inner = nesterov_ema>
requires(!needs_reference<Inner> && !rates_by_column<Inner> && phase_count<Inner> == 1) struct eigen_whitened {
  using decorates = Inner;
  // 0: no bases yet, 1: the first bases come after the step, 2: an ordinary step, 3: the bases are renewed after it
  static constexpr index_t phases = 4;

  Inner inner{};
  double beta = 0.9, eps = 1e-8, power = 0.5;
  spectral_bound norm = spectral_bound::schatten4;
  index_t basis_start = 1, frequency = 1;
  bool spread_renewals = false;  // bucket i renews its bases i steps earlier, so that not all do in the same step
  bool trust_gate = false;
  double trust_agreement = 0.2, trust_floor = 0.45, trust_cap = 0.85;
  index_t trust_floor_end = 1375, trust_fade_end = 1625;

  static std::string name() { return "eigen_whitened<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
    visit("whitening_beta", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("whitening_eps", self.eps, range{.low = 0, .low_open = true});
    visit("whitening_power", self.power, range{.low = 0, .high = 1});
    visit("whitening_norm", self.norm);
    visit("basis_start", self.basis_start, range{.low = 1});
    visit("precondition_frequency", self.frequency, range{.low = 1});
    visit("spread_renewals", self.spread_renewals);
    visit("trust_gate", self.trust_gate);
    visit("trust_agreement", self.trust_agreement, range{.low = -1, .high = 1, .high_open = true});
    visit("trust_floor", self.trust_floor, range{.low = 0, .high = 1});
    visit("trust_cap", self.trust_cap, range{.low = 0, .high = 1});
    visit("trust_floor_end", self.trust_floor_end, range{.low = 0});
    visit("trust_fade_end", self.trust_fade_end, range{.low = 0});
  }
  void validate() const {
    if (norm == spectral_bound::aol)
      throw bad_value("whitening_norm", "aol", "frobenius, schatten4 or schatten8: a norm of the matrix");
    if (trust_cap < trust_floor)
      throw bad_value("trust_cap", detail::text(trust_cap), "at least trust_floor, " + detail::text(trust_floor));
    if (trust_fade_end < trust_floor_end)
      throw bad_value("trust_fade_end", detail::text(trust_fade_end),
                      "at least trust_floor_end, " + detail::text(trust_floor_end));
  }
  index_t phase(index_t step, index_t bucket) const {
    if (step + 1 <= basis_start) return step + 1 < basis_start ? 0 : 1;
    return (spread_renewals ? step + bucket : step) % frequency == 0 ? 3 : 2;
  }

  template <class S, class C>
  struct state {
    view<S> v;
    detail::kronecker_factors<C> factors;
    state_for<Inner, S, C> inner;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.v = l.squares("whitening_moment");
    detail::lay_out_factors(l, s.factors, math::max(l.row_count(), l.column_count()));
    lay_out(inner, l, s.inner);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::begin_bases(e, s.factors);
    detail::init(inner, e, s.inner, w);
  }

  template <class E, class St, class G, class C>
  requires(E::can_factor&& detail::takes_gradient<Inner, E, decltype(St::inner), view<const C>>)  //
      void accumulate(E& e, St& s, view<G> g, view<C> u) const {
    const view<C> gradient = e.take_like(u);
    e.for_each(fn::assign{}, gradient, as_const(g));
    detail::accumulate_all(inner, e, s.inner, as_const(gradient), u);
    if (e.phase() >= 2) whiten(e, s, as_const(gradient), u);

    detail::limit_for_products(e, gradient);
    detail::average_product(e, beta, 1 - beta, s.factors.left, gradient);
    detail::average_product(e, beta, 1 - beta, s.factors.right, gradient.t());
    if (e.phase() == 1) first_bases(e, s, gradient);
    if (e.phase() == 3) {
      detail::renew_sorted_basis(e, s.factors.left, s.factors.left_basis, s.v);
      detail::renew_sorted_basis(e, s.factors.right, s.factors.right_basis, s.v.t());
    }
  }

 private:
  template <class E, class St, class C>
  void whiten(E& e, St& s, view<const C> gradient, view<C> u) const {
    const auto frame = e.frame();
    const view<C> wanted = detail::spectral_bound_of(e, norm, u);
    const view<C> frobenius = detail::spectral_bound_of(e, spectral_bound::frobenius, u);
    view<C> plain = u;
    if (trust_gate) plain = e.take_like(u), e.for_each(fn::assign{}, plain, as_const(u));

    detail::turn(e, s.factors, u, u, true);
    const fn::whiten formula{beta, eps, detail::square_limit<C>(s.v),
                             static_cast<double>(std::numeric_limits<C>::epsilon())};
    if (power == 0.5)
      e.for_each(formula, s.v, u, per_matrix(frobenius));
    else
      e.for_each(fn::whiten_by_power{formula, power}, s.v, u, per_matrix(frobenius));
    detail::turn(e, s.factors, u, u, false);
    bring_to(e, u, wanted);
    if (!trust_gate) return;

    const view<C> of_u = detail::spectral_bound_of(e, spectral_bound::frobenius, u), gate = e.take(1, 1);
    const view<C> of_g = e.take(1, 1), cosines = e.take(1, 3);
    const auto g = detail::frobenius(e, gradient);
    e.for_each(fn::scaled_root{}, of_g, as_const(g.scale), as_const(g.squares));
    e.reduce(fn::cosines{}, cosines, as_const(u), as_const(plain), gradient, per_matrix(of_u), per_matrix(frobenius),
             per_matrix(of_g));
    const view<C> agrees = cosines.col_block(0, 1), descends = cosines.col_block(1, 1);
    e.for_each(fn::agreement{trust_agreement}, agrees, descends, as_const(cosines.col_block(2, 1)));
    e.for_each(
        fn::trust{trust_floor, trust_cap, static_cast<double>(trust_floor_end), static_cast<double>(trust_fade_end)},
        gate, as_const(agrees), as_const(descends), e.step());
    e.for_each(fn::blend{}, u, as_const(plain), per_matrix(gate));
    bring_to(e, u, wanted);
  }
  template <class E, class C>
  void bring_to(E& e, view<C> u, view<C> wanted) const {
    const auto frame = e.frame();
    const view<C> n = detail::spectral_bound_of(e, norm, u);
    e.for_each(fn::bring_to_norm{eps}, u, per_matrix(n), per_matrix(wanted));
  }
  // After a single gradient its singular vectors, after several the eigenvectors of the factors.
  template <class E, class St, class C>
  void first_bases(E& e, St& s, view<C> gradient) const {
    if (basis_start == 1) return detail::bases_of_gradient(e, s.factors, gradient);
    detail::basis_of_factor(e, s.factors.left, s.factors.left_basis);
    detail::basis_of_factor(e, s.factors.right, s.factors.right_basis);
  }
};

}  // namespace MATOPT_NAMESPACE
