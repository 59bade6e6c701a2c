// NorMuon's normalizer: each neuron's row of the update over the root of its running mean square; then the update's
// size is restored.
//
//   v_i <- beta2 v_i + (1 - beta2) mean_j u_ij^2       y = u / (sqrt(v_i) + eps)
//   restore = update_norm   u <- y ||u||_F / (||y||_F + eps), or / max(||y||_F, eps)
//   restore = rms           u <- y rms sqrt(m n) / ||y||_F
//
// Li et al.: NorMuon (arXiv 2510.05491). No bias correction: after the first step all rows have equal norm. Where
// public implementations differ: the official code restores the norm, the paper aims at an RMS of 0.2; the speedrun
// form keeps one v per column if rows < columns (`axis = longer`); microsoft/dion has eps 1e-8 and max. The official
// code fails for float weights and splits convolutions into pixels; here v is in the compute type and a matrix is a
// matrix. Zero gives zero. State: 1 scalar per row. FLOPs: 7 per parameter.
#pragma once
#include <array>
#include <cmath>
#include <string_view>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"

namespace matopt {

enum class neuron_axis { rows, longer };
constexpr auto enum_names(neuron_axis) { return std::array<std::string_view, 2>{"rows", "longer"}; }
enum class restored_size { update_norm, rms };
constexpr auto enum_names(restored_size) { return std::array<std::string_view, 2>{"update_norm", "rms"}; }
enum class norm_floor { add, max };
constexpr auto enum_names(norm_floor) { return std::array<std::string_view, 2>{"add", "max"}; }

namespace fn {
// v <- beta v + (1 - beta) sum / count
struct running_mean {
  double beta, count;
  template <class T>
  MATOPT_HD void operator()(T& v, T sum) const {
    v = T(beta) * v + T(1 - beta) * (sum / T(count));
  }
};
struct divide_by_root {
  double eps;
  template <class T>
  MATOPT_HD void operator()(T& u, T v) const {
    u = u / (math::sqrt(v) + T(eps));
  }
};
// x n / (y + eps), or x n / max(y, eps), n and y as largest and sum of scaled squares
struct restore_norm {
  double eps;
  bool add;
  template <class T>
  MATOPT_HD void operator()(T& x, T largest, T squares, T now_largest, T now_squares) const {
    const T n = largest * math::sqrt(squares), y = now_largest * math::sqrt(now_squares);
    x *= n / (add ? y + T(eps) : math::max(y, T(eps)));
  }
};
// x size / (n + eps); 0 for n = 0
struct set_norm {
  double size, eps;
  template <class T>
  MATOPT_HD void operator()(T& x, T largest, T squares) const {
    x = largest > T(0) ? x * (T(size) / (largest * math::sqrt(squares) + T(eps))) : T(0);
  }
};
}  // namespace fn

struct neuron_norm {
  double beta2 = 0.95, eps = 1e-10, rms = 0.2;
  neuron_axis axis = neuron_axis::rows;
  restored_size restore = restored_size::update_norm;
  norm_floor floor = norm_floor::add;

  static std::string name() { return "neuron_norm"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("neuron_beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true});
    visit("neuron_eps", self.eps, range{.low = 0, .low_open = true});
    visit("neuron_axis", self.axis);
    visit("neuron_restore", self.restore);
    visit("neuron_norm_floor", self.floor);
    visit("update_rms", self.rms, range{.low = 0, .low_open = true});
  }

  template <class S, class C>
  struct state {
    view<C> v;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.v = by_row(l.row_count(), l.column_count()) ? l.rows("neuron_mean_square") : l.columns("neuron_mean_square");
  }

  template <class E, class St, class C>
  void normalize(E& e, St& s, view<C> update) const {
    const auto frame = e.frame();
    const bool rows = by_row(update.rows, update.cols);
    const view<C> u = rows ? update : update.t(), v = rows ? s.v : s.v.t();
    const view<C> sum = e.take(u.rows, 1);
    const auto before = detail::frobenius(e, u);
    e.reduce_rows(fn::square{}, sum, as_const(u));
    e.for_each(fn::running_mean{beta2, static_cast<double>(u.cols)}, v, as_const(sum));
    e.for_each(fn::divide_by_root{eps}, u, per_row(v));
    const auto after = detail::frobenius(e, u);
    if (restore == restored_size::rms)
      e.for_each(fn::set_norm{rms * std::sqrt(static_cast<double>(u.rows) * static_cast<double>(u.cols)), 0}, u,
                 per_matrix(after.largest), per_matrix(after.squares));
    else
      e.for_each(fn::restore_norm{eps, floor == norm_floor::add}, u, per_matrix(before.largest),
                 per_matrix(before.squares), per_matrix(after.largest), per_matrix(after.squares));
  }

 private:
  bool by_row(index_t rows, index_t cols) const { return axis == neuron_axis::rows || rows >= cols; }
};

}  // namespace matopt
