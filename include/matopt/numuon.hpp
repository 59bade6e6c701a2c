// NuMuon: Muon whose update also obeys a nuclear-norm budget, which is a cap on its rank; training drifts to weights
// that compress better.
//
//   M <- beta M + (1 - beta) G                                        eq. 1, Algorithm 1
//   k = ceil(r(t) min(m, n))                                          section 3.4
//   (U_k, V_k) = leading singular vectors of M                        Algorithm 3
//   W <- (1 - lr decay) W - lr sqrt(fan_out / fan_in) U_k V_k^T       eq. 6, 13, 35
//
// Paper: NuMuon, arXiv 2603.03597 (no official code). Defaults of its Table 5: no Nesterov, cosine rank 1 -> 0.25, lr
// 1e-2; its decay of 0.1 is not the default here, which is 0. The paper leaves beta open (0.95 here, as in torchtitan)
// and the scale ("sqrt(d_out / d_in) or closely related"). The rank schedule counts steps and has to be given:
// cosine_rank::over(n) holds for a tenth of n steps, and is at its end after eight tenths.
//
//   numuon          singular vectors by warm-started subspace iteration, products only. State: 1 scalar per
//                   parameter and min(m, n)^2 per matrix. Needs: gemm, random_normal
//   numuon_krylov   by the paper's Algorithm 3, block Krylov with L = 2 and oversampling 8. State: 1 scalar per
//                   parameter. Needs: svd, orthonormalize
//
// Cost and objective of both: docs/rules/numuon.md. For hidden matrices only.
//
//   matopt::optimizer<matopt::numuon, matopt::eigen_backend> opt(cpu,
//       {.constraint = {.rank = matopt::cosine_rank::over(1000), .inner = {.decay = 0.1}}});
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/nuclear_budget.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/block_krylov_polar.hpp"
#include "policy/orthogonalizer/subspace_polar.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct numuon_defaults {
  static constexpr double lr = 0.01;
};

using numuon = rule<ema, subspace_polar, no_normalizer, nuclear_budget<cosine_rank, decoupled_decay>, spectral_ratio,
                    numuon_defaults>;
using numuon_krylov = numuon::with_orthogonalizer<block_krylov_polar<>>;

MATOPT_COMPILED_RULE(numuon)
MATOPT_COMPILED_RULE(numuon_krylov)

}  // namespace MATOPT_NAMESPACE
