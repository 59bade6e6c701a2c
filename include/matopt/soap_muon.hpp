// SOAP-Muon: Muon on momentum that is whitened in the eigenbasis of Shampoo's factors.
//
//   U = momentum (Nesterov), whitened: eigen_whitened.hpp                        the first step is plain Muon's
//   O = sqrt(max(1, m / n)) polar(U)              Newton-Schulz, twelve steps, from U / ||U||_S4
//   c = <O, W> / ||W||^2                          the part c W of O halved where it would lengthen W
//   O_i <- O_i max(1, 0.3825 ||W_i|| / ||O_i||)   for each row
//   W+ = W - lr O                                 scaled to the norm ||W|| - lr <O, W> / ||W||
//   W  <- W+ (1 - 0.025 lr [O . W > 0])
//
// Result "2690 steps" of the optimization track of modded-nanogpt (2026-06-19): lr 0.0375, momentum 0.95, beta 0.9,
// bases renewed in every step. State: 2 scalars per parameter and 2 (m^2 + n^2) per matrix. Needs: svd,
// orthonormal_basis. A weight of zero is left to the step, and begins to keep its norm when it has one; the record's
// code pins it to a norm of 1e-8 (radius_least).
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/cautious_decay_after.hpp"
#include "policy/constraint/radial_brake.hpp"
#include "policy/constraint/relative_update.hpp"
#include "policy/momentum/eigen_whitened.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct soap_muon_defaults {
  static constexpr double lr = 0.0375;
  static void set(newton_schulz<>& o) {
    o.coefficients = coefficient_set::speedrun12, o.steps = 12;
    o.bound = spectral_bound::schatten4, o.eps = 1e-7, o.eps_rule = eps_rule::max;
  }
  // The innermost corrects the weight first, and the outermost the update: brake, floor, mask of the decay; then norm
  // and decay.
  using constraint = projected<radial_brake, projected<update_floor, projected<cautious_decay_after,  //
                                                                               projected<first_order_radius>>>>;
  static void set(constraint& c) {
    update_floor& floor = c.inner.projection;
    floor.ratio = 0.3825, floor.axis = norm_axis::rows, floor.counts_scale = true;
  }
};

using soap_muon = rule<eigen_whitened<>, newton_schulz<>, no_normalizer, soap_muon_defaults::constraint, fan_ratio,
                       soap_muon_defaults>;

MATOPT_COMPILED_RULE(soap_muon)

}  // namespace MATOPT_NAMESPACE
