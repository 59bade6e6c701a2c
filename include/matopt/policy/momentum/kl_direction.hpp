// KL-SOAP's and KL-Shampoo's directions: in the eigenbases of the Kronecker covariance that is nearest to the
// gradients' in the sense of Kullback and Leibler.
//
//   first step   L = (1 - b) G G^T / n,  R = (1 - b) G^T G / m,  Q = their eigenvectors, largest first; nothing moves
//   then         P = Ql^T G Qr
//     kl_soap_direction      m <- beta1 m + (1 - beta1) P    v <- beta2 v + (1 - beta2) P^2
//                            u = Ql (m / (sqrt(v) + eps)) Qr^T
//     kl_shampoo_direction   m <- beta1 m + (1 - beta1) G    h = rl rr    u = Ql (h / (1 + h eps) . Ql^T m Qr) Qr^T
//   and, from the old Q, rl and rr
//                L <- b L + (1 - b) / n G Qr diag(rr^2) Qr^T G^T     R <- b R + (1 - b) / m G^T Ql diag(rl^2) Ql^T G
//                el <- b el + (1 - b) mean over columns of (P rr)^2   and er likewise;   r = min(1 / sqrt(e), limit)
//   every f-th   Q <- the Q of L Q = Q R, columns in their order; KL-SOAP's m turned into the new bases
//
// Lin et al.: KL-Shampoo and KL-SOAP (arXiv 2509.03378); follows the authors' code (yorkerlin/KL-Methods): e begins at
// 0.1 whatever the gradients are, so the size of the first ones matters; moments are not corrected for their beginning;
// the decay comes after the step: `decay_after`. limit is 4000, but with limit_by_size at most the side's length and at
// least 10; the first r is not limited. NVIDIA Emerging-Optimizers' form is emerging_kl_direction.hpp. Whether a step
// renews the bases goes by the host's count of steps, skipped ones included; if the very first step is skipped, the
// bases begin as identities. In a direction in which gradients have no part, P is only what rounding leaves of their
// other parts; therefore v counts as at least (u ||G||)^2, with u the unit of rounding. For f > 1 and rectangular
// matrices, trajectories depend on the basis that the decomposition gives to what the first gradient lacks.
//
// limit_quotient (not in the authors' code): where bases turn, m is turned and v is not, and m may then be larger than
// any gradients that v has seen allow. The quotient is held below what m and v of the same numbers can have, (1 -
// beta1) / sqrt((1 - beta2) (1 - beta1^2 / beta2)), if there is such a bound.
//
// State: 2 scalars per parameter (kl_shampoo_direction: 1), 2 m^2 + 2 n^2 + m + n and 2 (1) per matrix. FLOPs: 8 mn(m +
// n) per step, every f-th about 5 (m^3 + n^3) + 4 mn(m + n) more. Needs: gemm, svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <limits>

#include "../../core/policy.hpp"
#include "../detail/kl_factors.hpp"
#include "../detail/line_norms.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// Adam's moments and quotient, uncorrected; nothing before the first call has been made. `size`: the norm of gradients.
struct kl_moments {
  double beta1, beta2, eps, largest, resolved, most;  // largest: of p; most: of |u|
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& u, T p, T started, T size) const {
    const T on = math::one_if<T>(started > T(0)), off = T(1) - on;
    p = math::limited(p, T(largest));
    m = (on * T(beta1) + off) * m + on * T(1 - beta1) * p;
    v = (on * T(beta2) + off) * v + on * T(1 - beta2) * p * p;
    u = math::limited(on * m / (math::max(math::moment_root(v), T(resolved) * size) + T(eps)), T(most));
  }
};
// m <- beta m + (1 - beta) g
struct kl_mean {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& m, T g, T started) const {
    const T on = math::one_if<T>(started > T(0)), off = T(1) - on;
    m = (on * T(beta) + off) * m + on * T(1 - beta) * g;
  }
};
// u = u h / (1 + h eps), h = a b
struct kl_precondition {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& u, T a, T b) const {
    const T h = math::saturated(a * b);
    u *= h / (T(1) + h * T(eps));
  }
};
// r = min(1 / sqrt(e), limit), e = beta / r^2 + (1 - beta) sum / count
struct kl_inverse_root {
  double beta, count, limit;
  template <class T>
  MATOPT_HD void operator()(T& r, T sum) const {
    r = math::min(T(1) / math::sqrt(T(beta) / (r * r) + T(1 - beta) * (sum / T(count))), T(limit));
  }
};
}  // namespace fn

