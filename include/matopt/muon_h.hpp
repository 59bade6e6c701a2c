// MuonH: Muon on a sphere: the weight keeps its norm, and lr is the length of a step relative to it.
//
//   O = NS12(Nesterov(G))       X = W - lr R O / ||O||       W <- R X / ||X||       R = ||W_0||
//
// Hyperball (arXiv 2606.16899), and a record of the optimizer track of modded-nanogpt, whose settings these are: twelve
// steps of `speedrun12`, lr 0.018, no decay. The record reads the norm again in each step; here it is that of the first
// weight. A weight that begins at zero stays there. No scale by shape, which the norm would undo.
// State: 1 scalar per parameter and 1 per matrix. FLOPs: Muon's with twelve steps, and 10 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/norm_sphere.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct muon_h_defaults {
  static constexpr double lr = 0.018;
  static void set(newton_schulz<>& o) { o.coefficients = coefficient_set::speedrun12, o.steps = 12, o.eps = 1e-7; }
};

using muon_h = rule<nesterov_ema, newton_schulz<>, no_normalizer, projected<hyperball>, unit_scale, muon_h_defaults>;

MATOPT_COMPILED_RULE(muon_h)

}  // namespace MATOPT_NAMESPACE
