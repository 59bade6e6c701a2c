// PolarGrad: steepest descent in the spectral norm, size included: the polar factor times the nuclear norm.
//
//   M <- 0.95 M + 0.05 G       O = polar(M)       W <- (1 - lr decay) W - lr <M, O> O
//   polargrad               polar_factor: exact, but to the rounding of 16 bits where products are
//   polargrad_qdwh          by QDWH, two steps from a bound of 1.2e-7, as the official code does
//   polargrad_polar_first   O = polar(G), M <- 0.95 M + 0.05 O, W <- (1 - lr decay) W - lr <G, O> M
//
// Lau et al.: PolarGrad (arXiv 2505.21799); follows timlautk/polargrad: lr 0.02, no decay. The step is proportional to
// the gradient, so the right rate depends on the problem: the authors' range from 4e-8 to 50. Two QDWH steps leave
// singular values down to 0.73; set qdwh_steps = 0 for all of them. State: 1 scalar per parameter. Needs: svd, or
// cholesky and orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/momentum/polar_first.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/orthogonalizer/nuclear_scaled.hpp"
#include "policy/orthogonalizer/polar_factor.hpp"
#include "policy/orthogonalizer/qdwh_polar.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct polargrad_defaults {
  static constexpr double lr = 0.02;
  static void set(nuclear_scaled<qdwh_polar>& o) { o.inner.steps = 2; }
};

using polargrad =
    rule<ema, nuclear_scaled<polar_factor>, no_normalizer, decoupled_decay, unit_scale, polargrad_defaults>;
using polargrad_qdwh = polargrad::with_orthogonalizer<nuclear_scaled<qdwh_polar>>;
using polargrad_polar_first =
    polargrad::with_momentum<polar_first<polar_factor>>::with_orthogonalizer<no_orthogonalizer>;

MATOPT_COMPILED_RULE(polargrad)
MATOPT_COMPILED_RULE(polargrad_qdwh)
MATOPT_COMPILED_RULE(polargrad_polar_first)

}  // namespace MATOPT_NAMESPACE