template <bool Adam>
struct kl_direction {
  static constexpr index_t phases = 3;  // 0: the first step, 1: an ordinary one, 2: the bases are renewed

  double beta1 = 0.9, beta2 = 0.98, eps = 1e-8;  // beta2: of kl_soap_direction
  double shampoo_beta = Adam ? -1 : 0.98;        // negative: beta2
  index_t frequency = 10;
  double initial_eigenvalue = 0.1, root_limit = 4000;
  bool limit_by_size = true;
  bool full_first_factor = false;  // L = G G^T / n in the first step
  bool limit_quotient = true;      // of kl_soap_direction
  bool spread_renewals = false;    // bucket i renews its bases i steps earlier, so that not all do in the same step

  static std::string name() { return Adam ? "kl_soap_direction" : "kl_shampoo_direction"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    if constexpr (Adam) visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("eps", self.eps, range{.low = 0, .low_open = true});
    visit("shampoo_beta", self.shampoo_beta, range{.low = Adam ? -1.0 : 0.0, .high = 1, .high_open = true});
    visit("precondition_frequency", self.frequency, range{.low = 1});
    visit("initial_eigenvalue", self.initial_eigenvalue, range{.low = 0, .low_open = true});
    visit("root_limit", self.root_limit, range{.low = 0, .low_open = true});
    visit("limit_by_size", self.limit_by_size);
    visit("full_first_factor", self.full_first_factor);
    if constexpr (Adam) visit("limit_quotient", self.limit_quotient);
    visit("spread_renewals", self.spread_renewals);
  }
  index_t phase(index_t step, index_t bucket) const {
    if (step == 0) return 0;
    return (spread_renewals ? step + bucket : step) % frequency == 0 ? 2 : 1;
  }

  template <class S, class C>
  struct state {
    view<S> m, v;
    detail::kronecker_factors<C> factors;
    view<C> left_roots, right_roots, started, size;  // roots: 1 / sqrt(e)
    view<C> rate;                                    // scratch, from accumulate to the end of the step
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.m = l.matrix("first_moment");
    if constexpr (Adam) s.v = l.squares("second_moment"), s.size = l.scalar("gradient_size");
    detail::lay_out_factors(l, s.factors, math::max(l.row_count(), l.column_count()));
    s.left_roots = l.rows("left_inverse_root"), s.right_roots = l.columns("right_inverse_root");
    s.started = l.scalar("started");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W>) const {
    detail::begin_bases(e, s.factors);
    const fn::set_constant begin{1 / std::sqrt(initial_eigenvalue)};
    e.for_each(begin, s.left_roots), e.for_each(begin, s.right_roots);
  }

