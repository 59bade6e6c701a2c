// torch.optim.Muon: Muon with PyTorch's defaults and its ways to adjust the learning rate to the shape.
//
//   M <- 0.95 M + 0.05 G       U = 0.05 G + 0.95 M       O = NS5(U)       W <- (1 - lr decay) W - lr s O
//   torch_muon             s = sqrt(max(1, m / n))         adjust_lr_fn None or "original"
//   torch_muon_match_rms   s = 0.2 sqrt(max(m, n))         adjust_lr_fn "match_rms_adamw"
//   torch_muon::with_scale<spectral_ratio>   s = sqrt(m / n)   "spectral_unclamped", which PyTorch 2.15 has
//
// Follows pytorch/pytorch torch/optim/_muon.py (2.9 to 2.15): lr 1e-3, decay 0.1; the input is divided by max(norm,
// 1e-7), where others add 1e-7. Its docstring writes a summed momentum; the code keeps the mean. State: 1 scalar per
// parameter. FLOPs: Muon's.
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

struct torch_muon_defaults {
  static constexpr double lr = 1e-3;
  static void set(newton_schulz<>& o) { o.eps = 1e-7, o.eps_rule = eps_rule::max; }
  static void set(decoupled_decay& c) { c.decay = 0.1; }
};

using torch_muon = rule<nesterov_ema, newton_schulz<>, no_normalizer, decoupled_decay, fan_ratio, torch_muon_defaults>;
using torch_muon_match_rms = torch_muon::with_scale<match_rms>;

MATOPT_COMPILED_RULE(torch_muon)
MATOPT_COMPILED_RULE(torch_muon_match_rms)

}  // namespace MATOPT_NAMESPACE
