// rule: five policies make an optimizer. Every published method is an alias of this template; none has a step of its
// own.
//
//   g' = constraint.lift(W, G)                the gradient in the coordinates that are optimised
//   u  = momentum.accumulate(g')              and the learning rate, if it adapts that
//   u  = orthogonalizer.orthogonalize(u)      the numerical method
//   u  = normalizer.normalize(u)
//   W  = constraint.retract(W, u, lr * scale.factor(fan_out, fan_in))
//
// with_*<> swaps one slot:  using mine = muon::with_normalizer<my_normalizer>;
//
// Preset holds the defaults that a published method has for its policies: static functions set(policy&), one for each
// policy type whose own defaults are not meant, and the learning rate `lr` of its authors. It does not show in
// checkpoints.
#pragma once
#include <string>
#include <string_view>

#include "core/policy.hpp"

namespace matopt {

struct own_defaults {};  // the preset that leaves every policy its own

namespace detail {
template <class Policy, class Preset>
Policy preset() {
  Policy policy{};
  if constexpr (requires { Preset::set(policy); }) Preset::set(policy);
  return policy;
}
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

  // What a checkpoint must agree on.
  static std::string name() {
    return "rule<" + Momentum::name() + "," + Orthogonalizer::name() + "," + Normalizer::name() + "," +
           Constraint::name() + "," + Scale::name() + ">";
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
    each_policy(*this, [](std::string_view, const auto& policy) {
      if constexpr (requires { policy.validate(); }) policy.validate();
    });
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
  index_t phase(index_t step) const { return detail::phase_of(momentum, step); }

  // State that begins with the weight; the rest begins as zeros.
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    each_state(s, [&](std::string_view, const auto& policy, auto& own) {
      const auto frame = e.frame();
      if constexpr (requires { policy.init(e, own, w); }) policy.init(e, own, w);
    });
  }

  // One step of one bucket; `reference` is looked at only by a momentum that needs one.
  template <class E, class St, class W, class G>
  void step(E& e, St& s, view<W> w, view<const G> g, view<const G> reference) const {
    const auto frame = e.frame();
    const auto u = e.take_like(w);
    const auto lr = accumulate(e, s.momentum, constraint.lift(e, s.constraint, w, g, u), reference, u);
    orthogonalizer.orthogonalize(e, s.orthogonalizer, u);
    normalizer.normalize(e, s.normalizer, u);
    constraint.retract(e, s.constraint, w, u, lr, scale.factor(w.rows, w.cols));
  }

 private:
  template <class E, class St, class T, class G, class U>
  auto accumulate(E& e, St& s, view<T> g, view<const G> reference, view<U> u) const {
    if constexpr (needs_reference<Momentum>)
      return detail::accumulate(momentum, e, s, gradient_pair<T>{g, reference}, u);
    else
      return detail::accumulate(momentum, e, s, g, u);
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
    reference_is_comparable<typename R::momentum_type, typename R::constraint_type> &&
    column_rates_are_taken<typename R::momentum_type, typename R::constraint_type>;

}  // namespace matopt
