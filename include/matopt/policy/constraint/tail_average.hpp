// The average of the last weights of a run, for evaluation; training does not see it.
//
//   A <- W up to step `start`, then A <- A + (W - A) / tau       R = (1 - weight) W + weight A
//
// A weight projection for projected<>. R is the state tail_readout of each parameter, which read_state() gives: before
// `start`, and in it, W itself. Inside of a look_ahead, projected<look_ahead, projected<tail_average>>, W is the weight
// without the shift. Of the optimizer track of modded-nanogpt, whose settings these are: the last 500 of 2900 steps,
// all matrices but the token embedding. Skipped steps do not count.
// State: 2 scalars of the compute type per parameter, and 1 per matrix. FLOPs: 6 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// share = 1 up to step `start`, which this one may be, then 1 / tau
struct tail_share {
  double start, tau;
  template <class T>
  MATOPT_HD void operator()(T& count, T& share) const {
    const T begun = math::one_if_less(T(start), count + T(1));
    count += T(1);
    share = (T(1) - begun) + begun / T(tau);
  }
};
struct tail_average {
  double weight;
  template <class T>
  MATOPT_HD void operator()(T& average, T& readout, T w, T share) const {
    average += share * (w - average);
    readout = T(1 - weight) * w + T(weight) * average;
  }
};
}  // namespace fn

struct tail_average {
  double tau = 150, weight = 0.6;
  index_t start = 2400;

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "tail_average"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("tail_tau", self.tau, range{.low = 1});
    visit("tail_weight", self.weight, range{.low = 0, .high = 1});
    visit("tail_start", self.start, range{.low = 0, .high = 16777216});
  }

  template <class S, class C>
  struct state {
    view<C> average, readout, count;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.average = l.block("tail_average", l.row_count(), l.column_count());
    s.readout = l.block("tail_readout", l.row_count(), l.column_count());
    s.count = l.scalar("tail_count");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    e.for_each(fn::assign{}, s.average, as_const(w)), e.for_each(fn::assign{}, s.readout, as_const(w));
  }

  template <class E, class St, class W, class Rate>
  void after(E& e, St& s, view<W> w, Rate, double) const {
    const auto frame = e.frame();
    const auto share = e.take(1, 1);
    e.for_each(fn::tail_share{static_cast<double>(start), tau}, s.count, share);
    e.for_each(fn::tail_average{weight}, s.average, s.readout, as_const(w), per_matrix(share));
  }
};

}  // namespace MATOPT_NAMESPACE
