// KL-SOAP's direction as NVIDIA Emerging-Optimizers has it: Adam in the eigenbases that already know the gradient.
//
//   L <- L + a (G Qr diag(1 / lr) Qr^T G^T / n - L)     R <- R + a (G^T Ql diag(1 / ll) Ql^T G / m - R)
//                            from the old Q and l, which are held above eps;   a = (1 - b) / (1 - b^t)
//   Ql, ll   the first time by decomposition, then Ql <- the Q of L Ql and ll = diag(Ql^T L Ql), both sorted by ll,
//            largest first;   Qr, lr of R likewise
//   m turned into the new bases;  P = Ql^T G Qr       m <- beta1 m + (1 - beta1) P       v <- beta2 v + (1 - beta2) P^2
//   u = Ql (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)) Qr^T
//
// arXiv 2509.03378 in the form of Emerging-Optimizers' KlSoapV3; basis_method = eigh decomposes L and R in every step
// (REKLS).
//
// Three traps of that code are avoided, unless settings say otherwise. (1) skip_first: the first gradient is diagonal
// in its own bases, and what rounding leaves beside the diagonal would be divided by itself or by eps. So the first
// step only measures, as SOAP's does; nothing decays. (2) relative_eps: eigenvalues are held above eps times the
// largest one, and are 1 while there are none; with an absolute eps the first L is 1 / eps too large, and the null
// space of a rectangular matrix is rounding noise about eps. (3) max_update_rms: bases may turn far in a step, and m
// with them, but v stays; an update that is longer than this root mean square is scaled down to it. In a direction in
// which gradients have no part, v counts as at least (u ||G||)^2, with u the unit of rounding.
//
// State: 2 scalars per parameter, 2 m^2 + 2 n^2 + m + n + 5 per matrix. FLOPs: 12 mn(m + n) + about 5 (m^3 + n^3) per
// step. Needs: gemm, svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <limits>
#include <string_view>

#include "../../core/policy.hpp"
#include "../detail/kl_factors.hpp"

namespace MATOPT_NAMESPACE {

enum class basis_method { qr, eigh };
constexpr auto enum_names(basis_method) { return std::array<std::string_view, 2>{"qr", "eigh"}; }

namespace fn {
// r = 1 / sqrt(max(l, eps)), or with `relative` l in units of the largest; 1 if that is 0
struct inverse_root_of_eigenvalue {
  double eps;
  bool relative;
  template <class T>
  MATOPT_HD void operator()(T& r, T l, T largest) const {
    const T some = math::one_if<T>(largest > T(0)), of_largest = math::one_if<T>(relative),
            none = of_largest * (T(1) - some);
    const T least = T(eps) * (of_largest * largest + (T(1) - of_largest));
    const T held = math::max(math::max(l, least), std::numeric_limits<T>::min());
    r = T(1) / math::sqrt(held * (T(1) - none) + none);
  }
};
// c <- beta c + (1 - beta): 1 - beta^t after t steps
struct correction {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& c) const {
    c = T(beta) * c + T(1 - beta);
  }
};
// side <- side + (1 - beta) / c (sum - side)
struct corrected_average {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& side, T sum, T c) const {
    side += T(1 - beta) / c * (sum - side);
  }
};
// Adam's moments and quotient, corrected; nothing where `on` is 0. `size`: the norm of gradients.
struct corrected_moments_in_basis {
  double beta1, beta2, eps, largest, resolved;  // largest: of p
  template <class T>
  MATOPT_HD void operator()(T& m, T& v, T& u, T p, T c1, T c2, T on, T size) const {
    const T off = T(1) - on, least = T(resolved) * size;
    p = math::limited(p, T(largest));
    m = (on * T(beta1) + off) * m + on * T(1 - beta1) * p;
    v = (on * T(beta2) + off) * v + on * T(1 - beta2) * p * p;
    const T root = math::max(math::moment_root(v), least) / math::sqrt(on * c2 + off);
    u = on * m / (on * c1 + off) / (root + T(eps));
  }
};
// u = u min(1, most / rms), with `squares` the sum over `count` entries
struct limit_rms {
  double most, count;
  template <class T>
  MATOPT_HD void operator()(T& u, T squares) const {
    const T rms = math::sqrt(squares / T(count));
    u *= math::divide_or_zero(T(most), math::max(rms, T(most)));
  }
};
}  // namespace fn

struct emerging_kl_direction {
  static constexpr index_t phases = 2;  // 0: the first step, 1: the others

  double beta1 = 0.9, beta2 = 0.95, shampoo_beta = 0.95, eps = 1e-8;
  basis_method method = basis_method::qr;
  bool skip_first = true, relative_eps = true;
  double max_update_rms = 1;  // 0: none

  static std::string name() { return "emerging_kl_direction"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("shampoo_beta", self.shampoo_beta, range{.low = 0, .high = 1, .high_open = true});
    visit("eps", self.eps, range{.low = 0, .low_open = true});
    visit("basis_method", self.method);
    visit("skip_first", self.skip_first);
    visit("relative_eps", self.relative_eps);
    visit("max_update_rms", self.max_update_rms, range{.low = 0});
  }
  index_t phase(index_t step) const { return step == 0 ? 0 : 1; }

  template <class S, class C>
  struct state {
    view<S> m, v;
    detail::kronecker_factors<C> factors;
    view<C> left_eigenvalues, right_eigenvalues, correction, c1, c2, started, size;
    view<C> on, rate;  // scratch, from accumulate to the end of the step
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.m = l.matrix("first_moment"), s.v = l.squares("second_moment");
    detail::lay_out_factors(l, s.factors, math::max(l.row_count(), l.column_count()));
    s.left_eigenvalues = l.rows("left_eigenvalues"), s.right_eigenvalues = l.columns("right_eigenvalues");
    s.correction = l.scalar("factor_correction"), s.c1 = l.scalar("first_correction");
    s.c2 = l.scalar("second_correction"), s.started = l.scalar("started"), s.size = l.scalar("gradient_size");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W>) const {
    detail::begin_bases(e, s.factors);
  }

