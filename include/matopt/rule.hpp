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
#include "policy/detail/norms.hpp"

namespace matopt {

struct own_defaults {};  // the preset that leaves every policy its own

namespace detail {
template <class Policy, class Preset>
Policy preset() {
  Policy policy{};
  if constexpr (requires { Preset::set(policy); }) Preset::set(policy);
  return policy;
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

  // After the weight was written by somebody else: what is kept of it is read anew.
  template <class E, class St, class W>
  void resync(E& e, St& s, view<W> w) const {
    each_state(s, [&](std::string_view, const auto& policy, auto& own) {
      const auto frame = e.frame();
      if constexpr (requires { policy.resync(e, own, w); }) policy.resync(e, own, w);
    });
  }

  // From a gradient that is given as a V to the direction is one formula: the momentum's, joined with the lift if that
  // is one.
  template <class E, class St, class W, class V>
  static constexpr bool lift_joins = detail::has_lift_formula<Constraint, E, decltype(St::constraint), W, V>&&
      detail::has_formula<Momentum, E, decltype(St::momentum), update_slot>;
  template <class E, class St, class W, class V>
  static constexpr bool gradient_is_formula = lift_joins<E, St, W, V> ||
                                              (leaves_gradient<Constraint> &&
                                               detail::has_formula<Momentum, E, decltype(St::momentum), V>);
  // Then the step multiplies by the pass's gradient scale in that formula; otherwise it takes gradients as they are.
  template <class E, class St, class W, class G>
  static constexpr bool scales_gradient = gradient_is_formula<E, St, W, scaled_view<G, typename E::compute>>;

  // One step of one bucket; `reference` is looked at only by a momentum that needs one. Neighbouring slots whose work
  // is an elementwise formula share one pass over memory.
  template <class E, class St, class W, class G>
  void step(E& e, St& s, view<W> w, view<const G> g, view<const G> reference) const {
    const auto frame = e.frame();
    const double factor = scale.factor(w.rows, w.cols);
    const auto first = first_view<St, W>(e, g);
    if constexpr (all_elementwise<E, St, W, std::remove_const_t<decltype(first)>>) {
      gradient_formula(e, s, w, first, [&](const auto& f) {
        run_formula(e, f >> orthogonalizer.formula() >> normalizer.formula() >>
                           constraint.retract_formula(e, s.constraint, w, e.lr(), factor));
      });
    } else {
      const auto u = e.take_like(w);
      if constexpr (measures_norm<E, St>) {
        const auto norm = detail::take_norm(e);
        const auto lr = direction(e, s, w, first, reference, u, norm);
        if constexpr (retracts_in_parts<E, St, W, decltype(lr)>)
          orthogonalizer.orthogonalize(e, s.orthogonalizer, u, norm, [&](const auto& y, index_t from, index_t count) {
            auto part = e.part(from, count);
            detail::retract(constraint, part, s.constraint, w.matrices(from, count), as_const(y),
                            members(lr, from, count), factor);
          });
        else
          finish_with(e, s, w, u, lr, factor, norm);
      } else {
        const auto lr = direction(e, s, w, first, reference, u, not_measured{});
        finish_with(e, s, w, u, lr, factor);
      }
    }
  }

 private:
  template <class E, class St>
  static constexpr bool measures_norm = requires(const Orthogonalizer o, E& e, St& s, view<typename E::compute> u,
                                                 detail::scaled_norm<typename E::compute> n) {
    o.orthogonalize(e, s.orthogonalizer, u, n);
  };
  // The weights take what the orthogonalizer gives as it comes, some members at a time: nothing else of members is in
  // the formula.
  struct any_part {
    template <class T>
    void operator()(view<T>, index_t, index_t) const {}
  };
  template <class E, class St, class W, class Rate>
  static constexpr bool retracts_in_parts = requires(const rule r, E& e, St& s, view<W> w, view<typename E::compute> u,
                                                     detail::scaled_norm<typename E::compute> n, Rate lr) {
    requires leaves_update<Normalizer>;
    r.orthogonalizer.orthogonalize(e, s.orthogonalizer, u, n, any_part{});
    detail::accept_formula_of_weight<W, typename E::compute>(r.constraint.retract_formula(e, s.constraint, w, lr, 1.0));
  };
  template <class E, class St, class W, class V>
  static constexpr bool all_elementwise = gradient_is_formula<E, St, W, V>&& detail::has_plain_formula<Orthogonalizer>&&
      detail::has_plain_formula<Normalizer>&& detail::has_retract_formula<Constraint, E, decltype(St::constraint), W>;

  // The gradient as the first formula takes it: with the step's scale, or, if that will not do, as it is.
  template <class St, class W, class E, class G>
  static auto first_view(E& e, view<const G> g) {
    if constexpr (scales_gradient<E, St, W, G>)
      return scaled_view{g, e.gradient_scale()};
    else
      return g;
  }
  template <class E, class St, class W, class V, class Use>
  void gradient_formula(E& e, St& s, view<W> w, V g, Use use) const {
    if constexpr (lift_joins<E, St, W, V>) {
      const auto lifted = constraint.lift_formula(e, s.constraint, w, g);
      momentum.formula(e, s.momentum, update_slot{}, [&](const auto& f) { use(lifted >> f); });
    } else {
      momentum.formula(e, s.momentum, g, use);
    }
  }
  // Lift and momentum: writes the direction u, and its norm if there is a place for it. Returns the learning rate.
  struct not_measured {};
  template <class E, class St, class W, class V, class G, class U, class Norm>
  auto direction(E& e, St& s, view<W> w, V g, view<const G> reference, view<U> u, const Norm& norm) const {
    constexpr bool measured = !std::is_same_v<Norm, not_measured>;
    if constexpr (gradient_is_formula<E, St, W, V>) {
      gradient_formula(e, s, w, g, [&](const auto& f) {
        if constexpr (measured)
          run_formula_and_reduce(e, fn::scaled_norm{}, norm.pair, f, u);
        else
          run_formula(e, f, u);
      });
      return e.lr();
    } else {
      const auto lr = accumulate(e, s.momentum, constraint.lift(e, s.constraint, w, g, u), reference, u);
      if constexpr (measured) e.reduce(fn::scaled_norm{}, norm.pair, as_const(u));
      return lr;
    }
  }
  // The orthogonalizer, and what comes after it: with the view that it returns, or with u.
  template <class E, class St, class W, class U, class Rate, class... Norm>
  void finish_with(E& e, St& s, view<W> w, view<U> u, Rate lr, double factor, const Norm&... norm) const {
    if constexpr (std::is_void_v<decltype(orthogonalizer.orthogonalize(e, s.orthogonalizer, u, norm...))>) {
      orthogonalizer.orthogonalize(e, s.orthogonalizer, u, norm...);
      finish(e, s, w, u, lr, factor);
    } else {
      finish(e, s, w, orthogonalizer.orthogonalize(e, s.orthogonalizer, u, norm...), lr, factor);
    }
  }
  // Normalizer and constraint: from y, what the orthogonalizer gave, to the weight.
  template <class E, class St, class W, class Y, class Rate>
  void finish(E& e, St& s, view<W> w, view<Y> y, Rate lr, double factor) const {
    using C = typename E::compute;
    constexpr bool retracts = detail::has_retract_formula<Constraint, E, decltype(St::constraint), W>;
    constexpr bool plain = detail::has_plain_formula<Normalizer>;
    constexpr bool joins = retracts && detail::has_formula<Normalizer, E, decltype(St::normalizer), view<const Y>>;
    if constexpr (joins) {
      normalizer.formula(e, s.normalizer, as_const(y), [&](const auto& f) {
        run_formula(e, elementwise(fn::assign{}, update_slot{}, as_const(y)) >> f >>
                           constraint.retract_formula(e, s.constraint, w, lr, factor));
      });
    } else if constexpr (plain && retracts) {
      run_formula(e, elementwise(fn::assign{}, update_slot{}, as_const(y)) >> normalizer.formula() >>
                         constraint.retract_formula(e, s.constraint, w, lr, factor));
    } else if constexpr (leaves_update<Normalizer> && only_reads_update<Constraint>) {
      detail::retract(constraint, e, s.constraint, w, as_const(y), lr, factor);
    } else if constexpr (std::is_same_v<Y, C>) {
      detail::normalize(normalizer, e, s.normalizer, y);
      detail::retract(constraint, e, s.constraint, w, y, lr, factor);
    } else {
      const view<C> u = e.take_like(w);
      e.for_each(fn::assign{}, u, as_const(y));
      detail::normalize(normalizer, e, s.normalizer, u);
      detail::retract(constraint, e, s.constraint, w, u, lr, factor);
    }
  }
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
