// Muon-NSR: the momentum is damped where it is noisy, entry by entry, before it is orthogonalized.
//
//   X = m / (sqrt(m^2 + alpha v) + 1e-8), m and v bias-corrected as in variance_adaptive.hpp       O = NS5(X)
//   W <- (1 - lr decay) W - lr 0.2 sqrt(max(m, n)) O
//
// Variance-Adaptive Muon (arXiv 2601.14603). The three suites of the official code:
//   muon_nsr           NanoGPT: alpha 10, lr 6e-4, decay 0.1
//   muon_nsr_suite_a   alpha 1000, lr 1e-3
//   muon_nsr_suite_b   alpha 1000, eps of the norm 1e-5, scale sqrt(max(1, m / n)), lr 8e-3, gradients of norm below 1
//                      amplified to it (amplify_below = 0 turns that off)
//
// State: 2 scalars per parameter and 1 per matrix. FLOPs: Muon's and 16 per parameter.
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

struct muon_nsr_defaults {
  static constexpr double lr = 6e-4;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};
struct muon_nsr_suite_a_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(noise_to_signal& m) { m.alpha = 1000; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};
struct muon_nsr_suite_b_defaults {
  static constexpr double lr = 8e-3;
  static void set(noise_to_signal& m) { m.alpha = 1000, m.amplify_below = 1; }
  static void set(newton_schulz<>& o) { o.eps = 1e-5; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using muon_nsr = rule<noise_to_signal, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, muon_nsr_defaults>;
using muon_nsr_suite_a =
    rule<noise_to_signal, newton_schulz<>, no_normalizer, decoupled_decay, match_rms, muon_nsr_suite_a_defaults>;
using muon_nsr_suite_b =
    rule<noise_to_signal, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, muon_nsr_suite_b_defaults>;

MATOPT_COMPILED_RULE(muon_nsr)
MATOPT_COMPILED_RULE(muon_nsr_suite_a)
MATOPT_COMPILED_RULE(muon_nsr_suite_b)

}  // namespace MATOPT_NAMESPACE
