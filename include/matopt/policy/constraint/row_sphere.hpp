// AngularMuown's geometry: W = Diag(g) U with unit rows U, no carried direction norm; an explicit multiplier kappa
// turns the rows slower with time.
//
//   lift      U = Diag(1/g) W       d = rowsum(G . U)       g' = Diag(g) (G - Diag(d) U)
//   retract   V = U - lr scale kappa u       g <- magnitude rule(d), |g| >= 1e-7       W <- Diag(g) Diag(1 / ||V_i||) V
//   kappa     (1 + c max(0, t - warmup))^-p, t = 0 in the first step
//
// Paper: AngularMuown, arXiv 2606.23637; written from the official code, fhueb/angular-muown. kappa does not multiply
// the radial rate; neither the update nor the momentum is projected to the tangent space, as there. Rows of norm <=
// 1e-7 start with g = sqrt(0.33). State: 1 scalar per row and the magnitude rule's. Needs: elementwise verbs, row
// reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "weight_normalization.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// d = rowsum(G . D) and rowsum(G^2), D = W / g; the squares, in units that keep them finite, bound what follows
struct sphere_sums {
  static constexpr int sums = 2, results = 2;
  template <class T>
  MATOPT_HD terms<T, 2> operator()(T grad, T w, T g) const {
    const T scaled = grad * T(1 / largest_squared<T>);
    return {{grad * (w / g), scaled * scaled}};
  }
  template <class T, class A>
  MATOPT_HD static terms<A, 2> finish(const A* sum) {
    return {{sum[0], sum[1]}};
  }
};
// g ||G_i||, which no entry of the row's gradient g (G_i - d D_i) exceeds, in these units
struct sphere_bound {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T g, T squares) const {
    return math::saturated(math::abs(g) * math::sqrt(squares));
  }
};
// g (G - d W / g). Where that is beyond what momentum can add up, all of the matrix is divided by one number, so that
// its direction stays: products of weights with gradients may be larger than any number.
struct sphere_gradient {
  template <class T>
  MATOPT_HD void operator()(T& u, T grad, T w, T g, T d, T bound) const {
    constexpr double most = largest_input<T> / largest_squared<T>;
    const T within = T(most) / math::max(bound, T(most));
    u = math::limited((g * within) * difference(grad, d * (w / g)), T(largest_input<T>));
  }
};
// V = W / g - lr scale kappa(t) u, in the place of u
struct turn_direction {
  double scale, decay_scale, decay_degree, warmup;
  template <class T>
  MATOPT_HD void operator()(T& u, T w, T g, T lr, T step) const {
    const T late = math::max(T(0), step - T(1) - T(warmup));
    const T kappa = math::pow(T(1) + T(decay_scale) * late, -T(decay_degree));
    u = w / g - lr * T(scale) * kappa * u;
  }
};
// W = g V / max(||V_i||, 1e-7)
struct compose_unit_rows {
  template <class T>
  MATOPT_HD void operator()(T& w, T direction, T g, T n) const {
    w = g * (direction / math::max(n, T(least_magnitude)));
  }
};
}  // namespace fn

template <class Magnitude = adam_magnitude>
struct row_sphere {
  Magnitude magnitude{};
  double angle_decay_scale = 0.001, angle_decay_degree = 1;
  index_t angle_warmup = 0;

  static std::string name() { return "row_sphere<" + Magnitude::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Magnitude>) Magnitude::settings(self.magnitude, visit);
    visit("angle_decay_scale", self.angle_decay_scale, range{.low = 0});
    visit("angle_decay_degree", self.angle_decay_degree, range{.low = 0});
    visit("angle_warmup", self.angle_warmup, range{.low = 0});
  }

  template <class S, class C>
  struct state {
    view<C> g;
    view<C> gradient;  // scratch, from lift to retract
    state_for<Magnitude, S, C> magnitude;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.g = l.rows("magnitude");
    lay_out(magnitude, l, s.magnitude);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::row_norms(e, s.g, w);
    e.for_each(fn::initial_magnitude{fn::least_magnitude}, s.g);
  }
  template <class E, class St, class W>
  void resync(E& e, St& s, view<W> w) const {
    const auto frame = e.frame();
    const auto norm = e.take(w.rows, 1);
    detail::row_norms(e, norm, w);
    e.for_each(fn::initial_magnitude{fn::least_magnitude}, norm);
    e.for_each(fn::take_written_norm{}, s.g, as_const(norm));
  }

  template <class E, class St, class W, class G>
  auto lift(E& e, St& s, view<W> w, G g) const {
    const auto sums = e.take(w.rows, 2), bound = e.take(1, 1);
    s.gradient = sums.col_block(0, 1);
    e.reduce_rows(fn::sphere_sums{}, sums, as_const(g), as_const(w), per_row(s.g));
    e.reduce(fn::sphere_bound{}, bound, as_const(s.g), as_const(sums.col_block(1, 1)));
    return elementwise(fn::sphere_gradient{}, update_slot{}, as_const(g), as_const(w), per_row(s.g),
                       per_row(s.gradient), per_matrix(as_const(bound)));
  }

  template <class E, class St, class W, class U, class C>
  void retract(E& e, St& s, view<W> w, view<U> u, matrix_broadcast<C> lr, double scale) const {
    const auto frame = e.frame();
    const auto norm = e.take(w.rows, 1);
    e.for_each(fn::turn_direction{scale, angle_decay_scale, angle_decay_degree, static_cast<double>(angle_warmup)}, u,
               as_const(w), per_row(s.g), lr, e.step());
    detail::row_norms(e, norm, u);
    run_formula(e,
                magnitude.formula(e, s.magnitude, as_const(s.gradient), lr) >>
                    elementwise(fn::floor_magnitude{}, update_slot{}),
                s.g);
    e.for_each(fn::compose_unit_rows{}, w, as_const(u), per_row(s.g), per_row(norm));
  }
};

}  // namespace MATOPT_NAMESPACE
