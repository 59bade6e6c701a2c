// Contra-Muon: Muon whose update is turned away from the momentum's largest singular directions.
//
//   U = Nesterov(G)       O = NS12(U)       D = O - 0.2 U / ||U||_2
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) D ||O||_F / ||D||_F
//
// The direction of a record of the optimizer track of modded-nanogpt (contra 0.4, of which half is taken). That record
// also evens out rows and columns and keeps updates above 0.35 of the weight (neuron_norm, update_floor), which is left
// out here, and so its rate does not apply here; lr 0.02 is Muon's. State: 1 scalar per parameter. FLOPs: Muon's with
// twelve steps, and 32 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/contra_polar.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct contra_muon_defaults {
  static constexpr double lr = 0.02;
  static void set(contra_polar<>& o) {
    o.inner.coefficients = coefficient_set::speedrun12, o.inner.steps = 12, o.inner.eps = 1e-7;
  }
};

using contra_muon = rule<nesterov_ema, contra_polar<>, no_normalizer, decoupled_decay, fan_ratio, contra_muon_defaults>;

MATOPT_COMPILED_RULE(contra_muon)

}  // namespace MATOPT_NAMESPACE
