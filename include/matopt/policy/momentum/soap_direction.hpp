// SOAP's direction: Adam in the eigenbasis of Shampoo's preconditioner.
//
//   first step   L = (1 - bs) G G^T,  R = (1 - bs) G^T G,  Q = their eigenvectors, which are the singular vectors of G,
//                largest first; nothing moves
//   then         g = Ql^T G Qr        m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
//                u = sqrt(1 - beta2^t) / (1 - beta1^t) Ql (m / (sqrt(v) + eps)) Qr^T          Alg. 3, from line 8 on
//                L <- bs L + (1 - bs) G G^T,  R <- bs R + (1 - bs) G^T G                      Alg. 3, after line 12
//   every f-th   columns of Q sorted by diag(Q^T L Q), v along with them; Q <- the Q of L Q = Q R (Alg. 4); m turned
//                into the new bases
//
// The numbers are those of the paper, which leaves out the first step, the bias corrections and the sorting. Vyas et
// al.: SOAP (arXiv 2409.11321); follows nikhilvyas/SOAP: no step and no decay in the first call (its learning rate is
// 0), eps on the root that is not corrected, bs = beta2 unless `shampoo_beta` >= 0, v is sorted but not turned. A side
// longer than `max_precond_dim` has no preconditioner. The decay comes after the step there: `decay_after`. W does not
// depend on the signs of Q's columns, but it does on the basis inside an eigenspace of equal eigenvalues: after one
// gradient the longer side has such a space, so trajectories on rectangular matrices differ between correct programs.
// Whether a step renews the bases goes by the host's count of steps, skipped ones included; if the very first step is
// skipped, the bases begin as identities. Bases are orthonormal to rounding on every gradient: what L and R lack (dead
// rows, equal rows, zeros) is completed. In a direction in which gradients have no part, g is only what rounding leaves
// of their other parts; therefore v counts as at least (u ||G||)^2 in the quotient, with u the unit of rounding and
// ||G||^2 the trace of L.
//
// State: 2 scalars per parameter and 2 m^2 + 2 n^2 per matrix. FLOPs: 6 mn(m + n) per step, every f-th about 7 (m^3 +
// n^3) + 6 mn(m + n) more. Needs: gemm, svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "../../core/policy.hpp"
#include "../detail/eigenbases.hpp"
#include "adam_direction.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// Adam's moments and quotient, uncorrected; nothing before the first call has been made. `squares`: what `resolved`
// is relative to, the mean ||G||^2.
struct moments_in_basis {
  double beta1, beta2, eps, largest, resolved;  // largest: of g
  bool correct;
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& u, T g, T c1, T c2, T started, T squares) const {
    const T on = math::one_if<T>(started > T(0)), off = T(1) - on, corrected = math::one_if<T>(correct);
    g = math::limited(g, T(largest));
    m = (on * T(beta1) + off) * m + on * T(1 - beta1) * g;
    v = (on * T(beta2) + off) * v + on * T(1 - beta2) * g * g;
    u = m / (math::moment_root(math::max(v, T(resolved) * T(resolved) * squares)) + T(eps));  // Alg. 3, line 8
    u *= on * (corrected * math::divide_or_zero(math::sqrt(c2), c1) + (T(1) - corrected));
  }
};
// u = u / rms, with `squares` the sum over `count` entries
struct divide_by_rms {
  double count;
  template <class T>
  MATOPT_HD void operator()(T& u, T squares) const {
    u = u / (T(1e-30) + math::sqrt(squares / T(count)));
  }
};
}  // namespace fn

struct soap_direction {
  static constexpr index_t phases = 3;  // 0: the first step, 1: an ordinary one, 2: the bases are renewed

  double beta1 = 0.95, beta2 = 0.95, eps = 1e-8;
  double shampoo_beta = -1;  // negative: beta2
  index_t frequency = 10, max_precond_dim = 10000;
  bool correct_bias = true, normalize_grads = false;
  bool spread_renewals = false;  // bucket i renews its bases i steps earlier, so that not all do in the same step

