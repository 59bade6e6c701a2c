// A published rule that keeps its momentum in 8 bits, with the rule's own defaults.
//
//   using normuon_8bit = with_8bit_momentum<normuon>;
//   using adamw_8bit = with_8bit_momentum<adamw, code_map::dynamic>;
//
// Of the momentum all matrices but second moments are kept so (policy/momentum/quantized.hpp). A momentum that keeps
// none is refused.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "policy/momentum/quantized.hpp"
#include "rule.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
// What a preset says of the momentum, it says of the one inside.
template <class Preset, class Momentum, code_map Map>
struct preset_in_8bit : Preset {
  template <class Policy>
  requires requires(Policy& p) { Preset::set(p); }
  static void set(Policy& p) { Preset::set(p); }
  static void set(quantized<Momentum>& m) { m.inner = preset<Momentum, Preset>(), m.map = Map; }
};
}  // namespace detail

template <class Rule, code_map Map = code_map::linear>
using with_8bit_momentum =
    rule<quantized<typename Rule::momentum_type>, typename Rule::orthogonalizer_type, typename Rule::normalizer_type,
         typename Rule::constraint_type, typename Rule::scale_type,
         detail::preset_in_8bit<typename Rule::preset_type, typename Rule::momentum_type, Map>>;

}  // namespace MATOPT_NAMESPACE
