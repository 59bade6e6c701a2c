// EMA-Nesterov's look-ahead: gradients are taken where the weight's own mean movement leads.
//
//   after a step:   B <- decay B + (1 - decay) (W - W_prev)       W_prev <- W       c: steps so far
//                   W <- W + ahead (lr / lr_0) B                  for from <= c < until
//
// A weight projection for projected<>, outermost: it acts on the weight that the rest of the step leaves. The shift is
// for the gradient that comes next, and stays; W_prev, the state look_ahead_weight, is the weight without it, which is
// what to evaluate and to save for others. A wrapper of the optimizer track of modded-nanogpt, whose settings these
// are. There the shift is made before the forward pass, by the rate of the step to come; that is not known here yet,
// and the rate of the step just made takes its place. look_ahead_lr is lr_0; 0 leaves the rate out. Skipped steps do
// not count. resync() takes a weight that somebody has written as one without a shift. State: 2 scalars per parameter,
// one of them of the compute type, and 2 per matrix. FLOPs: 7 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// c = c + 1;  gain = ahead (lr / base, or 1 for base = 0) if from <= c < until, else 0
struct look_ahead_gain {
  double ahead, base, from, until;
  template <class T>
  MATOPT_HD void operator()(T& c, T& gain, T lr) const {
    c += T(1);
    const T in = (T(1) - math::one_if_less(c, T(from))) * math::one_if_less(c, T(until));
    const T plain = math::one_if<T>(T(base) == T(0));
    gain = in * T(ahead) * (plain + (T(1) - plain) * math::saturated(lr / (T(base) + plain)));
  }
};
struct look_ahead {
  double decay;
  template <class T>
  MATOPT_HD void operator()(T& w, T& mean, T& settled, T gain) const {
    mean = T(decay) * mean + T(1 - decay) * (w - settled);
    settled = w;
    w += gain * mean;
  }
};
// x = settled + gain mean
struct looked_ahead {
  template <class T>
  MATOPT_HD void operator()(T& x, T settled, T mean, T gain) const {
    x = settled + gain * mean;
  }
};
// s = w, unless w is what was expected
struct take_unexpected {
  template <class T>
  MATOPT_HD void operator()(T& s, T w, T expected) const {
    s = w == expected ? s : w;
  }
};
}  // namespace fn

struct look_ahead {
  double ahead = 0.3, decay = 0.99, lr = 0;
  index_t from = 300, until = 1950;

  static std::string name() { return "look_ahead"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("look_ahead", self.ahead, range{.low = 0});
    visit("look_ahead_decay", self.decay, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("look_ahead_lr", self.lr, range{.low = 0});
    visit("look_ahead_from", self.from, range{.low = 0, .high = 16777216});
    visit("look_ahead_until", self.until, range{.low = 0, .high = 16777216});
  }

  template <class S, class C>
  struct state {
    view<S> mean;
    view<C> settled, count, gain;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.mean = l.matrix("look_ahead_mean");
    s.settled = l.block("look_ahead_weight", l.row_count(), l.column_count());  // as exact as the steps
    s.count = l.scalar("look_ahead_count"), s.gain = l.scalar("look_ahead_gain");
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    e.for_each(fn::assign{}, s.settled, as_const(w));
  }
  template <class E, class St, class W>
  void resync(E& e, St& s, view<W> w) const {
    const auto frame = e.frame();
    const auto expected = e.template take_like<W>(w);
    e.for_each(fn::looked_ahead{}, expected, as_const(s.settled), as_const(s.mean), per_matrix(s.gain));
    e.for_each(fn::take_unexpected{}, s.settled, as_const(w), as_const(expected));
  }

  template <class E, class St, class W, class C>
  void after(E& e, St& s, view<W> w, matrix_broadcast<C> rate, double) const {
    e.for_each(fn::look_ahead_gain{ahead, lr, static_cast<double>(from), static_cast<double>(until)}, s.count, s.gain,
               rate);
    e.for_each(fn::look_ahead{decay}, w, s.mean, s.settled, per_matrix(s.gain));
  }
};

}  // namespace MATOPT_NAMESPACE
