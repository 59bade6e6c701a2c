// Scion: steps of conditional gradient on the norm ball that suits the layer.
//
//   d <- (1 - alpha) d + alpha G       constrained:    W <- (1 - lr) W - lr radius lmo(d)       Algorithm 2, lines 3, 4
//                                      unconstrained:  W <- W - lr radius lmo(d)                Algorithm 1, lines 3, 4
//                                                      (constrained = false)
//   scion               lmo = sqrt(m / n) NS5(d)                   hidden matrices, radius 50
//   scion_convolution   lmo = sqrt(m / channels) NS5(d) / kernel   kernels as m x (channels kernel)
//   scion_sign          lmo = sign(d) / n                          output head, radius 3000
//   scion_column        columns of d to norm sqrt(m) / n           embeddings (one-hot inputs)
//   scion_row           rows of d to norm 1 / sqrt(n)              another head
//   scion_vector        entries over their RMS                     gains and biases as n x 1
//
// Pethick et al.: Training Deep Learning Models with Norm-Constrained LMOs (arXiv 2502.07529); its Tables 2 to 4 have
// the oracles lmo, with the opposite sign. Follows LIONS-EPFL/scion: its `momentum` is alpha, 1 - ours; 0.1
// recommended, so momentum 0.9 here. lr 3.6e-4 with these two radii; the others' 1 is not a published figure. No other
// decay: 1 - lr is one. Other flags of the official norms are other scales: fan_out_root (normalized = False),
// fan_ratio (max = True), unit_scale. State: 1 scalar per parameter. FLOPs: Muon's, or 8 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/frank_wolfe.hpp"
#include "policy/momentum/momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/line_direction.hpp"
#include "policy/orthogonalizer/newton_schulz.hpp"
#include "policy/orthogonalizer/sign_direction.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

template <int Radius>
struct scion_defaults {
  static constexpr double lr = 3.6e-4;
  static void set(newton_schulz<>& o) { o.eps = 1e-7; }
  static void set(column_direction& o) { o.eps = 1e-8; }
  static void set(row_direction& o) { o.eps = 1e-8; }
  static void set(ema& m) { m.beta = 0.9; }
  static void set(frank_wolfe& c) { c.radius = Radius; }
};

using scion = rule<ema, newton_schulz<>, no_normalizer, frank_wolfe, spectral_ratio, scion_defaults<50>>;
using scion_convolution = scion::with_scale<convolution_ratio>;
using scion_sign = rule<ema, sign_direction, no_normalizer, frank_wolfe, inverse_fan_in, scion_defaults<3000>>;
using scion_column = rule<ema, column_direction, no_normalizer, frank_wolfe, inverse_fan_in, scion_defaults<1>>;
using scion_row = rule<ema, row_direction, no_normalizer, frank_wolfe, unit_scale, scion_defaults<1>>;
using scion_vector = rule<ema, column_direction, no_normalizer, frank_wolfe, unit_scale, scion_defaults<1>>;

MATOPT_COMPILED_RULE(scion)
MATOPT_COMPILED_RULE(scion_sign)
MATOPT_COMPILED_RULE(scion_column)
MATOPT_COMPILED_RULE(scion_row)
MATOPT_COMPILED_RULE(scion_vector)

}  // namespace MATOPT_NAMESPACE
