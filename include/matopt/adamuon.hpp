// AdaMuon: the sign of the momentum is orthogonalized, and each entry of the result is divided by the root of its
// running square; the update's RMS is 0.2.
//
//   U = sign(Nesterov(G))       O = NS5(U)       V <- 0.95 V + 0.05 O^2       Y = O / (sqrt(V) + 1e-8)
//   W <- (1 - lr decay) W - lr Y 0.2 sqrt(m n) / (||Y||_F + 1e-8)                                        Algorithm 1
//
// AdaMuon (arXiv 2507.11005); written from the paper's equations, because the official repository has no licence.
//
//   adamuon             the official GPT-2 code: mean with Nesterov; lr 0.02, decay 0.01 (in its runs 6e-4, 0.1)
//   adamuon_paper       summed momentum without Nesterov
//   adamuon_megatron    summed momentum with Nesterov: the same steps as adamuon, for a sum and a mean have one sign
//
// The official Megatron file loses V outside of its distributed mode; here it is kept. The authors have one beta for
// momentum and V: set element_beta along with momentum. The first update is 0.2 times a sign: rounding that flips a
// tiny entry of O shows. State: 2 scalars per parameter. FLOPs: Muon's and 10 per parameter. For hidden matrices; split
// fused ones.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/momentum/sign_of.hpp"
#include "policy/normalizer/element_norm.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct adamuon_defaults {
  static constexpr double lr = 0.02;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.01; }
};
struct adamuon_paper_defaults {
  static constexpr double lr = 0.02;
  static void set(decoupled_decay& c) { c.decay = 0.01; }
  static void set(element_norm& n) { n.norm_eps = 0; }
};

using adamuon =
    rule<sign_of<nesterov_ema>, newton_schulz<>, element_norm, decoupled_decay, unit_scale, adamuon_defaults>;
using adamuon_paper =
    rule<sign_of<heavy_ball>, newton_schulz<>, element_norm, decoupled_decay, unit_scale, adamuon_paper_defaults>;
using adamuon_megatron = adamuon::with_momentum<sign_of<nesterov_heavy_ball>>;

MATOPT_COMPILED_RULE(adamuon)
MATOPT_COMPILED_RULE(adamuon_paper)
MATOPT_COMPILED_RULE(adamuon_megatron)

}  // namespace MATOPT_NAMESPACE
