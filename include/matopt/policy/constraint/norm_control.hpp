// Weight norm control: after the step the norm is pulled to a target, from above and from below.
//
//   W <- W - k (1 - target / ||W||) W           target = norm_ratio ||W_0||, or norm_target if that is set
//
// AdamWN (Loshchilov, arXiv 2311.11446, eq. 1 and 2). Its k is not multiplied by the learning rate; norm_rate_times_lr
// does that, and with ratio 0 is decoupled decay of the new weight. k = 1 jumps to the target; the default k is ours.
// The norm alone goes to the target by 1 - k a step. The paper leaves open whether the norm is one tensor's or all
// weights'; here it is the matrix's, or each row's or column's (norm_axis). A zero line has no direction and stays.
// State: 1 scalar per line, none with norm_target. FLOPs: 5 per parameter. Needs: elementwise verbs, reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../detail/line_norms.hpp"
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// w = w (1 - k (1 - ratio target / n)), k = fixed + by_lr lr
struct pull_to_norm {
  double fixed, by_lr, ratio;
  template <class T>
  MATOPT_HD void operator()(T& w, T n, T target, T lr) const {
    const T pull = math::one_if_positive(n) * (T(fixed) + T(by_lr) * lr);
    w -= pull * (w - T(ratio) * target * math::divide_or_zero(w, n));  // AdamWN eq. 1 and 2
  }
};
}  // namespace fn

struct norm_control {
  double rate = 1e-3;  // k
  double ratio = 1;    // of the target to the initial norm
  double target = 0;   // a norm; 0: the ratio counts
  matopt::norm_axis axis = matopt::norm_axis::matrix;
  bool times_lr = false;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "norm_control"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("norm_rate", self.rate, range{.low = 0});
    visit("norm_ratio", self.ratio, range{.low = 0});
    visit("norm_target", self.target, range{.low = 0});
    visit("norm_axis", self.axis);
    visit("norm_rate_times_lr", self.times_lr);
  }

  template <class S, class C>
  struct state {
    view<C> initial;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    if (!(target > 0)) s.initial = detail::line_state(l, axis, "control_norm");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    if (!(target > 0)) detail::line_norms(e, axis, s.initial, w);
  }
  template <class E, class St, class W, class Rate>
  void after(E& e, St& s, view<W> w, Rate lr, double) const {
    const auto frame = e.frame();
    const auto norm = detail::take_lines(e, axis, w), wanted = detail::take_lines(e, axis, w);
    detail::line_norms(e, axis, norm, w);
    if (target > 0)
      e.for_each(fn::set_constant{target}, wanted);
    else
      e.for_each(fn::assign{}, wanted, as_const(s.initial));
    detail::by_line(axis, [&](auto per) {
      e.for_each(fn::pull_to_norm{times_lr ? 0 : rate, times_lr ? rate : 0, target > 0 ? 1 : ratio}, w, per(norm),
                 per(wanted), lr);
    });
  }
};

}  // namespace MATOPT_NAMESPACE
