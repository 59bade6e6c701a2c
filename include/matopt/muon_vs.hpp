// Muon-VS: the momentum is divided by an estimate of its noise, entry by entry, before it is orthogonalized.
//
//   X = m / (sqrt(v) + 1e-8), m and v bias-corrected as in variance_adaptive.hpp       O = NS5(X)
//   W <- (1 - lr decay) W - lr 0.2 sqrt(max(m, n)) O
//
// Variance-Adaptive Muon (arXiv 2601.14603). The three suites of the official code:
//   muon_vs           NanoGPT: lr 6e-4, decay 0.1
//   muon_vs_suite_a   takes the deviation after the mean has moved: beta^2 times v; lr 1e-3
//   muon_vs_suite_b   eps of the norm 1e-5, scale sqrt(max(1, m / n)), lr 8e-3, gradients of norm below 1 amplified
//                     to it
//
// The limit of Muon-NSR for large alpha, up to a factor that the orthogonalizer removes. State: 2 scalars per parameter
// and 1 per matrix. FLOPs: Muon's and 14 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/momentum/variance_adaptive.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct muon_vs_defaults {
  static constexpr double lr = 6e-4;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};
struct muon_vs_suite_a_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(variance_scaled& m) { m.late_variance = true; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};
struct muon_vs_suite_b_defaults {
  static constexpr double lr = 8e-3;
  static void set(variance_scaled& m) { m.amplify_below = 1; }
  static void set(newton_schulz<>& o) { o.eps = 1e-5; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using muon_vs = rule<variance_scaled, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, muon_vs_defaults>;
using muon_vs_suite_a =
    rule<variance_scaled, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, muon_vs_suite_a_defaults>;
using muon_vs_suite_b =
    rule<variance_scaled, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, muon_vs_suite_b_defaults>;

MATOPT_COMPILED_RULE(muon_vs)
MATOPT_COMPILED_RULE(muon_vs_suite_a)
MATOPT_COMPILED_RULE(muon_vs_suite_b)

}  // namespace MATOPT_NAMESPACE
