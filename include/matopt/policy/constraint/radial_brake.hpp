// Brakes on the growth of ||W||_F.
//
//   radial_brake         c = <u, W> / ||W||^2       u <- u - (1 - s) c W       s = outward if c < 0, inward elsewhere
//   first_order_radius   W <- inner step, then to norm ||W|| - lr scale <u, W> / ||W||: what the step's radial part
//                        alone would give, without the growth that a finite tangential part brings
//   norm_brake           W+ = inner step       ||W+|| <- ||W|| + s (||W+|| - ||W||)       s = outward if that grows
//
// The first two are results #29 and later of the optimization track of modded-nanogpt, in the order brake, floor,
// radius:
//   projected<radial_brake, projected<update_floor, projected<first_order_radius>>>
// norm_brake is NVIDIA Emerging-Optimizers' hook. All have outward 0.5 and inward 1. first_order_radius undoes a decay
// of its inner constraint. A zero weight is left to the step. State: none. FLOPs: 6 per parameter each. Needs:
// elementwise verbs, reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "norm_sphere.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// u = u - (1 - s) a w / n, a = <u, w> / n
struct brake_part {
  double outward, inward;
  template <class T>
  MATOPT_HD void operator()(T& u, T w, T n, T a) const {
    const T outside = math::one_if<T>(a < T(0)), s = outside * T(outward) + (T(1) - outside) * T(inward);
    u -= (T(1) - s) * a * math::divide_or_zero(w, n);
  }
};
// n = max(least, n - lr scale a)
struct move_radius {
  double scale, least;
  template <class T>
  MATOPT_HD void operator()(T& n, T a, T lr) const {
    n = math::max(T(least), n - lr * T(scale) * a);
  }
};
// w = w target / n, where there was a norm before, or if there is a least one
struct to_norm_unless_zero {
  double least;
  template <class T>
  MATOPT_HD void operator()(T& w, T n, T target, T before) const {
    const T moves = math::one_if<T>((n > T(0)) & (before + T(least) > T(0))), stays = T(1) - moves;
    w = w / (moves * n + stays) * (moves * target + stays);
  }
};
// w = w (before + s (n - before)) / n
struct brake_norm {
  double outward, inward;
  template <class T>
  MATOPT_HD void operator()(T& w, T n, T before) const {
    const T outside = math::one_if<T>(n > before), s = outside * T(outward) + (T(1) - outside) * T(inward);
    const T moves = math::one_if<T>((n > T(0)) & (before > T(0))), stays = T(1) - moves;
    w = w / (moves * n + stays) * (moves * (before + s * (n - before)) + stays);
  }
};
}  // namespace fn

struct radial_brake {
  double outward = 0.5, inward = 1;

  static std::string name() { return "radial_brake"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("brake_outward", self.outward, range{.low = 0});
    visit("brake_inward", self.inward, range{.low = 0});
  }
  template <class E, class St, class W, class U, class Rate>
  void before(E& e, St&, view<W> w, view<U> u, Rate, double) const {
    const auto frame = e.frame();
    const auto norm = e.take(1, 1), radial = e.take(1, 1);
    detail::matrix_norm(e, norm, w);
    detail::line_parts(e, norm_axis::matrix, radial, u, w, norm);
    e.for_each(fn::brake_part{outward, inward}, u, as_const(w), per_matrix(norm), per_matrix(radial));
  }
};

struct first_order_radius {
  double least = 0;

  static std::string name() { return "first_order_radius"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("radius_least", self.least, range{.low = 0});
  }
  template <class S, class C>
  struct state {
    view<C> before, target;  // scratch, from before to after
  };
  template <class Layout, class St>
  void layout(Layout&, St&) const {}
  template <class E, class St, class W, class U, class C>
  void before(E& e, St& s, view<W> w, view<U> u, matrix_broadcast<C> lr, double scale) const {
    s.before = e.take(1, 1), s.target = e.take(1, 1);
    const auto frame = e.frame();
    const auto radial = e.take(1, 1);
    detail::matrix_norm(e, s.before, w);
    detail::line_parts(e, norm_axis::matrix, radial, u, w, s.before);
    e.for_each(fn::assign{}, s.target, as_const(s.before));
    e.for_each(fn::move_radius{scale, least}, s.target, as_const(radial), lr);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C>, double) const {
    const auto frame = e.frame();
    const auto norm = e.take(1, 1);
    detail::matrix_norm(e, norm, w);
    e.for_each(fn::to_norm_unless_zero{least}, w, per_matrix(norm), per_matrix(s.target), per_matrix(s.before));
  }
};

struct norm_brake {
  double outward = 0.5, inward = 1;

  static std::string name() { return "norm_brake"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("norm_brake_outward", self.outward, range{.low = 0});
    visit("norm_brake_inward", self.inward, range{.low = 0});
  }
  template <class S, class C>
  struct state {
    view<C> before;  // scratch, from before to after
  };
  template <class Layout, class St>
  void layout(Layout&, St&) const {}
  template <class E, class St, class W, class U, class Rate>
  void before(E& e, St& s, view<W> w, view<U>, Rate, double) const {
    s.before = e.take(1, 1);
    detail::matrix_norm(e, s.before, w);
  }
  template <class E, class St, class W, class Rate>
  void after(E& e, St& s, view<W> w, Rate, double) const {
    const auto frame = e.frame();
    const auto norm = e.take(1, 1);
    detail::matrix_norm(e, norm, w);
    e.for_each(fn::brake_norm{outward, inward}, w, per_matrix(norm), per_matrix(s.before));
  }
};

}  // namespace MATOPT_NAMESPACE
