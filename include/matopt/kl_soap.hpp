// KL-SOAP: Adam in the eigenbases of Kronecker factors that whiten each other.
//
//   kl_soap            u = Ql (m / (sqrt(v) + eps)) Qr^T, means in the bases      W <- (1 - lr decay) (W - lr u)
//   kl_soap_h          W <- hyperball step along u: lr is an angle, ||W|| stays
//   emerging_kl_soap   bases that already know the gradient, moments corrected    W <- (1 - lr decay) W - lr u
//
// Lin et al. (arXiv 2509.03378). kl_soap follows the authors' code (yorkerlin/KL-Methods): lr 1e-4, betas 0.9 and 0.98,
// decay 0.01 after the step, bases renewed every 10 steps. kl_soap_h is result "3040 steps" of the optimization track
// of modded-nanogpt: lr 0.018, betas 0.95 and 0.9, bases renewed in every step, the first factors not scaled down,
// roots up to 4000. emerging_kl_soap follows NVIDIA Emerging-Optimizers, but for its first step
// (emerging_kl_direction.hpp); they name no rate, and 3e-3 is soap's. In all three the first step only measures:
// weights stay. Equations: kl_direction.hpp and emerging_kl_direction.hpp. State: 2 scalars per parameter, 2 (m^2 +
// n^2) + m + n and a few per matrix. Needs: svd, orthonormal_basis.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decay_after.hpp"
#include "policy/constraint/norm_sphere.hpp"
#include "policy/momentum/emerging_kl_direction.hpp"
#include "policy/momentum/kl_direction.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/no_orthogonalizer.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct kl_soap_defaults {
  static constexpr double lr = 1e-4;
  static void set(decay_after& c) { c.decay = 0.01; }
};
struct kl_soap_h_defaults {
  static constexpr double lr = 0.018;
  static void set(kl_soap_direction& m) {
    m.beta1 = 0.95, m.beta2 = 0.9, m.frequency = 1;
    m.limit_by_size = false, m.full_first_factor = true;
  }
};
struct emerging_kl_soap_defaults {
  static constexpr double lr = 3e-3;
  static void set(decoupled_decay& c) { c.decay = 0.01; }
};

using kl_soap = rule<kl_soap_direction, no_orthogonalizer, no_normalizer, decay_after, unit_scale, kl_soap_defaults>;
using kl_soap_h =
    rule<kl_soap_direction, no_orthogonalizer, no_normalizer, projected<hyperball>, unit_scale, kl_soap_h_defaults>;
using emerging_kl_soap = rule<emerging_kl_direction, no_orthogonalizer, no_normalizer, decoupled_decay, unit_scale,
                              emerging_kl_soap_defaults>;

MATOPT_COMPILED_RULE(kl_soap)
MATOPT_COMPILED_RULE(kl_soap_h)
MATOPT_COMPILED_RULE(emerging_kl_soap)

}  // namespace MATOPT_NAMESPACE
