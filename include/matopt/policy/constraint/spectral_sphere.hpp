// Weights of a fixed spectral norm R = sphere_radius sqrt(fan_out / fan_in).
//
//   retract   hard      W <- W R / (sigma + 1e-8)
//             dynamic   W <- W (1 - sphere_strength lr sign(sigma - R))          (sigma, u, v) = leading triple of W
//
//   spectral_retraction   retract(W), then the inner step                                           MuonSphere
//   spectral_sphere       retract(W), then the inner step along msign(M^ + lambda u v^T)            SSO
//                         M^ = M / ||M||_F,  lambda the root of f(lambda) = <u v^T, msign(M^ + lambda u v^T)>
//
// Paper: Spectral Sphere Optimizer, arXiv 2601.08393 (Unakar/Megatron-LM): momentum 0.9 with Nesterov, 20 power
// iterations, strength 0.05. With that lambda the step is tangent to the sphere, so sigma changes in second order of lr
// only. f rises with lambda: its root is bracketed from 1e-3 by sphere_doublings doublings, then bisected. Every matrix
// runs all of them; one without a bracket takes lambda = 0.
//
// spectral_sphere orthogonalizes itself: what reaches it is the momentum, and the rule's orthogonalizer slot has to
// hold no_orthogonalizer (another one would flatten M first, and lambda would be a root for something else). With
// spectral_ratio as scale the step is the paper's. It ends slightly off the sphere, and the next one begins with
// retract; sphere_finish retracts at the end, too.
//
// The settings of the inner orthogonalizer have the prefix sphere_. A zero weight stays where the step leaves it; its
// lambda is 0. State: the estimate's. FLOPs: 3 + doublings + bisections polar factors per step. Needs: gemm, and what
// the estimate and the orthogonalizer need.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "spectral_normalize.hpp"
#include "weight_polar.hpp"

namespace MATOPT_NAMESPACE {

enum class sphere_retraction { hard, dynamic };
constexpr auto enum_names(sphere_retraction) { return std::array<std::string_view, 2>{"hard", "dynamic"}; }

namespace fn {
struct retract_hard {
  double radius;
  template <class T>
  MATOPT_HD void operator()(T& w, T s, T) const {
    w = w * (T(radius) / (s + T(1e-8)));
  }
};
struct retract_dynamic {
  double radius, strength;
  template <class T>
  MATOPT_HD void operator()(T& w, T s, T lr) const {
    w *= T(1) - T(strength) * lr * math::sign(s - T(radius));
  }
};
// x = m + lambda u v
struct add_outer {
  template <class T>
  MATOPT_HD void operator()(T& x, T m, T u, T v, T lambda) const {
    x = m + lambda * u * v;
  }
};
// sum x u v
struct along_outer {
  template <class T>
  MATOPT_HD T operator()(T x, T u, T v) const {
    return x * u * v;
  }
};
// The search for the root, of 1 x 1 numbers. It lies on this `side` of 0, between `inside` and `beyond`, once that is
// `found`.
struct bracket_side {
  template <class T>
  MATOPT_HD void operator()(T& side, T& inside, T& beyond, T& found, T f) const {
    side = -math::sign(f);
    inside = T(0), beyond = side * T(1e-3);
    found = T(0);
  }
};
struct bracket_widen {
  template <class T>
  MATOPT_HD void operator()(T& inside, T& beyond, T& found, T f, T side) const {
    if (found > T(0)) return;
    if (f * side >= T(0) && side != T(0)) {
      found = T(1);
      return;
    }
    inside = beyond;
    beyond *= T(2);
  }
};
struct bracket_halve {
  template <class T>
  MATOPT_HD void operator()(T& inside, T& beyond, T f, T middle, T side) const {
    (f * side < T(0) ? inside : beyond) = middle;
  }
};
struct bracket_middle {
  template <class T>
  MATOPT_HD void operator()(T& middle, T inside, T beyond, T found) const {
    middle = found > T(0) ? (inside + beyond) / T(2) : T(0);
  }
};
}  // namespace fn

template <norm_estimate Estimate = power_iteration>
struct spectral_retraction {
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;

  Estimate estimate{};
  double radius = 1;
  sphere_retraction how = sphere_retraction::hard;
  double strength = 0.05;
  bool finish = false;

