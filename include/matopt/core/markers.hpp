// Markers: what a policy says of itself to the rest of the step; and what a decorator hands on of the policy inside.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <optional>

#include "pass.hpp"
#include "state_layout.hpp"

namespace MATOPT_NAMESPACE {

// `static constexpr bool NAME = true` in a policy. A decorator that does not declare one has its Inner's.
#define MATOPT_MARKER(NAME)                        \
  namespace detail {                               \
  template <class P>                               \
  constexpr bool says_##NAME() {                   \
    if constexpr (requires { P::NAME; })           \
      return P::NAME;                              \
    else if constexpr (decorator<P>)               \
      return says_##NAME<typename P::decorates>(); \
    else                                           \
      return false;                                \
  }                                                \
  }                                                \
  template <class P>                               \
  concept NAME = detail::says_##NAME<P>();

// Momentum: g is a gradient_pair, the gradient and one taken at other weights or of another batch.
MATOPT_MARKER(needs_reference)
// Momentum: rate() returns one rate per column.
MATOPT_MARKER(rates_by_column)
// Momentum: what it gives is the gradient itself.
MATOPT_MARKER(remembers_nothing)
// Momentum: keeps its matrices in codes of 8 bits.
MATOPT_MARKER(keeps_codes)
// Orthogonalizer: obeys pass.rank() and pass.tail().
MATOPT_MARKER(honours_rank)
// Orthogonalizer: keeps a buffer of its own in place of the momentum's.
MATOPT_MARKER(replaces_momentum)
// Orthogonalizer: has orthogonalize(e, s, u, norm, to) in place of orthogonalize(e, s, u); core/policy.hpp explains it.
MATOPT_MARKER(takes_norm)
// Orthogonalizer: takes_norm, and `to` may be a function that gets the result in parts.
MATOPT_MARKER(gives_parts)
// Momentum, constraint: has an orthogonalizer of its own, so that the slot holds none.
MATOPT_MARKER(orthogonalizes)
// Constraint: retract takes a learning rate per column, too.
MATOPT_MARKER(takes_column_rates)
// Constraint: retract leaves u alone and takes it in any element type.
MATOPT_MARKER(only_reads_update)
// Constraint: what retract writes is a copy of its state, so that a change of the weight by anyone else does not last.
MATOPT_MARKER(keeps_master)
// Constraint: runs e.svd.
MATOPT_MARKER(needs_svd)
// Constraint: a rank budget would cut its own decompositions, too.
MATOPT_MARKER(needs_full_rank)
#undef MATOPT_MARKER

namespace detail {
// --- what a decorator that does not have it hands on of its Inner ---
template <class P>
constexpr index_t count_phases() {
  if constexpr (requires { P::phases; })
    return P::phases;
  else if constexpr (decorator<P>)
    return count_phases<typename P::decorates>();
  else
    return 1;
}
template <class P>
index_t phase_of(const P& momentum, index_t step, index_t bucket) {
  if constexpr (requires { momentum.phase(step, bucket); })
    return momentum.phase(step, bucket);
  else if constexpr (requires { P::phases; })
    return momentum.phase(step);
  else if constexpr (decorator<P>)
    return phase_of(momentum.inner, step, bucket);
  else
    return 0;
}
// The policy's own check, and those of what is inside.
template <class P>
void validate(const P& policy) {
  if constexpr (requires { policy.validate(); }) policy.validate();
  if constexpr (decorator<P>) validate(policy.inner);
}
template <class P, class E, class St, class W>
void init(const P& policy, E& e, St& s, view<W> w) {
  if constexpr (requires { policy.init(e, s, w); })
    policy.init(e, s, w);
  else if constexpr (decorator<P>)
    init(policy.inner, e, inner_state(policy, s), w);
}
// The number c of a constraint whose step multiplies the weight by 1 - lr c; its setting `decay`, if it has that.
template <class P>
std::optional<double> decay_by_rate(const P& constraint) {
  if constexpr (requires { constraint.decay_by_rate(); })
    return constraint.decay_by_rate();
  else if constexpr (decorator<P>)
    return decay_by_rate(constraint.inner);
  else
    return std::nullopt;
}
// What is kept of the weight is read from it again.
template <class P, class E, class St, class W>
void resync(const P& policy, E& e, St& s, view<W> w) {
  if constexpr (requires { policy.resync(e, s, w); })
    policy.resync(e, s, w);
  else if constexpr (decorator<P>)
    resync(policy.inner, e, inner_state(policy, s), w);
}
// Whether there is something for resync() to read.
template <class P, class E, class St, class W>
constexpr bool keeps_copy() {
  if constexpr (requires(const P policy, E& e, St& s, view<W> w) { policy.resync(e, s, w); })
    return true;
  else if constexpr (decorator<P>)
    return keeps_copy<typename P::decorates, E,
                      std::remove_cvref_t<decltype(inner_state(std::declval<const P&>(), std::declval<St&>()))>, W>();
  else
    return false;
}
// The learning rate of the step: the pass's, unless the momentum has one of its own.
template <class P, class E, class St>
auto rate(const P& momentum, E& e, St& s) {
  if constexpr (requires { momentum.rate(e, s); })
    return momentum.rate(e, s);
  else if constexpr (decorator<P>)
    return rate(momentum.inner, e, inner_state(momentum, s));
  else
    return e.lr();
}
template <class P, class E, class St, class W, class Rate>
void finish(const P& constraint, E& e, St& s, view<W> w, Rate lr, double scale) {
  if constexpr (requires { constraint.finish(e, s, w, lr, scale); })
    constraint.finish(e, s, w, lr, scale);
  else if constexpr (decorator<P>)
    finish(constraint.inner, e, inner_state(constraint, s), w, lr, scale);
}
}  // namespace detail

}  // namespace MATOPT_NAMESPACE
