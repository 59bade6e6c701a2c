// MARS-M: Moonlight's Muon on a variance-reduced gradient.
//
//   c = G + kappa (G - R), kappa = gamma 0.95 / 0.05, to norm 1 if longer             MARS Algorithm 1, lines 4 and 5
//   M <- 0.95 M + 0.05 c                                                              MARS Algorithm 1, line 6
//   O = NS5(M)       W <- (1 - lr decay) W - lr 0.2 sqrt(max(m, n)) O                 Moonlight eq. 2 and 4
//
// MARS-M (arXiv 2510.21800); the numbers are of MARS (arXiv 2411.10438) and Moonlight (arXiv 2502.16982). Follows
// AGI-Arena/MARS: lr 1e-3, decay 0.1, gamma 0.025, always clipped.
//
//   mars_m             R is the last gradient: approximate
//   mars_m_exact       R is handed in: this batch's gradient at the last weights
//   mars_m_efficient   approximate without clip, as quasi-hyperbolic momentum: gamma 0.05 would be Muon with Nesterov
//
// Without the clip the approximate form is a setting of the momentum and no variance reduction; that takes the exact
// one. State: 2 scalars per parameter; exact: 1 and 1 per matrix; efficient: 1. FLOPs: Muon's and 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/mars.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/momentum/quasi_hyperbolic.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct mars_m_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using mars_m = rule<mars<ema>, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, mars_m_defaults>;
using mars_m_exact = mars_m::with_momentum<two_gradients<ema>>;
using mars_m_efficient = mars_m::with_momentum<quasi_hyperbolic>;

MATOPT_COMPILED_RULE(mars_m)
MATOPT_COMPILED_RULE(mars_m_exact)
MATOPT_COMPILED_RULE(mars_m_efficient)

}  // namespace MATOPT_NAMESPACE
