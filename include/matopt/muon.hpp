// Muon: momentum, orthogonalized by Newton-Schulz.
//
//   M <- 0.95 M + 0.05 G       U = 0.05 G + 0.95 M       O = NS5(U)
//   W <- (1 - lr decay) W - lr sqrt(max(1, fan_out / fan_in)) O
//
// Jordan et al.: Muon (kellerjordan.github.io/posts/muon, 2024). Follows KellerJordan/Muon: exponential mean, Nesterov,
// Keller coefficients, eps added to the norm, no decay by default. torch.optim.Muon takes max(norm, eps) (ns_eps_rule)
// and decay 0.1. lr 0.02. State: 1 scalar per parameter. FLOPs: 10 m^2 (2n + m) per m x n matrix, m <= n. For hidden
// matrices only: give embeddings, heads and vectors to adamw (param_groups.hpp).
//
//   matopt::eigen_backend cpu;
//   matopt::optimizer<matopt::muon, matopt::eigen_backend> opt(cpu, {.constraint = {.decay = 0.01}});
//   opt.add("w", matopt::row_major(w, 64, 128), matopt::row_major(g, 64, 128));
//   opt.finalize();
//   opt.step(0.02);
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

struct muon_defaults {
  static constexpr double lr = 0.02;
};

using muon = rule<nesterov_ema, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, muon_defaults>;

MATOPT_COMPILED_RULE(muon)

}  // namespace MATOPT_NAMESPACE
