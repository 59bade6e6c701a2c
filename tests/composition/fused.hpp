// Policies that keep their types, so that the step joins their formulas into common passes, beside the same policies
// with types forgotten, where each runs by itself. What a rule computes must not depend on that.
//
// The step looks at the type of a policy only if it hands over a formula, or takes or leaves the update in a way of its
// own. (Constraints that decorate another one do what that one does: some of them are in policy/join_test.cpp.) All
// other policies are the same to it, and one forgotten type stands for them. Typed policies and forgotten types are put
// together so that each meets each of the other slots: some 280 rules in place of 45 000, about a minute of compiling.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <tuple>

#include <matopt/policy/constraint/cautious_decay.hpp>
#include <matopt/policy/constraint/clamped_decay.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/constraint/decay_after.hpp>
#include <matopt/policy/constraint/decoupled_decay.hpp>
#include <matopt/policy/constraint/frank_wolfe.hpp>
#include <matopt/policy/constraint/independent_decay.hpp>
#include <matopt/policy/constraint/row_sphere.hpp>
#include <matopt/policy/constraint/weight_normalization.hpp>
#include <matopt/policy/momentum/adam_direction.hpp>
#include <matopt/policy/momentum/corrected_ema.hpp>
#include <matopt/policy/momentum/lion_momentum.hpp>
#include <matopt/policy/momentum/mars.hpp>
#include <matopt/policy/momentum/moment_scaled.hpp>
#include <matopt/policy/momentum/momentum.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/momentum/polar_first.hpp>
#include <matopt/policy/momentum/positive_negative.hpp>
#include <matopt/policy/momentum/quasi_hyperbolic.hpp>
#include <matopt/policy/momentum/sign_of.hpp>
#include <matopt/policy/momentum/variance_adaptive.hpp>
#include <matopt/policy/normalizer/element_norm.hpp>
#include <matopt/policy/normalizer/neuron_norm.hpp>
#include <matopt/policy/normalizer/no_normalizer.hpp>
#include <matopt/policy/normalizer/target_rms.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/nuclear_scaled.hpp>
#include <matopt/policy/orthogonalizer/sign_direction.hpp>
#include <matopt/policy/orthogonalizer/subspace_polar.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/policy/scale/scale.hpp>

#include "../support/tolerance.hpp"
#include "erased.hpp"

