// Muown: Muon on row directions, Adam on row magnitudes; keeps the spectral norm of the weights from drifting.
//
//   W = Diag(g) D       d, G' = gradients of g and of the direction                      Algorithm 1
//   M <- 0.95 M + G'    U = G' + 0.95 M                                                  Algorithm 1, Appendix C
//   R <- R - lr 0.2 sqrt(max(m, n)) NS5(U)                                               Algorithm 1, Appendix C
//   g <- g - lr Adam(d)       W <- Diag(g) R / row norms                                 Algorithm 1
//
// Paper: Muown, arXiv 2605.10797; official code kcc-lion/muown (no licence: nothing of it is used). The equations and
// every place where implementations differ are in policy/constraint/weight_normalization.hpp. lr 1e-3 to 1.6e-2, no
// decay by default. State: 1 scalar per parameter, 4 per row and 2 per matrix. FLOPs: Muon's and about 15 per
// parameter. For hidden matrices only; the official code splits 3n x n matrices into three, here the caller states
// row_blocks.
//
//   matopt::optimizer<matopt::muown, matopt::eigen_backend> opt(cpu);
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/weight_normalization.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct muown_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
};

using muown =
    rule<nesterov_heavy_ball, newton_schulz<>, no_normalizer, weight_normalization<>, match_rms, muown_defaults>;

MATOPT_COMPILED_RULE(muown)

}  // namespace MATOPT_NAMESPACE
