// Luon: Muon with the decay inside: it is added to the gradient and orthogonalized with it.
//
//   M <- 0.95 M + G + decay W       O = NS(M), five cubic steps       W <- W - lr O
//
// github.com/JiaxuanZou0714/Luon: lr 0.02, decay 0.5, for the query and key projections only. Where decay W outweighs
// the gradients the step is along minus the polar factor of W, the subgradient of its nuclear norm; elsewhere the decay
// tilts the direction, by an amount that depends on the size of the gradient. State: 1 scalar per parameter. FLOPs:
// 20 m^2 n per m x n matrix, m <= n.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/coupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct luon_defaults {
  static constexpr double lr = 0.02;
  static void set(newton_schulz<>& o) { o.coefficients = coefficient_set::cubic, o.eps = 1e-7; }
  static void set(coupled_decay& c) { c.decay = 0.5; }
};

using luon = rule<heavy_ball, newton_schulz<>, no_normalizer, coupled_decay, unit_scale, luon_defaults>;

MATOPT_COMPILED_RULE(luon)

}  // namespace MATOPT_NAMESPACE
