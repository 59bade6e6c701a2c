// Muown's geometry: W = Diag(g) D, D with unit rows, R = Diag(r) D the unnormalised direction. The matrix rule moves R,
// the magnitude rule moves g.
//
//   lift      D = Diag(1/g) W       d = rowsum(G . D)       g' = Diag(g / r) (G - Diag(d) D)                Alg. 1
//   retract   R <- Diag(r) D - lr scale u       g <- magnitude rule(d)       r <- ||R_i||                   Alg. 1
//             W <- Diag(g / r) R - lr decay W_old                                                  Alg. 1, App. C
//
// R is not stored: D and r give it back. Paper: Muown, arXiv 2605.10797, Algorithm 1, and for Nesterov's form, the
// scale and the decay Appendix C.
// Where public implementations differ, and what this one does:
//
// * Decay. decay_on = weight (Appendix C and the official code, and the default): W <- W - lr decay W_old, then
//   g <- ||W_i|| with the sign of g kept; the official code drops the sign, which turns a row around when g is
//   negative. decay_on = magnitude (NVIDIA's): g <- g (1 - lr decay). The double decay of the official data-parallel
//   class is not offered.
// * Zero rows. Rows with ||W_i|| <= 1e-12 start with g = r = sqrt(0.33), as in the authors' record runs; the official
//   class divides by zero. In the step that gives such a row its direction r stays, or the row would turn by 45 degrees
//   in the next one. |g| never falls below 1e-7.
// * Blocks. The official code splits every 3n x n matrix into three; here the caller states row blocks.
//
// State: 2 scalars per row and the magnitude rule's. FLOPs: about 15 per parameter. Needs: elementwise verbs, row
// reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "magnitude.hpp"

namespace MATOPT_NAMESPACE {

enum class decay_target { weight, magnitude };
constexpr auto enum_names(decay_target) { return std::array<std::string_view, 2>{"weight", "magnitude"}; }

namespace fn {
inline constexpr double zero_row = 1e-12;                         // a row of this norm or less has no direction
inline constexpr double zero_row_magnitude = 0.5744562646538029;  // sqrt(0.33)
inline constexpr double least_magnitude = 1e-7;

// g = ||W_i||, or the magnitude that a zero row starts with
struct initial_magnitude {
  double zero;
  template <class T>
  MATOPT_HD void operator()(T& g) const {
    if (!(g > T(zero))) g = T(zero_row_magnitude);
  }
};
// d = rowsum(G . D) and rowsum(D^2), D = W / g: products with W itself would overflow where both are large
struct magnitude_sums {
  static constexpr int sums = 2, results = 2;
  template <class T>
  MATOPT_HD terms<T, 2> operator()(T grad, T w, T g) const {
    const T direction = w / g;
    return {{grad * direction, direction * direction}};  // Muown Alg. 1: the gradient of the magnitude, d
  }
  template <class T, class A>
  MATOPT_HD static terms<A, 2> finish(const A* sum) {
    return {{sum[0], sum[1]}};
  }
};
// The numbers of a row in its gradient, (g / r) (G - d W / g) = a G - b W, and in R = c W.
struct row_coefficients {
  template <class T>
  MATOPT_HD void operator()(T& a, T& b, T& c, T d, T g, T r) const {
    a = g / r, b = d / r, c = r / g;
  }
};
// x - y, or 0 where the difference is no more than x and y were rounded by. What lies along its row (all of it, in a
// row of one number) would leave that rounding only, which an orthogonalizer makes a whole step of.
template <class T>
MATOPT_HD T difference(T x, T y) {
  const T d = x - y;
  return d * math::one_if_less(T(16) * std::numeric_limits<T>::epsilon() * math::abs(x), math::abs(d));
}
struct direction_gradient {
  template <class T>
  MATOPT_HD void operator()(T& u, T grad, T w, T a, T b) const {
    u = difference(a * grad, b * w);  // Muown Alg. 1: the gradient of the direction R
  }
};
// R = c W - lr scale u, c = r / g
template <class T>
MATOPT_HD T moved_direction(T w, T u, T c, T lr_scale) {
  return c * w - lr_scale * u;  // Muown Alg. 1: Muon's step of the direction
}
// The terms of ||R_i||
struct moved_norm : norm {
  double scale;
  explicit moved_norm(double s) : scale(s) {}
  template <class T>
  MATOPT_HD terms<T, 3> operator()(T u, T w, T c, T lr) const {
    return norm::operator()(moved_direction(w, u, c, lr * T(scale)));
  }
};
// f = g / n, or 0 for n = 0; finite for a direction that is next to nothing, too
struct row_factor {
  template <class T>
  MATOPT_HD void operator()(T& f, T g, T n) const {
    f = math::saturated(math::divide_or_zero(g, n));
  }
};
// W = f R - lr decay W, f = g / ||R_i|| with the new g
struct compose_rows {
  double scale, decay;
  template <class T>
  MATOPT_HD void operator()(T& w, T u, T c, T f, T lr) const {
    w = f * moved_direction(w, u, c, lr * T(scale)) - lr * T(decay) * w;  // Muown Alg. 1: W; App. C: its decay
  }
};
// |g| >= least_magnitude, sign kept
struct floor_magnitude {
  template <class T>
  MATOPT_HD void operator()(T& g) const {
    g = math::copysign(math::max(math::abs(g), T(least_magnitude)), g);
  }
};
// g <- g (1 - lr decay)
struct decay_magnitude {
  double decay;
  template <class T>
  MATOPT_HD void operator()(T& g, T lr) const {
    g *= T(1) - lr * T(decay);
  }
};
// r = n, except where the row had no direction before (||D_i|| as small as in rows that start as zero) or has none now
struct carry_norm {
  template <class T>
  MATOPT_HD void operator()(T& r, T n, T squares_before) const {
    constexpr double none = zero_row / zero_row_magnitude;
    if (squares_before > T(none * none) && n > T(0)) r = n;  // Muown Alg. 1: r = ||R_i||
  }
};
// g = n with the sign of g, unless that would change g by rounding only.
struct take_written_norm {
  template <class T>
  MATOPT_HD void operator()(T& g, T n) const {
    const T size = math::abs(g), off = math::abs(n - size);
    g = off > T(4) * std::numeric_limits<T>::epsilon() * size ? math::copysign(n, g) : g;
  }
};
// g = n with the sign of g
struct resync_magnitude {
  template <class T>
  MATOPT_HD void operator()(T& g, T n) const {
    g = math::copysign(math::max(n, T(least_magnitude)), g);
  }
};
}  // namespace fn

template <class Magnitude = adam_magnitude>
struct weight_normalization {
  static constexpr bool only_reads_update = true;

