// A published rule with a weight projection around its constraint, and with the rule's own defaults.
//
//   using ahead = with_projection<look_ahead, muon>;              = muon with EMA-Nesterov's look-ahead
//   using both = with_projection<look_ahead, with_projection<tail_average, normuon>>;
//
// Any projection of policy/constraint/ will do; the outer one acts first before a step and last after it. Of a rule on
// master_weights the projection acts on the masters.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "policy/constraint/master_weights.hpp"
#include "rule.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
template <class Projection, class Constraint>
struct projected_inside {
  using type = projected<Projection, Constraint>;
};
template <class Projection, class Inner>
struct projected_inside<Projection, master_weights<Inner>> {
  using type = master_weights<projected<Projection, Inner>>;
};
// What a preset says of the constraint, it says of the one inside.
template <class Preset, class Inner, class Constraint>
struct preset_inside : Preset {
  template <class Policy>
  requires requires(Policy& p) { Preset::set(p); }
  static void set(Policy& p) { Preset::set(p); }
  static void set(Constraint& c) {
    if constexpr (requires { c.projection; })
      c.inner = preset<Inner, Preset>();
    else
      c.inner.inner = preset<Inner, Preset>().inner;
  }
};
}  // namespace detail

template <class Projection, class Rule>
using with_projection =
    rule<typename Rule::momentum_type, typename Rule::orthogonalizer_type, typename Rule::normalizer_type,
         typename detail::projected_inside<Projection, typename Rule::constraint_type>::type, typename Rule::scale_type,
         detail::preset_inside<typename Rule::preset_type, typename Rule::constraint_type,
                               typename detail::projected_inside<Projection, typename Rule::constraint_type>::type>>;

}  // namespace MATOPT_NAMESPACE
