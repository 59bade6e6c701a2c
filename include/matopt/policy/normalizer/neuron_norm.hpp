// NorMuon's normalizer: each neuron's row of the update over the root of its running mean square; then the update's
// size is restored.
//
//   v_i <- beta2 v_i + (1 - beta2) mean_j u_ij^2                                               Algorithm 1, line 7
//   y = u / (sqrt(v_i) + eps)                                                                  lines 8 and 9
//   restore = update_norm   u <- y ||u||_F / (||y||_F + eps), or / max(||y||_F, eps)
//   restore = rms           u <- y rms sqrt(m n) / ||y||_F                                     line 10
//
// Li et al.: NorMuon (arXiv 2510.05491); the numbers are as third parties cite them. No bias correction: after the
// first step all rows have equal norm. Where public implementations differ: the official code restores the norm, the
// paper aims at an RMS of 0.2; the speedrun form keeps one v per column if rows < columns (`axis = longer`);
// microsoft/dion has eps 1e-8 and max. The official code fails for float weights and splits convolutions into pixels;
// here v is in the compute type and a matrix is a matrix. The hyperball form divides by sqrt(max(v_i, eps))
// (`root_floor` max). NorDion2's mean moves only where the direction does: a line of zeros leaves its own alone
// (`skip_zero`). Zero gives zero. State: 1 scalar per row. FLOPs: 7 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cmath>
#include <string_view>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"

namespace MATOPT_NAMESPACE {

enum class neuron_axis { rows, longer };
constexpr auto enum_names(neuron_axis) { return std::array<std::string_view, 2>{"rows", "longer"}; }
enum class restored_size { update_norm, rms };
constexpr auto enum_names(restored_size) { return std::array<std::string_view, 2>{"update_norm", "rms"}; }
enum class norm_floor { add, max };
constexpr auto enum_names(norm_floor) { return std::array<std::string_view, 2>{"add", "max"}; }

namespace fn {
// v <- beta v + (1 - beta) n^2 / count; with `skip` v stays where n is 0
struct running_mean {
  double beta, count, largest;  // largest: of n
  bool skip;
  template <class T>
  MATOPT_HD void operator()(T& v, T n) const {
    n = math::limited(n, T(largest));
    const T stays = math::one_if<T>(skip) * (T(1) - math::one_if_positive(n)), moves = T(1) - stays;
    v = (stays + moves * T(beta)) * v + moves * T(1 - beta) * (n * n / T(count));  // NorMuon Alg. 1, line 7
  }
};
// sqrt(v) + eps, or sqrt(max(v, eps))
struct floored_root {
  double eps;
  bool add;
  template <class T>
  MATOPT_HD T operator()(T v) const {
    const T sum = math::one_if<T>(add), least = T(1) - sum;
    return sum * (math::sqrt(v) + T(eps)) + least * math::sqrt(math::max(v, T(eps)));
  }
};
// y = n / root of v
struct over_root {
  floored_root root;
  template <class T>
  MATOPT_HD void operator()(T& y, T n, T v) const {
    y = math::saturated(n / root(v));  // the norms of NorMuon Alg. 1, line 9
  }
};
// f = n / (y + eps), or n / max(y, eps), n and y as scale and sum of scaled squares, over the root of v
struct restoring_factor {
  floored_root root;
  double eps;
  bool add;
  template <class T>
  MATOPT_HD void operator()(T& f, T v, T scale, T squares, T now_scale, T now_squares) const {
    const T n = scale * math::sqrt(squares), y = now_scale * math::sqrt(now_squares);
    const T sum = math::one_if<T>(add), least = T(1) - sum;
    f = math::saturated(n / (sum * (y + T(eps)) + least * math::max(y, T(eps))) / root(v));
  }
};
// f = size / (n + eps); 0 for n = 0
struct factor_to_norm {
  double size, eps;
  template <class T>
  MATOPT_HD void operator()(T& f, T scale, T squares) const {
    f = math::one_if_positive(scale) *
        math::saturated(math::divide_or_zero(T(size), scale * math::sqrt(squares) + T(eps)));
  }
};
// f = f / root of v
struct divide_by_root {
  floored_root root;
  template <class T>
  MATOPT_HD void operator()(T& f, T v) const {
    f = math::saturated(f / root(v));
  }
};
// u = u f
struct times_factor {
  template <class T>
  MATOPT_HD void operator()(T& u, T f) const {
    u *= f;
  }
};
}  // namespace fn

struct neuron_norm {
  double beta2 = 0.95, eps = 1e-10, rms = 0.2;
  neuron_axis axis = neuron_axis::rows;
  restored_size restore = restored_size::update_norm;
  norm_floor floor = norm_floor::add, root_floor = norm_floor::add;
  bool skip_zero = false;

  static std::string name() { return "neuron_norm"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("neuron_beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true});
    visit("neuron_eps", self.eps, range{.low = 0, .low_open = true});
    visit("neuron_axis", self.axis);
    visit("neuron_restore", self.restore);
    visit("neuron_norm_floor", self.floor);
    visit("neuron_root_floor", self.root_floor);
    visit("neuron_skip_zero", self.skip_zero);
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

  // All that is needed of u are the norms of its lines: ||u||_F and ||y||_F follow from them.
  template <class E, class St, class U>
  auto normalize(E& e, St& s, view<U> update) const {
    const bool rows = by_row(update.rows, update.cols);
    const view<U> u = rows ? update : update.t();
    const auto v = rows ? s.v : s.v.t();
    const auto n = e.take(u.rows, 1), y = e.take(u.rows, 1), factor = e.take(u.rows, 1);
    detail::row_norms(e, n, u);
    const fn::floored_root root{eps, root_floor == norm_floor::add};
    e.for_each(fn::running_mean{beta2, static_cast<double>(u.cols), largest_squared<typename E::compute>, skip_zero}, v,
               as_const(n));
    e.for_each(fn::over_root{root}, y, as_const(n), as_const(v));
    const auto after = detail::frobenius(e, y);
    if (restore == restored_size::rms) {
      const double size = rms * std::sqrt(static_cast<double>(u.rows) * static_cast<double>(u.cols));
      e.for_each(fn::factor_to_norm{size, 0}, factor, per_matrix(after.scale), per_matrix(after.squares));  // line 10
      e.for_each(fn::divide_by_root{root}, factor, as_const(v));                                            // line 9
    } else {
      const auto before = detail::frobenius(e, n);
      e.for_each(fn::restoring_factor{root, eps, floor == norm_floor::add}, factor, as_const(v),
                 per_matrix(before.scale), per_matrix(before.squares), per_matrix(after.scale),
                 per_matrix(after.squares));
    }
    return either(rows, elementwise(fn::times_factor{}, update_slot{}, per_row(factor)),
                  elementwise(fn::times_factor{}, update_slot{}, per_column(factor.t())));
  }

 private:
  bool by_row(index_t rows, index_t cols) const { return axis == neuron_axis::rows || rows >= cols; }
};

}  // namespace MATOPT_NAMESPACE
