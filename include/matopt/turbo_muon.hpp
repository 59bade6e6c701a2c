// Turbo-Muon: Muon whose matrix is first made almost orthogonal row by row, so that four Newton-Schulz steps suffice.
//
//   U = Nesterov(G)       s_i = (sum_j |U U^T|_ij)^(-1/2)       O = NS4(diag(s) U), columns in place of rows if m > n
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) O
//
// Turbo-Muon (arXiv 2512.04632). The coefficients (ns_coefficients turbo) are the last four rows of `you`; `flash` has
// those of thib-s/flash-newton-schulz. Their codes hold 1e-7 against the sum, which is ns_eps 3.1623e-4 here; the
// default is 1e-36, so that the direction does not depend on the size of gradients. The direction is that of the scaled
// matrix, which is Muon's where rows are orthogonal. lr 0.02, no decay. State: 1 scalar per parameter. FLOPs: 8 m^2 (2n
// + m) per m x n matrix, m <= n.
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

struct turbo_muon_defaults {
  static constexpr double lr = 0.02;
  static void set(newton_schulz<>& o) { o = newton_schulz<>::preset(coefficient_set::turbo); }
};

using turbo_muon = rule<nesterov_ema, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, turbo_muon_defaults>;

MATOPT_COMPILED_RULE(turbo_muon)

}  // namespace MATOPT_NAMESPACE