  static std::string name() { return "spectral_retraction<" + Estimate::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Estimate>) Estimate::settings(self.estimate, visit);
    visit("sphere_radius", self.radius, range{.low = 0, .low_open = true});
    visit("sphere_how", self.how);
    visit("sphere_strength", self.strength, range{.low = 0});
    visit("sphere_finish", self.finish);
  }
  template <class S, class C>
  using state = state_for<Estimate, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(estimate, l, s);
  }
  template <class E, class St, class W, class U, class C>
  void before(E& e, St& s, view<W> w, view<U>, matrix_broadcast<C> lr, double) const {
    const auto frame = e.frame();
    pull(e, s, w, lr, detail::take_triple(e, w));
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C> lr, double) const {
    const auto frame = e.frame();
    if (finish) pull(e, s, w, lr, detail::take_triple(e, w));
  }
  // One retraction; `top` is the leading triple before it.
  template <class E, class St, class W, class C>
  void pull(E& e, St& s, view<W> w, matrix_broadcast<C> lr, const singular_triple<C>& top) const {
    const double r = radius * detail::spectral_unit(true, w.rows, w.cols);
    estimate.estimate(e, s, w, top);
    if (how == sphere_retraction::hard)
      e.for_each(fn::retract_hard{r}, w, per_matrix(top.value), lr);
    else
      e.for_each(fn::retract_dynamic{r, strength}, w, per_matrix(top.value), lr);
  }
};

template <stateless_orthogonalizer Orthogonalizer = newton_schulz<>, norm_estimate Estimate = power_iteration>
struct spectral_sphere {
  static constexpr bool orthogonalizes = true;
  static constexpr bool needs_svd = matopt::needs_svd<Estimate>;
  static constexpr bool needs_full_rank = honours_rank<Orthogonalizer>;

  spectral_retraction<Estimate> retraction{};
  Orthogonalizer orthogonalizer{};
  index_t doublings = 10, bisections = 20;

  static std::string name() { return "spectral_sphere<" + Orthogonalizer::name() + "," + Estimate::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    spectral_retraction<Estimate>::settings(self.retraction, visit);
    detail::prefixed_settings("sphere_", self.orthogonalizer, visit);
    visit("sphere_doublings", self.doublings, range{.low = 1, .high = 60});
    visit("sphere_bisections", self.bisections, range{.low = 0, .high = 200});
  }
  void validate() const { detail::validate(orthogonalizer); }
  template <class S, class C>
  using state = state_for<Estimate, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(retraction, l, s);
  }
  template <class E, class St, class W, class U, class C>
  void before(E& e, St& s, view<W> w, view<U> u, matrix_broadcast<C> lr, double) const {
    const auto frame = e.frame();
    const auto top = detail::take_triple(e, w);
    retraction.pull(e, s, w, lr, top);

    const view<C> unit = e.take_like(u), norm = e.take(1, 1), lambda = e.take(1, 1), f = e.take(1, 1);
    const view<C> side = e.take(1, 1), inside = e.take(1, 1), beyond = e.take(1, 1), found = e.take(1, 1);
    detail::matrix_norm(e, norm, u);
    e.for_each(fn::divide{}, unit, as_const(u), per_matrix(norm));
    // u <- msign(M^ + at u v^T); f <- its part along u v^T
    const auto turn = [&](view<C> at) {
      e.for_each(fn::add_outer{}, u, as_const(unit), per_row(top.left), per_column(top.right.t()), per_matrix(at));
      detail::polar(orthogonalizer, e, u);
    };
    const auto evaluate = [&](view<C> at) {
      turn(at);
      e.reduce(fn::along_outer{}, f, as_const(u), per_row(top.left), per_column(top.right.t()));
    };
    e.for_each(fn::set_constant{0}, lambda);
    evaluate(lambda);
    e.for_each(fn::bracket_side{}, side, inside, beyond, found, as_const(f));
    for (index_t i = 0; i <= doublings; ++i) {
      evaluate(beyond);
      e.for_each(fn::bracket_widen{}, inside, beyond, found, as_const(f), as_const(side));
    }
    for (index_t i = 0; i < bisections; ++i) {
      e.for_each(fn::bracket_middle{}, lambda, as_const(inside), as_const(beyond), as_const(found));
      evaluate(lambda);
      e.for_each(fn::bracket_halve{}, inside, beyond, as_const(f), as_const(lambda), as_const(side));
    }
    e.for_each(fn::bracket_middle{}, lambda, as_const(inside), as_const(beyond), as_const(found));
    turn(lambda);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C> lr, double scale) const {
    retraction.after(e, s, w, lr, scale);
  }
};

}  // namespace MATOPT_NAMESPACE
