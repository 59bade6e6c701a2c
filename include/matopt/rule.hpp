// rule: five policies make an optimizer. Every published method is an alias of this template; none has a step of its
// own.
//
//   g' = constraint.lift(W, G)                the gradient in the coordinates that are optimised
//   u  = momentum.accumulate(g')              and the learning rate, if it adapts that
//   u  = orthogonalizer.orthogonalize(u)      the numerical method
//   u  = normalizer.normalize(u)
//   W  = constraint.retract(W, u, lr * scale.factor(fan_out, fan_in))
//
// Each of them runs verbs and returns what remains to be done with u as an elementwise formula (core/policy.hpp). Here,
// and only here, such formulas are joined with the next one, so that u is stored where a policy asks for it and nowhere
// else.
//
// with_*<> swaps one slot:  using mine = muon::with_normalizer<my_normalizer>;
//
// Preset holds the defaults that a published method has for its policies: static functions set(policy&), one for each
// policy type whose own defaults are not meant, and the learning rate `lr` of its authors. It does not show in
// checkpoints.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>

#include "core/policy.hpp"
#include "core/unfinished.hpp"
#include "policy/detail/norms.hpp"

namespace MATOPT_NAMESPACE {

struct own_defaults {};  // the preset that leaves every policy its own

namespace detail {
template <class Policy, class Preset>
Policy preset() {
  Policy policy{};
  if constexpr (requires { Preset::set(policy); }) Preset::set(policy);
  return policy;
}
// Whether momentum and lift, if there is one, take the gradient as a V.
template <class Momentum, class Constraint, class E, class St, class W, class G, class V>
constexpr bool take_gradient() {
  using own = decltype(St::constraint);
  if constexpr (!lifts<Constraint, E, own, W, view<const G>>)
    return takes_gradient<Momentum, E, decltype(St::momentum), V>;
  else if constexpr (!lifts<Constraint, E, own, W, V>)
    return false;
  else
    return changes_gradient<Constraint, E, own, W, V> || takes_gradient<Momentum, E, decltype(St::momentum), V>;
}
inline std::string name_of_slots(std::initializer_list<std::string> names) {
  std::string all = "rule<";
  for (const std::string& name : names) all += name, all += ',';
  all.back() = '>';
  return all;
}
template <class W, class C, class F>
void accept_formula_of_weight(const update_formula<F, view<W>, matrix_broadcast<C>>&) {}
}  // namespace detail

template <class Momentum, class Orthogonalizer, class Normalizer, class Constraint, class Scale,
          class Preset = own_defaults>
struct rule {
  Momentum momentum = detail::preset<Momentum, Preset>();
  Orthogonalizer orthogonalizer = detail::preset<Orthogonalizer, Preset>();
  Normalizer normalizer = detail::preset<Normalizer, Preset>();
  Constraint constraint = detail::preset<Constraint, Preset>();
  Scale scale = detail::preset<Scale, Preset>();

  using momentum_type = Momentum;
  using orthogonalizer_type = Orthogonalizer;
  using normalizer_type = Normalizer;
  using constraint_type = Constraint;
  using scale_type = Scale;
  using preset_type = Preset;

  template <class X>
  using with_momentum = rule<X, Orthogonalizer, Normalizer, Constraint, Scale, Preset>;
  template <class X>
  using with_orthogonalizer = rule<Momentum, X, Normalizer, Constraint, Scale, Preset>;
  template <class X>
  using with_normalizer = rule<Momentum, Orthogonalizer, X, Constraint, Scale, Preset>;
  template <class X>
  using with_constraint = rule<Momentum, Orthogonalizer, Normalizer, X, Scale, Preset>;
  template <class X>
  using with_scale = rule<Momentum, Orthogonalizer, Normalizer, Constraint, X, Preset>;