  Magnitude magnitude{};
  double decay = 0;
  decay_target decay_on = decay_target::weight;

  static std::string name() { return "weight_normalization<" + Magnitude::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Magnitude>) Magnitude::settings(self.magnitude, visit);
    visit("decay", self.decay, range{.low = 0});
    visit("decay_on", self.decay_on);
  }
  double decay_by_rate() const { return decay; }

  template <class S, class C>
  struct state {
    view<C> g, r;
    view<C> gradient, squares, c;  // scratch, from lift to retract: the magnitude's gradient, ||D_i||^2, and r / g
    state_for<Magnitude, S, C> magnitude;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.g = l.rows("magnitude"), s.r = l.rows("direction_norm");
    lay_out(magnitude, l, s.magnitude);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::row_norms(e, s.g, w);
    e.for_each(fn::initial_magnitude{fn::zero_row}, s.g);
    e.for_each(fn::assign{}, s.r, as_const(s.g));
  }
  // The norm of the direction stays: it says how far a step turns the row.
  template <class E, class St, class W>
  void resync(E& e, St& s, view<W> w) const {
    const auto frame = e.frame();
    const auto norm = e.take(w.rows, 1);
    detail::row_norms(e, norm, w);
    e.for_each(fn::initial_magnitude{fn::zero_row}, norm);
    e.for_each(fn::take_written_norm{}, s.g, as_const(norm));
  }

  template <class E, class St, class W, class G>
  auto lift(E& e, St& s, view<W> w, G g) const {
    const auto sums = e.take(w.rows, 2), a = e.take(w.rows, 1), b = e.take(w.rows, 1);
    s.gradient = sums.col_block(0, 1), s.squares = sums.col_block(1, 1), s.c = e.take(w.rows, 1);
    return row_formula{work_on(fn::magnitude_sums{}, shared<0>(as_const(g)), shared<1>(as_const(w)), per_row(s.g)),
                       sums,
                       work_on(fn::row_coefficients{}, shared<2>(a), shared<3>(b), s.c,
                               sum_result<0>(as_const(s.gradient)), as_const(s.g), as_const(s.r)),
                       elementwise(fn::direction_gradient{}, update_slot{}, shared<0>(as_const(g)),
                                   shared<1>(as_const(w)), shared<2>(per_row(a)), shared<3>(per_row(b)))};
  }

  template <class E, class St, class W, class U, class C>
  void retract(E& e, St& s, view<W> w, view<U> u, matrix_broadcast<C> lr, double scale) const {
    const auto frame = e.frame();
    const auto norm = e.take(w.rows, 1), f = e.take(w.rows, 1);
    const double weight_decay = decay_on == decay_target::weight ? decay : 0;
    const double magnitude_decay = decay_on == decay_target::magnitude ? decay : 0;
    const fn::compose_rows compose{scale, weight_decay};
    const auto moved = work_on(fn::moved_norm{scale}, shared<0>(as_const(u)), shared<1>(as_const(w)), per_row(s.c), lr);
    const auto new_norm = sum_result<0>(as_const(norm));
    const auto numbers = work_of(magnitude.formula(e, s.magnitude, as_const(s.gradient), lr) >>
                                     elementwise(fn::decay_magnitude{magnitude_decay}, update_slot{}, lr) >>
                                     elementwise(fn::floor_magnitude{}, update_slot{}) >>
                                     elementwise(fn::row_factor{}, shared<2>(f), update_slot{}, new_norm) >>
                                     elementwise(fn::carry_norm{}, s.r, new_norm, as_const(s.squares)),
                                 s.g);
    if (weight_decay > 0) {
      const auto after = e.take(w.rows, 1);
      e.for_rows(moved, norm, numbers);
      e.reduce_rows(detail::then_reduce<fn::compose_rows, fn::norm>(compose), after, w, as_const(u), per_row(s.c),
                    per_row(f), lr);
      e.for_each(fn::resync_magnitude{}, s.g, as_const(after));
    } else {
      e.for_rows(moved, norm, numbers,
                 work_on(compose, shared<1>(w), shared<0>(as_const(u)), per_row(s.c), shared<2>(per_row(f)), lr));
    }
  }
};

}  // namespace MATOPT_NAMESPACE
