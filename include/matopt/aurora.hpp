// Aurora: Muon whose update has equally long rows if there are more rows than columns, and else equally long columns.
//
//   U = Nesterov(G)       O = the polar factor of diag(d) U, with d such that the lines of O are equally long
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) O
//
// tilde-research/aurora-release, at the settings of the optimizer track of modded-nanogpt: two polar factors, lr 0.05,
// decay 0.025. The equations of d are in balanced_polar.hpp. The record's polar factor is the set speedrun12; the
// default here is degree9_4, which is within 1.2 % of it for two fifths of the products, because there are two of them.
// State: 1 scalar per parameter. FLOPs: twice Muon's on matrices that are not square, and 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/balanced_polar.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct aurora_defaults {
  static constexpr double lr = 0.05;
  static void set(balanced_polar<>& o) {
    o.eps = 1e-7;
    o.inner = newton_schulz<>::preset(coefficient_set::degree9_4), o.inner.eps = 1e-7;
  }
  static void set(decoupled_decay& c) { c.decay = 0.025; }
};

using aurora = rule<nesterov_ema, balanced_polar<>, no_normalizer, decoupled_decay, fan_ratio, aurora_defaults>;

MATOPT_COMPILED_RULE(aurora)

}  // namespace MATOPT_NAMESPACE