  // The policies alone. A step does not depend on the preset, and is compiled once for all rules that differ in it.
  using policies = rule<Momentum, Orthogonalizer, Normalizer, Constraint, Scale>;
  void copy_to(policies& to) const {
    to.momentum = momentum, to.orthogonalizer = orthogonalizer, to.normalizer = normalizer;
    to.constraint = constraint, to.scale = scale;
  }

  // What a checkpoint must agree on.
  [[gnu::cold]] static std::string name() {
    return detail::name_of_slots(
        {Momentum::name(), Orthogonalizer::name(), Normalizer::name(), Constraint::name(), Scale::name()});
  }

  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    each_policy(self, [&]<class P>(std::string_view, P& policy) {
      if constexpr (detail::has_settings<P>) P::settings(policy, visit);
    });
  }
  // Throws bad_value for the first setting outside its range.
  void validate() const {
    validate_settings(*this);
    each_policy(*this, [](std::string_view, const auto& policy) { detail::validate(policy); });
  }

  template <class Types>
  struct state {
    state_of<Momentum, Types> momentum{};
    state_of<Orthogonalizer, Types> orthogonalizer{};
    state_of<Normalizer, Types> normalizer{};
    state_of<Constraint, Types> constraint{};
  };
  // visit(slot name, policy of the slot, its state)
  template <class St, class Visit>
  void each_state(St& s, Visit&& visit) const {
    visit("momentum", momentum, s.momentum), visit("orthogonalizer", orthogonalizer, s.orthogonalizer);
    visit("normalizer", normalizer, s.normalizer), visit("constraint", constraint, s.constraint);
  }

  // The learning rate of the method's authors, or 0 if the preset names none.
  static constexpr double published_lr() {
    if constexpr (requires { Preset::lr; })
      return Preset::lr;
    else
      return 0;
  }

  static constexpr index_t phases = phase_count<Momentum>;
  index_t phase(index_t step, index_t bucket = 0) const { return detail::phase_of(momentum, step, bucket); }