  static std::string name() { return "soap_direction"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("eps", self.eps, range{.low = 0, .low_open = true});
    visit("shampoo_beta", self.shampoo_beta, range{.low = -1, .high = 1, .high_open = true});
    visit("precondition_frequency", self.frequency, range{.low = 1});
    visit("max_precond_dim", self.max_precond_dim, range{.low = 0});
    visit("correct_bias", self.correct_bias);
    visit("normalize_grads", self.normalize_grads);
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
    view<C> c1, c2, started;
    view<C> rate;  // scratch, from accumulate to the end of the step
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.m = l.matrix("first_moment"), s.v = l.squares("second_moment");
    detail::lay_out_factors(l, s.factors, max_precond_dim);
    s.c1 = l.scalar("first_correction"), s.c2 = l.scalar("second_correction"), s.started = l.scalar("started");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W>) const {
    detail::begin_bases(e, s.factors);
  }

  template <class E, class St, class G, class C>
  requires E::can_factor void accumulate(E& e, St& s, view<G> g, view<C> u) const {
    s.rate = e.take(1, 1);
    e.for_each(fn::multiply_into{}, s.rate, e.lr(), per_matrix(s.started));
    const auto frame = e.frame();
    const view<C> gradient = e.take_like(u);
    e.for_each(fn::assign{}, gradient, as_const(g));
    // Moments and factors see the same matrix: what the factors say of the gradients' size bounds the quotient.
    detail::limit_for_products(e, gradient);

    detail::turn(e, s.factors, gradient, u, true);
    const view<C> squares = mean_squares(e, s.factors);
    e.for_each(fn::started_corrections{beta1, beta2}, s.c1, s.c2, per_matrix(s.started));
    e.for_each(fn::moments_in_basis{beta1, beta2, eps, detail::square_limit<C>(s.v),
                                    static_cast<double>(std::numeric_limits<C>::epsilon()), correct_bias},
               s.m, s.v, u, as_const(u), per_matrix(s.c1), per_matrix(s.c2), per_matrix(s.started),
               per_matrix(squares));
    detail::turn(e, s.factors, u, u, false);  // Alg. 3, after line 9
    if (normalize_grads) normalize(e, u);

    if (e.phase() == 2) detail::turn(e, s.factors, s.m, s.m, false);
    const double bs = shampoo_beta >= 0 ? shampoo_beta : beta2;  // Alg. 3, after line 12: L and R
    detail::average_product(e, bs, 1 - bs, s.factors.left, gradient);
    detail::average_product(e, bs, 1 - bs, s.factors.right, gradient.t());
    if (e.phase() == 0) detail::bases_of_gradient(e, s.factors, gradient);
    if (e.phase() == 2) {
      detail::renew_sorted_basis(e, s.factors.left, s.factors.left_basis, s.v);
      detail::renew_sorted_basis(e, s.factors.right, s.factors.right_basis, s.v.t());
      detail::turn(e, s.factors, s.m, s.m, true);
    }
    e.for_each(fn::set_one{}, s.started);
  }
  template <class E, class St>
  auto rate(E&, St& s) const {
    return per_matrix(s.rate);
  }

 private:
  // The trace of a preconditioner. Without one nothing is rotated, so that rounding loses nothing: 0.
  template <class E, class C>
  auto mean_squares(E& e, const detail::kronecker_factors<C>& f) const {
    const auto sum = e.take(1, 1);
    const auto side = f.left.rows > 0 ? f.left : f.right;
    if (side.rows > 0)
      e.reduce(fn::identity{}, sum, as_const(side.diagonal()));
    else
      e.for_each(fn::set_zero{}, sum);
    return sum;
  }
  template <class E, class C>
  void normalize(E& e, view<C> u) const {
    const auto frame = e.frame();
    const view<C> squares = e.take(1, 1);
    e.reduce(fn::square{}, squares, as_const(u));
    e.for_each(fn::divide_by_rms{static_cast<double>(u.rows) * static_cast<double>(u.cols)}, u, per_matrix(squares));
  }
};

}  // namespace MATOPT_NAMESPACE
