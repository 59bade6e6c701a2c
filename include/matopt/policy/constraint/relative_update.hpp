// Updates whose size is measured by the weight's.
//
//   relative_update   u <- u ||W|| / ||u||                          lr is the relative change; use unit_scale
//   update_floor      u <- u max(1, floor_ratio ||W|| / ||u||)      an update may be larger, not smaller
//
// relative_update: NVIDIA Emerging-Optimizers' hook of that name. update_floor: the "u/w floor" of the optimization
// track of modded-nanogpt (0.35, later 0.3825), and with floor_axis = rows its row floor. The norms are those of u and
// W as they reach the policy; lr does not enter, and the scale only with floor_counts_scale: then u counts as scale u.
// A zero update stays zero, and an update of less than 1e-8 is raised as one of 1e-8, as in the track's code; a zero
// weight gets none from relative_update. State: none. FLOPs: 5 per parameter. Needs: elementwise verbs, reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/limits.hpp"
#include "norm_sphere.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// u = u max(1, ratio n_w / max(n_u, 1e-8)), raised to `most` at most
struct raise_norm {
  double ratio, most;
  template <class T>
  MATOPT_HD void operator()(T& u, T nu, T nw) const {
    const T floor = math::min(T(ratio) * nw, T(most));
    nu = math::max(nu, T(1e-8));
    const T grows = math::one_if_less(nu, floor), stays = T(1) - grows;
    u = u / (grows * nu + stays) * (grows * floor + stays);
  }
};
}  // namespace fn

struct relative_update {
  static std::string name() { return "relative_update"; }

  template <class E, class St, class W, class U, class Rate>
  void before(E& e, St&, view<W> w, view<U> u, Rate, double) const {
    const auto frame = e.frame();
    const auto of_w = e.take(1, 1), of_u = e.take(1, 1);
    detail::matrix_norm(e, of_w, w), detail::matrix_norm(e, of_u, u);
    e.for_each(fn::to_norm{}, u, per_matrix(of_u), per_matrix(of_w));
  }
};

struct update_floor {
  double ratio = 0.35;
  norm_axis axis = norm_axis::matrix;
  bool counts_scale = false;  // u is measured as the weight will see it but for the rate

  static std::string name() { return "update_floor"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("floor_ratio", self.ratio, range{.low = 0});
    visit("floor_axis", self.axis);
    visit("floor_counts_scale", self.counts_scale);
  }

  template <class E, class St, class W, class U, class Rate>
  void before(E& e, St&, view<W> w, view<U> u, Rate, double scale) const {
    const auto frame = e.frame();
    const double to_reach = counts_scale ? ratio / scale : ratio;
    const auto of_w = detail::take_lines(e, axis, w), of_u = detail::take_lines(e, axis, w);
    detail::line_norms(e, axis, of_w, w), detail::line_norms(e, axis, of_u, u);
    const fn::raise_norm raise{to_reach, largest_input<typename E::compute>};
    detail::by_line(axis, [&](auto per) { e.for_each(raise, u, per(of_u), per(of_w)); });
  }
};

}  // namespace MATOPT_NAMESPACE