  // State that begins with the weight; the rest begins as zeros.
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    each_state(s, [&](std::string_view, const auto& policy, auto& own) {
      const auto frame = e.frame();
      detail::init(policy, e, own, w);
    });
  }

  // After the weight was written by somebody else: what is kept of it is read anew.
  template <class E, class St, class W>
  void resync(E& e, St& s, view<W> w) const {
    each_state(s, [&](std::string_view, const auto& policy, auto& own) {
      const auto frame = e.frame();
      detail::resync(policy, e, own, w);
    });
  }

  // Whether the first operation that sees the gradient takes it times the step's gradient scale, as a scaled_view;
  // otherwise it takes gradients as they are.
  template <class E, class St, class W, class G>
  static constexpr bool scales_gradient =
      !needs_reference<Momentum> &&
      detail::take_gradient<Momentum, Constraint, E, St, W, G, scaled_view<G, typename E::compute>>();

  // One step of one bucket; `reference` is looked at only by a momentum that needs one. Each line runs verbs, and hands
  // on what remains to be done with u.
  template <class E, class St, class W, class G>
  void step(E& e, St& s, view<W> w, view<const G> g, view<const G> reference) const {
    const auto frame = e.frame();
    const double factor = scale.factor(w.rows, w.cols);
    const auto u = direction(e, s, w, gradient<St, W>(e, g, reference));
    const auto lr = detail::rate(momentum, e, s.momentum);
    if constexpr (moves_in_parts<E, St, W, decltype(lr)>) {
      const auto norm = detail::take_norm(e);
      orthogonalizer.orthogonalize(
          e, s.orthogonalizer, in_memory(e, w, u, norm), norm, [&](const auto& y, index_t from, index_t count) {
            auto part = e.part(from, count);
            run_formula(part, detail::unfinished{y, constraint.retract(part, s.constraint, w.matrices(from, count),
                                                                       update_slot{}, members(lr, from, count), factor)}
                                  .formula());
          });
    } else {
      move(e, s, w, normalized(e, s, w, orthogonalized(e, s, w, u)), lr, factor);
    }
    detail::finish(constraint, e, s.constraint, w, lr, factor);
  }

 private:
  template <class St, class W, class E, class G>
  static auto gradient(E& e, view<const G> g, view<const G> reference) {
    if constexpr (needs_reference<Momentum>)
      return gradient_pair<const G>{g, reference};
    else if constexpr (scales_gradient<E, St, W, G>)
      return scaled_view{g, e.gradient_scale()};
    else
      return g;
  }

  // --- lift and accumulate ---
  template <class E, class St, class W, class G>
  auto direction(E& e, St& s, view<W> w, const G& g) const {
    if constexpr (detail::lifts<Constraint, E, decltype(St::constraint), W, G>) {
      const auto lifted = detail::lift(constraint, e, s.constraint, w, g);
      using L = std::remove_const_t<decltype(lifted)>;
      if constexpr (std::is_same_v<L, nothing>) {
        return accumulated(e, s, w, g);
      } else if constexpr (!detail::is_formula<L>) {
        return accumulated(e, s, w, as_const(lifted));
      } else if constexpr (detail::accumulates<Momentum, E, decltype(St::momentum), update_slot, update_slot>) {
        return detail::unfinished{detail::nowhere{},
                                  lifted >> momentum.accumulate(e, s.momentum, update_slot{}, update_slot{})};
      } else {
        const auto u = e.take_like(w);
        run_formula(e, lifted, u);
        return detail::unfinished{u, detail::accumulate_on(momentum, e, s.momentum, u)};
      }
    } else {
      return accumulated(e, s, w, g);
    }
  }
  template <class E, class St, class W, class G>
  auto accumulated(E& e, St& s, view<W> w, const G& g) const {
    if constexpr (detail::accumulates<Momentum, E, decltype(St::momentum), G, update_slot>) {
      return detail::unfinished{detail::nowhere{}, momentum.accumulate(e, s.momentum, g, update_slot{})};
    } else {
      const auto u = e.take_like(w);
      return detail::unfinished{u, detail::accumulate(momentum, e, s.momentum, g, u)};
    }
  }

  // --- orthogonalize ---
  template <class E, class St, class W, class U>
  auto orthogonalized(E& e, St& s, view<W> w, const U& u) const {
    if constexpr (takes_norm<Orthogonalizer>) {
      const auto norm = detail::take_norm(e);
      const auto y = in_memory(e, w, u, norm);
      return detail::unfinished{orthogonalizer.orthogonalize(e, s.orthogonalizer, y, norm, detail::anywhere{}),
                                nothing{}};
    } else if constexpr (detail::orthogonalizes_as<Orthogonalizer, E, decltype(St::orthogonalizer), update_slot>) {
      return u.then(detail::remains([&] { return orthogonalizer.orthogonalize(e, s.orthogonalizer, update_slot{}); }));
    } else {
      const auto y = in_memory(e, w, u);
      const auto rest = detail::remains([&] { return orthogonalizer.orthogonalize(e, s.orthogonalizer, y); });
      if constexpr (detail::is_formula<std::remove_const_t<decltype(rest)>>)
        return detail::unfinished{y, rest};
      else
        return detail::unfinished{rest, nothing{}};
    }
  }
  // The weights take what the orthogonalizer gives as it comes, some members at a time: nothing else of members is in
  // the formula.
  template <class E, class St, class W, class Rate>
  static constexpr bool moves_in_parts = requires(const rule r, E& e, St& s, view<W> w, Rate lr) {
    requires gives_parts<Orthogonalizer> && detail::leaves_update<Normalizer, E, decltype(St::normalizer)>;
    requires std::is_same_v<decltype(St::constraint), no_state>;
    detail::accept_formula_of_weight<W, typename E::compute>(
        r.constraint.retract(e, s.constraint, w, update_slot{}, lr, 1.0));
  };

  // --- normalize ---
  template <class E, class St, class W, class U>
  auto normalized(E& e, St& s, view<W> w, const U& u) const {
    if constexpr (detail::normalizes<Normalizer, E, decltype(St::normalizer), update_slot>) {
      return u.then(detail::remains([&] { return normalizer.normalize(e, s.normalizer, update_slot{}); }));
    } else {
      const auto y = in_any_type(e, w, u);
      if constexpr (!std::is_void_v<decltype(normalizer.normalize(e, s.normalizer, y))>) {
        return detail::unfinished{y, normalizer.normalize(e, s.normalizer, y)};
      } else {
        const auto own = in_memory(e, w, detail::unfinished{y, nothing{}});
        normalizer.normalize(e, s.normalizer, own);
        return detail::unfinished{own, nothing{}};
      }
    }
  }

  // --- retract ---
  template <class E, class St, class W, class U, class Rate>
  void move(E& e, St& s, view<W> w, const U& u, Rate lr, double factor) const {
    const auto retract = [&](auto from) {
      return detail::remains([&] { return constraint.retract(e, s.constraint, w, from, lr, factor); });
    };
    if constexpr (detail::retracts<Constraint, E, decltype(St::constraint), W, update_slot, Rate>) {
      run_formula(e, u.formula() >> retract(update_slot{}));
    } else if constexpr (only_reads_update<Constraint>) {
      const auto y = as_const(in_any_type(e, w, u));
      run_formula(e, detail::unfinished{y, retract(y)}.formula_if_any());
    } else {
      const auto y = in_memory(e, w, u);
      run_formula(e, detail::unfinished{y, retract(y)}.formula_if_any());
    }
  }

  // --- u in memory: what remains is done; in the compute type, with its norm, or as it is where it lies already ---
  template <class E, class W, class U, class... Norm>
  static auto in_memory(E& e, view<W> w, const U& u, const Norm&... norm) {
    const auto run = [&](const auto& formula, auto y) {
      if constexpr (sizeof...(Norm) > 0)
        (run_formula_and_reduce(e, fn::scaled_norm{}, norm.pair, formula, y), ...);
      else
        run_formula(e, formula, y);
      return y;
    };
    if constexpr (U::template lies_in<typename E::compute>)
      return run(u.rest, u.at);
    else
      return run(u.formula(), e.take_like(w));
  }
  template <class E, class W, class U>
  static auto in_any_type(E& e, view<W> w, const U& u) {
    if constexpr (U::is_done)
      return u.at;
    else
      return in_memory(e, w, u);
  }

  template <class Self, class Visit>
  static void each_policy(Self& self, Visit&& visit) {
    visit("momentum", self.momentum), visit("orthogonalizer", self.orthogonalizer);
    visit("normalizer", self.normalizer), visit("constraint", self.constraint), visit("scale", self.scale);
  }
};

// Rule R runs on backend B with these element types. The first line that fails names the slot.
template <class R, class B, class Types>
concept rule_for = backend<B, typename Types::compute> &&                //
    momentum_policy<typename R::momentum_type, B, Types> &&              //
    orthogonalizer_policy<typename R::orthogonalizer_type, B, Types> &&  //
    normalizer_policy<typename R::normalizer_type, B, Types> &&          //
    constraint_policy<typename R::constraint_type, B, Types> &&          //
    scale_policy<typename R::scale_type> &&                              //
    rank_budget_is_honoured<typename R::orthogonalizer_type, typename R::constraint_type> &&
    reference_is_comparable<typename R::momentum_type, typename R::constraint_type, B, Types> &&
    column_rates_are_taken<typename R::momentum_type, typename R::constraint_type> &&
    momentum_is_kept_once<typename R::momentum_type, typename R::orthogonalizer_type> &&
    orthogonalized_once<typename R::momentum_type, typename R::orthogonalizer_type, typename R::constraint_type, B,
                        Types>;

}  // namespace MATOPT_NAMESPACE
