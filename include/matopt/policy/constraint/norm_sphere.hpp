// Weights that keep the norm they began with: of the matrix, or of each row or column.
//
//   hyperball   u <- R u / ||u||         W <- inner step         W <- R W / ||W||         R = ||W_0||_F
//   oblique     u_i <- u_i - <u_i, w_i> w_i / ||w_i||^2         W <- inner step         W_i <- R_i W_i / ||W_i||
//
// hyperball: Hyperball, MuonH (arXiv 2606.16899). Its lr is an angle: use unit_scale. The paper stores R, as here; the
// optimization track of modded-nanogpt reads it again in each step, which drifts by rounding.
// oblique: the oblique manifold (NVIDIA Emerging-Optimizers' ObliqueSGD; Mano, arXiv 2601.23000, alternates the axes).
// Lines are rows by default; oblique_axis = matrix is the Frobenius sphere with a tangent update.
// Neither can leave zero: a matrix, or line, that begins at zero stays there. Inner must do without decay, which the
// retraction would undo, and must leave its update in u's coordinates. State: 1 scalar per matrix or line. FLOPs: 10
// per parameter. Needs: elementwise verbs, reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../detail/line_norms.hpp"
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// x = target x / n, with x / 0 taken as 0
struct to_norm {
  template <class T>
  MATOPT_HD void operator()(T& x, T n, T target) const {
    x = math::divide_or_zero(x, n) * target;
  }
};
// u = u - a w / n
struct remove_part {
  template <class T>
  MATOPT_HD void operator()(T& u, T w, T n, T a) const {
    u -= a * math::divide_or_zero(w, n);
  }
};
}  // namespace fn

struct hyperball {
  static std::string name() { return "hyperball"; }

  template <class S, class C>
  struct state {
    view<C> radius;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.radius = l.scalar("hyperball_radius");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::matrix_norm(e, s.radius, w);
  }
  template <class E, class St, class W, class U, class C>
  void before(E& e, St& s, view<W>, view<U> u, matrix_broadcast<C>, double) const {
    set(e, s, u);
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C>, double) const {
    set(e, s, w);
  }

 private:
  template <class E, class St, class T>
  void set(E& e, St& s, view<T> x) const {
    const auto frame = e.frame();
    const auto norm = e.take(1, 1);
    detail::matrix_norm(e, norm, x);
    e.for_each(fn::to_norm{}, x, per_matrix(norm), per_matrix(s.radius));
  }
};

struct oblique {
  norm_axis axis = norm_axis::rows;

  static std::string name() { return "oblique"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("oblique_axis", self.axis);
  }

  template <class S, class C>
  struct state {
    view<C> radius;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.radius = detail::line_state(l, axis, "oblique_radius");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::line_norms(e, axis, s.radius, w);
  }
  template <class E, class St, class W, class U, class C>
  void before(E& e, St&, view<W> w, view<U> u, matrix_broadcast<C>, double) const {
    const auto frame = e.frame();
    const auto norm = detail::take_lines(e, axis, w), radial = detail::take_lines(e, axis, w);
    detail::line_norms(e, axis, norm, w);
    detail::line_parts(e, axis, radial, u, w, norm);
    detail::by_line(axis, [&](auto per) { e.for_each(fn::remove_part{}, u, as_const(w), per(norm), per(radial)); });
  }
  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C>, double) const {
    const auto frame = e.frame();
    const auto norm = detail::take_lines(e, axis, w);
    detail::line_norms(e, axis, norm, w);
    detail::by_line(axis, [&](auto per) { e.for_each(fn::to_norm{}, w, per(norm), per(s.radius)); });
  }
};

}  // namespace MATOPT_NAMESPACE
