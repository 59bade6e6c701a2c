// NAMO: Muon with one adaptive learning rate per matrix, Adam's quotient of norms.
//
//   U = Nesterov(G)       O = NS5(U)       v <- 0.99 v + 0.01 ||G||_F^2
//   a = lr sqrt(1 - 0.99^t) / (1 - 0.95^t) ||U||_F / (sqrt(v) + 1e-8)
//   W <- max(0, 1 - decay min(a, 1)) W - min(0.2 sqrt(max(m, n)) a, 1) O
//
// NAMO (arXiv 2602.17080); follows minxin-zhg/namo: lr 0.01, decay 0.1. The decay goes by the adaptive rate: no
// gradients, no decay.
//   namo_paper   as third parties read the paper: no Nesterov, no shape factor, no clamps
//
// State: 1 scalar per parameter and 3 per matrix. FLOPs: Muon's and 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/clamped_decay.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/adaptive_rate.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct namo_defaults {
  static constexpr double lr = 0.01;
  static void set(clamped_decay& c) { c.decay = 0.1; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};
struct namo_official_defaults : namo_defaults {
  using namo_defaults::set;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
};

using namo = rule<norm_rate<>, newton_schulz<>, no_normalizer, clamped_decay, match_rms, namo_official_defaults>;
using namo_paper = rule<norm_rate<ema>, newton_schulz<>, no_normalizer, decoupled_decay, unit_scale, namo_defaults>;

MATOPT_COMPILED_RULE(namo)
MATOPT_COMPILED_RULE(namo_paper)

}  // namespace MATOPT_NAMESPACE