  template <class E, class St, class G, class C>
  requires E::can_factor void accumulate(E& e, St& s, view<G> g, view<C> u) const {
    s.rate = e.take(1, 1);
    e.for_each(fn::multiply_into{}, s.rate, e.lr(), per_matrix(s.started));
    const auto frame = e.frame();
    const view<C> gradient = e.take_like(u), p = e.take_like(u);
    e.for_each(fn::assign{}, gradient, as_const(g));
    detail::turn(e, s.factors, gradient, p, true);
    direction(e, s, gradient, p, u);

    if constexpr (Adam)
      if (e.phase() == 2) detail::turn(e, s.factors, s.m, s.m, false);
    if (e.phase() == 0) {
      const double take = full_first_factor ? 1 : 1 - factor_beta();
      detail::limit_for_products(e, gradient);
      detail::average_product(e, 0, take / static_cast<double>(u.cols), s.factors.left, gradient);
      detail::average_product(e, 0, take / static_cast<double>(u.rows), s.factors.right, gradient.t());
      detail::bases_of_gradient(e, s.factors, gradient);
    } else {
      remember(e, s, gradient, p);
    }
    if (e.phase() == 2) {
      detail::renew_basis(e, s.factors.left, s.factors.left_basis);
      detail::renew_basis(e, s.factors.right, s.factors.right_basis);
      if constexpr (Adam) detail::turn(e, s.factors, s.m, s.m, true);
    }
    e.for_each(fn::set_one{}, s.started);
  }
  template <class E, class St>
  auto rate(E&, St& s) const {
    return per_matrix(s.rate);
  }

 private:
  double factor_beta() const { return shampoo_beta >= 0 ? shampoo_beta : beta2; }
  double limit(index_t side) const {
    return limit_by_size ? std::fmax(10, std::fmin(static_cast<double>(side), root_limit)) : root_limit;
  }
  // Of |m| / sqrt(v) where both have seen the same numbers. Without a bound (beta1^2 >= beta2) any will do.
  double largest_quotient() const {
    const double rest = (1 - beta2) * (1 - beta1 * beta1 / beta2);
    return limit_quotient && rest > 0 ? (1 - beta1) / std::sqrt(rest) : 1e30;
  }
  template <class E, class St, class C>
  void direction(E& e, St& s, view<C> gradient, view<C> p, view<C> u) const {
    if constexpr (Adam) {
      detail::follow_size(e, beta2, s.size, gradient);
      e.for_each(fn::kl_moments{beta1, beta2, eps, detail::square_limit<C>(s.v),
                                static_cast<double>(std::numeric_limits<C>::epsilon()), largest_quotient()},
                 s.m, s.v, u, as_const(p), per_matrix(s.started), per_matrix(s.size));
    } else {
      e.for_each(fn::kl_mean{beta1}, s.m, as_const(gradient), per_matrix(s.started));
      detail::turn(e, s.factors, s.m, u, true);
      e.for_each(fn::kl_precondition{eps}, u, per_row(s.left_roots), per_column(s.right_roots));
    }
    detail::turn(e, s.factors, u, u, false);
  }
  // Factors and roots, all from the old bases and roots.
  template <class E, class St, class C>
  void remember(E& e, St& s, view<C> gradient, view<C> p) const {
    const auto frame = e.frame();
    const double b = factor_beta(), m = static_cast<double>(p.rows), n = static_cast<double>(p.cols);
    const view<C> left = detail::whitened_by(e, gradient, s.factors.right_basis, s.right_roots);
    const view<C> right = detail::whitened_by(e, gradient.t(), s.factors.left_basis, s.left_roots.t());
    detail::average_product(e, b, (1 - b) / n, s.factors.left, left);
    detail::average_product(e, b, (1 - b) / m, s.factors.right, right);
    const view<C> of_rows = e.take(p.rows, 1), of_columns = e.take(1, p.cols);
    const fn::whitened_square square{detail::largest_whitened<C>(p.rows, p.cols)};
    e.reduce_rows(square, of_rows, as_const(p), per_column(s.right_roots));
    e.reduce_rows(square, of_columns.t(), as_const(p.t()), per_column(s.left_roots.t()));
    e.for_each(fn::kl_inverse_root{b, n, limit(p.rows)}, s.left_roots, as_const(of_rows));
    e.for_each(fn::kl_inverse_root{b, m, limit(p.cols)}, s.right_roots, as_const(of_columns));
  }
};

using kl_soap_direction = kl_direction<true>;
using kl_shampoo_direction = kl_direction<false>;

}  // namespace MATOPT_NAMESPACE
