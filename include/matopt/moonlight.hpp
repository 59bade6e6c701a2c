// Moonlight's Muon: summed momentum, and updates of the size that AdamW's have, so that both share a learning rate.
//
//   M <- 0.95 M + G       U = G + 0.95 M                          eq. 1, footnote 1
//   O = NS5(U)                                                    eq. 2
//   W <- (1 - lr decay) W - lr 0.2 sqrt(max(m, n)) O              eq. 4
//
// Liu et al.: Muon is Scalable for LLM Training (arXiv 2502.16982); follows MoonshotAI/Moonlight, as does the
// Megatron version (lr 2e-2 there). lr 1e-3, decay 0.1. State: 1 scalar per parameter. FLOPs: Muon's. For hidden
// matrices; the others take AdamW with the same rate, betas 0.9 and 0.95 and eps on the uncorrected root
// (adam_eps::uncorrected).
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct moonlight_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using moonlight =
    rule<nesterov_heavy_ball, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, moonlight_defaults>;

MATOPT_COMPILED_RULE(moonlight)

}  // namespace MATOPT_NAMESPACE