  template <class E, class St, class G, class C>
  requires E::can_factor void accumulate(E& e, St& s, view<G> g, view<C> u) const {
    s.rate = e.take(1, 1), s.on = e.take(1, 1);
    if (skip_first)
      e.for_each(fn::assign{}, s.on, as_const(s.started));
    else
      e.for_each(fn::set_one{}, s.on);
    e.for_each(fn::multiply_into{}, s.rate, e.lr(), per_matrix(s.on));
    const auto frame = e.frame();
    const view<C> gradient = e.take_like(u), whole = e.take_like(u);
    e.for_each(fn::assign{}, whole, as_const(g));
    e.for_each(fn::assign{}, gradient, as_const(whole));
    remember(e, s, gradient);

    detail::turn(e, s.factors, s.m, s.m, false);
    if (e.phase() == 0) {
      detail::bases_of_gradient(e, s.factors, gradient);
      measure(e, s.factors.left, s.factors.left_basis, s.left_eigenvalues);
      measure(e, s.factors.right, s.factors.right_basis, s.right_eigenvalues.t());
    } else {
      renew(e, s.factors.left, s.factors.left_basis, s.left_eigenvalues);
      renew(e, s.factors.right, s.factors.right_basis, s.right_eigenvalues.t());
    }
    detail::turn(e, s.factors, s.m, s.m, true);

    detail::turn(e, s.factors, whole, u, true);
    detail::follow_size(e, beta2, s.size, whole);
    e.for_each(fn::started_corrections{beta1, beta2}, s.c1, s.c2, as_const(s.on));
    e.for_each(fn::corrected_moments_in_basis{beta1, beta2, eps, detail::square_limit<C>(s.v),
                                              static_cast<double>(std::numeric_limits<C>::epsilon())},
               s.m, s.v, u, as_const(u), per_matrix(s.c1), per_matrix(s.c2), per_matrix(s.on), per_matrix(s.size));
    detail::turn(e, s.factors, u, u, false);
    if (max_update_rms > 0) {
      const view<C> squares = e.take(1, 1);
      e.reduce(fn::square{}, squares, as_const(u));
      e.for_each(fn::limit_rms{max_update_rms, static_cast<double>(u.rows) * static_cast<double>(u.cols)}, u,
                 per_matrix(squares));
    }
    e.for_each(fn::set_one{}, s.started);
  }
  template <class E, class St>
  auto rate(E&, St& s) const {
    return per_matrix(s.rate);
  }

 private:
  // Factors from the old bases and eigenvalues.
  template <class E, class St, class C>
  void remember(E& e, St& s, view<C> gradient) const {
    const auto frame = e.frame();
    const view<C> left_roots = e.take(1, gradient.rows), right_roots = e.take(1, gradient.cols);
    roots(e, s.left_eigenvalues.t(), left_roots), roots(e, s.right_eigenvalues, right_roots);
    const view<C> left = detail::whitened_by(e, gradient, s.factors.right_basis, right_roots);
    const view<C> right = detail::whitened_by(e, gradient.t(), s.factors.left_basis, left_roots);
    e.for_each(fn::correction{shampoo_beta}, s.correction);
    average(e, s, s.factors.left, left), average(e, s, s.factors.right, right);
  }
  template <class E, class C>
  void roots(E& e, view<C> eigenvalues, view<C> out) const {
    const auto frame = e.frame();
    const view<C> largest = e.take(1, 1);
    e.reduce(fn::abs_max{}, largest, as_const(eigenvalues));
    e.for_each(fn::inverse_root_of_eigenvalue{eps, relative_eps}, out, as_const(eigenvalues), per_matrix(largest));
  }
  template <class E, class St, class C>
  void average(E& e, const St& s, view<C> side, view<C> whitened) const {
    const auto frame = e.frame();
    const view<C> sum = e.take(side.rows, side.rows, true);
    e.gemm_symmetric(C(1 / static_cast<double>(whitened.cols)), whitened, whitened.t(), C(0), sum, sum);
    e.for_each(fn::corrected_average{shampoo_beta}, side, as_const(sum), per_matrix(s.correction));
  }
  template <class E, class C>
  void measure(E& e, view<C> side, view<C> basis, view<C> eigenvalues) const {
    const auto frame = e.frame();
    const view<C> image = e.take(side.rows, side.rows, true), carried = e.take(side.rows, 1);
    detail::image_of_basis(e, side, basis, image);
    detail::carried_by(e, basis, image, carried);
    e.for_each(fn::assign{}, eigenvalues, as_const(carried));
  }
  template <class E, class C>
  void renew(E& e, view<C> side, view<C> q, view<C> eigenvalues) const {
    if (method == basis_method::eigh) return detail::basis_of_factor(e, side, q, eigenvalues);
    const auto frame = e.frame();
    const index_t n = side.rows;
    const view<C> permutation = e.take(n, n, true), before = e.take(n, n, true), after = e.take(n, n, true);
    detail::renew_basis(e, side, q);
    measure(e, side, q, eigenvalues);
    detail::descending_order(e, eigenvalues, permutation);
    e.for_each(fn::assign{}, before, as_const(q));
    e.gemm(C(1), before, permutation, C(0), after, after);
    e.for_each(fn::assign{}, q, as_const(after));
    detail::sort_rows(e, permutation, eigenvalues);
  }
};

}  // namespace MATOPT_NAMESPACE