namespace matopt::test {

// --- forgotten types ---
// They promise the compiler what the policies in them need: a rate per column, a gradient that is changed.
template <bool ByColumn>
struct forgotten_momentum : any_momentum {
  static constexpr bool rates_by_column = ByColumn;
  template <class E>
  auto rate(E&, any_state& s) const {
    if constexpr (ByColumn)
      return column_broadcast<double>{s.rate->values};
    else
      return matrix_broadcast<double>{s.rate->values};
  }
};
template <bool MapsGradient>
struct forgotten_constraint : any_constraint {
  static constexpr bool maps = MapsGradient;
  template <class E>
  auto lift(E& e, any_state& s, view<double> w, view<const double> g) const {
    const view<const double> lifted = policy->lift(e, s.own.get(), w, g, e.take_like(w));
    if constexpr (MapsGradient) return lifted;
  }
};

// --- what stands in each slot ---
using typed_momenta =
    std::tuple<ema, nesterov_ema, heavy_ball, nesterov_heavy_ball, corrected_ema, corrected_nesterov_ema,
               quasi_hyperbolic, lion_momentum, adam_direction, noise_to_signal, variance_scaled,
               nesterov_moment_scaled, no_momentum, positive_negative, sign_of<>, mars<>, polar_first<svd_polar>,
               forgotten_momentum<false>, forgotten_momentum<true>>;
using typed_orthogonalizers = std::tuple<no_orthogonalizer, newton_schulz<>, subspace_polar, sign_direction,
                                         nuclear_scaled<>, any_orthogonalizer>;
using typed_normalizers = std::tuple<no_normalizer, neuron_norm, element_norm, target_rms, any_normalizer>;
using typed_constraints = std::tuple<decoupled_decay, independent_decay, coupled_decay, cautious_decay, clamped_decay,
                                     decay_after, frank_wolfe, weight_normalization<>, row_sphere<>,
                                     forgotten_constraint<false>, forgotten_constraint<true>>;

template <class P>
concept forgotten = requires(P p) {
  p.policy;
};

// What the rules of some momenta were found to do.
struct fused_account {
  std::set<std::pair<std::string, std::string>> pairs{};  // names of policies of different slots that stepped together
  std::vector<std::string> differing{};                   // rules whose weights differ
  std::size_t rules = 0, runs = 0;
};
void run_first_momenta(fused_account& account);  // one translation unit each
void run_last_momenta(fused_account& account);

using forgotten_rule = rule<any_momentum, any_orthogonalizer, any_normalizer, any_constraint, fan_ratio>;

// A few steps of one matrix, without an optimizer, so that little but the step is compiled for each rule.
template <class Rule>
std::vector<double> weights_after_steps(const Rule& r, double rank_budget) {
  constexpr index_t rows = 5, cols = 4;
  constexpr std::size_t n = rows * cols;
  std::vector<double> w(n), g(n), reference(n);
  for (std::size_t i = 0; i < n; ++i) w[i] = 0.5 * std::sin(1.3 * static_cast<double>(i) + 0.2);

  alignas(arena::alignment) static std::byte state_memory[1 << 16], scratch_memory[1 << 17];
  std::fill(std::begin(state_memory), std::end(state_memory), std::byte{0});
  arena placing{state_memory}, scratch{scratch_memory};
  typename Rule::template state<types<double>> state{};
  r.each_state(state, [&](std::string_view, const auto& policy, auto& own) {
    state_layout<double, double> layout(placing, rows, cols, 1, false);
    lay_out(policy, layout, own);
  });

  static eigen_backend cpu(1);
  const status_word go = 0;
  for (index_t t = 0; t < 4; ++t) {
    step_numbers<double> numbers{.lr = 0.02,
                                 .step = static_cast<double>(t + 1),
                                 .counter = static_cast<std::uint32_t>(t),
                                 .gradient_scale = 0.5};
    pass<eigen_backend, double> e(cpu, scratch, &go, &numbers, 1, static_cast<index_t>(std::ceil(rank_budget)),
                                  r.phase(t));
    const auto weight = row_major(w.data(), rows, cols);
    if (t == 0) r.init(e, state, weight);
    for (std::size_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(i) + 31 * static_cast<double>(t);
      reference[i] = g[i], g[i] = std::sin(0.7 * x * x + x);
    }
    detail::run_step(r, true, e, state, weight, row_major<const double>(g.data(), rows, cols),
                     row_major<const double>(reference.data(), rows, cols));
  }
  if (placing.peak > sizeof state_memory || scratch.peak > sizeof scratch_memory)
    throw std::logic_error("the test has too little memory for this rule");
  return w;
}

// The policies that a type of a rule stands for: itself, or all that no type in the list is.
template <class P, class List>
auto stands_for(const List& list) {
  std::vector<typename List::value_type::element_type*> out;
  for (const auto& policy : list) {
    bool wanted = false;
    if constexpr (forgotten<P>) {
      wanted = !policy->joins;
      if constexpr (requires { policy->by_column; }) wanted &= policy->by_column == P::rates_by_column;
      if constexpr (requires { policy->maps_gradient; }) wanted &= policy->maps_gradient == P::maps;
    } else {
      wanted = policy->name() == P::name();
    }
    if (wanted) out.push_back(policy.get());
  }
  return out;
}
template <class P, class Erased>
P policy_of(const Erased* erased) {
  P p{};
  if constexpr (forgotten<P>)
    p.policy = erased;
  else
    p = with_some_decay(p);
  return p;
}

template <class M, class O, class N, class C>
void run_rule(fused_account& account) {
  ++account.rules;
  for (const auto* m : stands_for<M>(all_momenta()))
    for (const auto* o : stands_for<O>(all_orthogonalizers()))
      for (const auto* n : stands_for<N>(all_normalizers()))
        for (const auto* c : stands_for<C>(all_constraints())) {
          if (!refusal(*m, *o, *c).empty()) continue;
          const rule<M, O, N, C, fan_ratio> joined{policy_of<M>(m), policy_of<O>(o), policy_of<N>(n), policy_of<C>(c)};
          forgotten_rule apart;
          apart.momentum.policy = m, apart.orthogonalizer.policy = o;
          apart.normalizer.policy = n, apart.constraint.policy = c;
          const double budget = c->rank_budget(0, 4);
          const auto x = weights_after_steps(joined, budget), y = weights_after_steps(apart, budget);
          double size = 0, off = 0;
          for (std::size_t i = 0; i < x.size(); ++i) {
            size = std::max(size, std::abs(y[i]));
            off = std::max(off, std::isfinite(x[i]) ? std::abs(x[i] - y[i]) : INFINITY);
          }
          ++account.runs;
          if (!(off <= tolerance<double> * size))
            account.differing.push_back(m->name() + ", " + o->name() + ", " + n->name() + ", " + c->name() + " by " +
                                        std::to_string(off));
          const std::string names[] = {m->name(), "orthogonalizer " + o->name(), "normalizer " + n->name(), c->name()};
          for (int i = 0; i < 4; ++i)
            for (int k = i + 1; k < 4; ++k) account.pairs.emplace(names[i], names[k]);
        }
}

template <class Slot, std::size_t I>
using turn = std::tuple_element_t<I % std::tuple_size_v<Slot>, Slot>;

// Momentum number I with every constraint; orthogonalizers and normalizers take turns, so that any two slots meet.
template <std::size_t I>
void run_momentum(fused_account& account) {
  using M = std::tuple_element_t<I, typed_momenta>;
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    const auto with = [&]<std::size_t k>() {
      // A momentum that orthogonalizes goes with none.
      using O = std::conditional_t<orthogonalizes<M>, no_orthogonalizer, turn<typed_orthogonalizers, I + k>>;
      using N = turn<typed_normalizers, I + 2 * k>;
      using C = std::tuple_element_t<k, typed_constraints>;
      if constexpr (column_rates_are_taken<M, C>) {
        run_rule<M, O, N, C>(account);
        // Two gradients are among these, and not every constraint goes with them.
        if constexpr (forgotten<M>)
          run_rule<M, turn<typed_orthogonalizers, I + k + 1>, turn<typed_normalizers, I + 2 * k + 1>, C>(account);
        // A rank budget is among these, and few orthogonalizers honour it.
        if constexpr (forgotten<C> && !std::is_same_v<O, subspace_polar>) run_rule<M, subspace_polar, N, C>(account);
        if constexpr (forgotten<C> && !forgotten<O>) run_rule<M, any_orthogonalizer, N, C>(account);
        // Dion's is among these, and keeps the only momentum.
        if constexpr (remembers_nothing<M> && !forgotten<C> && !forgotten<O>)
          run_rule<M, any_orthogonalizer, N, C>(account);
        // A sphere that orthogonalizes is among these, and wants no other that does.
        if constexpr (std::is_same_v<C, forgotten_constraint<false>> && !std::is_same_v<O, no_orthogonalizer>)
          run_rule<M, no_orthogonalizer, N, C>(account);
      }
    };
    (with.template operator()<K>(), ...);
  }
  (std::make_index_sequence<std::tuple_size_v<typed_constraints>>{});
}
template <std::size_t First, std::size_t... I>
void run_momenta(fused_account& account, std::index_sequence<I...>) {
  (run_momentum<First + I>(account), ...);
}
inline constexpr std::size_t half_of_momenta = std::tuple_size_v<typed_momenta> / 2;

}  // namespace matopt::test
