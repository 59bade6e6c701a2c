// gradient_check: what a step does before rules see a gradient. Verbs only; nothing is read back.
//
//   flags     of each matrix: its gradient, times the gradient scale, is not finite or beyond what steps have room for
//   norms     with max_norm: the Frobenius norm of each scaled gradient, infinite where the flag is 1; and of all of
//             them
//   scale     with max_norm: times min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does
//   guards    of each matrix: 1 if the step is skipped, or the matrix left out of it
//
// With max_norm the flags come out of the norms, so that gradients are read once.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "step_plan.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// ||s x||, infinite if an entry is not finite or beyond `limit`: those are counted, and not among the squares
template <class C>
struct checked_norm : norm {
  static constexpr int sums = 4;
  double limit;
  template <class T>
  MATOPT_HD terms<T, 4> terms_of(T scaled, T beyond) const {
    const terms<T, 3> squares = norm::operator()(beyond > T(0) ? T(0) : scaled);
    return {{squares.at[0], squares.at[1], squares.at[2], beyond}};
  }
  template <class T>
  MATOPT_HD terms<T, 4> operator()(T x, T s) const {
    return terms_of(s * x, scaled_not_finite<C>{limit}(x, s));
  }
  template <class T>
  MATOPT_HD terms<T, 4> operator()(T x, T y, T s) const {
    return terms_of(s * x, scaled_not_both_finite<C>{limit}(x, y, s));
  }
  template <class T, class A>
  MATOPT_HD static terms<A, 1> finish(const A* sum) {
    return sum[3] > A(0) ? terms<A, 1>{{std::numeric_limits<A>::infinity()}} : norm::finish<T>(sum);
  }
};
// flag = 1 if x is infinite
struct is_infinite {
  template <class T>
  MATOPT_HD void operator()(T& flag, T x) const {
    flag = math::finite(x) ? T(0) : T(1);
  }
};
// scale = scale min(1, most / (norm + 1e-6)); an infinite norm makes it 0, and the step is skipped
struct clip {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& scale, T norm) const {
    const T factor = T(most) / (norm + T(1e-6));
    scale *= factor < T(1) ? factor : T(1);
  }
};
}  // namespace fn

template <class Backend, class Types>
class gradient_check {
  using C = typename Types::compute;
  using plan = step_plan<Backend, Types>;
  using groups = typename plan::groups;

 public:
  static void enqueue(Backend& backend, plan& p, const groups& by) {
    const index_t n = static_cast<index_t>(p.words());
    const auto row = [&](auto* words) { return row_major(words, 1, n); };
    const bool clips = !by.empty() && by.front()->options.measures();  // all groups together, or none
    bool looks = false;
    for (auto& k : p.buckets) {
      const auto& g = *by[k.group];
      const bool looked_at = clips || g.options.nonfinite == on_nonfinite::skip_step;
      looks = looks || looked_at;
      if (k.empty() || !looked_at) continue;
      clips ? measure(backend, p, k, g) : flag(backend, p, k, g);
    }
    if (clips && !p.buckets.empty()) clip(backend, p, by.front()->options.max_norm);
    const status_word* stop = p.control.stop;
    if (looks) {
      backend.reduce(nullptr, fn::any{}, row_major(p.control.skip, 1, 1), row_major(stop, 1, 1 + n));
      stop = p.control.skip;
    }
    backend.for_each(nullptr, fn::set_guard{}, row(p.control.guards), row(p.control.skipped), row(p.control.bad),
                     as_const(row(p.control.flags)), as_const(row(p.control.left_out)),
                     per_matrix(row_major(stop, 1, 1)));
  }

 private:
  template <class T>
  static view<T> of_bucket(T* words, const bucket<Backend, Types>& k) {
    return {words + k.first, 1, 1, 1, 1, k.w.batch, 1};
  }
  static void flag(Backend& backend, plan& p, bucket<Backend, Types>& k, const rule_group<Backend, Types>& g) {
    const double limit = g.rule->largest_gradient();
    const auto to = of_bucket(p.control.flags, k);
    const status_word* const left_out = p.control.left_out + k.first;
    const auto s = p.make_pass(backend, k, nullptr).gradient_scale();
    if (g.options.scales_gradient && g.rule->needs_reference())
      backend.reduce(left_out, fn::scaled_not_both_finite<C>{limit}, to, k.g, k.r, s);
    else if (g.options.scales_gradient)
      backend.reduce(left_out, fn::scaled_not_finite<C>{limit}, to, k.g, s);
    else if (g.rule->needs_reference())
      backend.reduce(left_out, fn::not_both_finite{limit}, to, k.g, k.r);
    else
      backend.reduce(left_out, fn::not_finite{limit}, to, k.g);
  }
  static void measure(Backend& backend, plan& p, bucket<Backend, Types>& k, const rule_group<Backend, Types>& g) {
    const fn::checked_norm<C> norm{{}, g.rule->largest_gradient()};
    const auto to = of_bucket(p.control.norms, k);
    const status_word* const left_out = p.control.left_out + k.first;
    const auto s = p.make_pass(backend, k, nullptr).gradient_scale();
    if (g.rule->needs_reference())
      backend.reduce(left_out, norm, to, k.g, k.r, s);
    else
      backend.reduce(left_out, norm, to, k.g, s);
  }
  static void clip(Backend& backend, plan& p, double most) {
    const index_t n = static_cast<index_t>(p.words());
    const view<const C> norms = row_major<const C>(p.control.norms, 1, n);
    const view<C> all = row_major(p.control.norms + n, 1, 1);
    backend.reduce(nullptr, fn::norm{}, all, norms);
    backend.for_each(nullptr, fn::is_infinite{}, row_major(p.control.flags, 1, n), norms);
    constexpr index_t apart = static_cast<index_t>(sizeof(step_numbers<C>) / sizeof(C));
    const view<C> scales{&p.control.numbers->gradient_scale, 1, static_cast<index_t>(p.buckets.size()), 0, apart};
    backend.for_each(nullptr, fn::clip{most}, scales, per_matrix(as_const(all)));
  }
};

}  // namespace MATOPT_NAMESPACE
