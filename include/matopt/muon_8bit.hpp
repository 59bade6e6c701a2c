// Muon in 8 bits: Muon whose momentum is kept in codes of 8 bits, with one scale per block of 256 entries.
//
//   M = s c        M <- 0.95 M + 0.05 G       U = 0.05 G + 0.95 M       (s, c) = quantized M       O = NS5(U)
//   W <- (1 - lr decay) W - lr sqrt(max(1, m / n)) O
//
// Muon as in muon.hpp, with quantized<nesterov_ema>: the update takes the M that is not rounded yet. momentum_map is
// linear (the default, with the smallest error of a matrix as a whole), dynamic (bitsandbytes' signed map) or e4m3
// (OCP's 8-bit float); momentum_block is how many entries share a scale. "8-bit Muon" (arXiv 2509.23106) is linear with
// blocks of 2048, a sum for momentum, and 0.2 sqrt(max(m, n)). lr 0.02. State: 1 + 4 / block bytes per parameter. FLOPs:
// Muon's, and 10 per parameter. For hidden matrices.
//
//   using adamw_8bit = with_8bit_momentum<adamw, code_map::dynamic>;     the first moment in 8 bits; the second one stays
//
// SPDX-License-Identifier: MIT
#pragma once
#include "muon.hpp"
#include "with_8bit_momentum.hpp"

namespace MATOPT_NAMESPACE {

using muon_8bit = with_8bit_momentum<muon>;

MATOPT_COMPILED_RULE(muon_8bit)

}  // namespace MATOPT_NAMESPACE
