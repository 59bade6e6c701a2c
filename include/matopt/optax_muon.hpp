// optax.contrib.muon: momentum with bias correction, eps 1e-8.
//
//   mu <- 0.95 mu + 0.05 G       X = 0.95 mu / (1 - 0.95^(t+1)) + 0.05 G / (1 - 0.95^t)       O = NS5(X)
//   optax_muon            W <- W - lr (sqrt(max(1, m / n)) O + decay W)
//   optax_muon_rms        0.2 sqrt(max(m, n)) in place of the ratio             consistent_rms = 0.2
//   optax_muon_adaptive   <X, O> O in place of O                                adaptive = True
//
// Follows google-deepmind/optax 0.2.9: no decay; the learning rate has no default there. Weights are [in, out] there
// and [out, in] here; every matrix goes to Muon there, embeddings and the head too, and the companion is NAdamW
// (nadamw.hpp). Its preconditioners other than the Frobenius norm are not offered. State: 1 scalar per parameter and 1
// per matrix. FLOPs: Muon's.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/corrected_ema.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/orthogonalizer/nuclear_scaled.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct optax_muon_defaults {
  static constexpr double lr = 0.02;
  static void set(newton_schulz<>& o) { o.eps = 1e-8; }
  static void set(nuclear_scaled<newton_schulz<>>& o) { o.inner.eps = 1e-8; }
};

using optax_muon =
    rule<corrected_nesterov_ema, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, optax_muon_defaults>;
using optax_muon_rms = optax_muon::with_scale<match_rms>;
using optax_muon_adaptive = optax_muon::with_orthogonalizer<nuclear_scaled<newton_schulz<>>>;

MATOPT_COMPILED_RULE(optax_muon)
MATOPT_COMPILED_RULE(optax_muon_rms)
MATOPT_COMPILED_RULE(optax_muon_adaptive)

}  // namespace MATOPT_NAMESPACE
