// Dion2: Muon on the strongest quarter of a matrix's rows or columns; what is not used waits in the buffer.
//
//   M <- M + G       M_sel: the slices of the shorter side with the largest sums of |M|       O = PE5(M_sel)
//   M_sel <- 0.95 M_sel       W <- (1 - lr decay) W       W_sel <- W_sel - lr sqrt(m / n) O
//
// Dion2 (arXiv 2512.16928); follows dion2.py of microsoft/dion on one device: lr 0.01, decay 0.01 of the whole weight,
// the scale of the whole shape, Polar Express (1.02), eps 1e-8. Equations and ties: sliced_polar.hpp. The paper also
// studies slices drawn at random, which the code does not have.
// State: 1 scalar per parameter. FLOPs, for m x n with m <= n and k = m / 4 slices: 10 k^2 (2n + k) and 4 kmn.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "optimizer.hpp"
#include "policy/constraint/decoupled_decay.hpp"
#include "policy/momentum/no_momentum.hpp"
#include "policy/normalizer/no_normalizer.hpp"
#include "policy/orthogonalizer/sliced_polar.hpp"
#include "policy/scale/scale.hpp"

namespace MATOPT_NAMESPACE {

struct dion2_defaults {
  static constexpr double lr = 0.01;
  static void set(sliced_polar<>& o) { o.inner.coefficients = coefficient_set::polar_express_1_02, o.inner.eps = 1e-8; }
  static void set(decoupled_decay& c) { c.decay = 0.01; }
};

using dion2 = rule<no_momentum, sliced_polar<>, no_normalizer, decoupled_decay, spectral_ratio, dion2_defaults>;

MATOPT_COMPILED_RULE(dion2)

}  // namespace MATOPT_NAMESPACE
