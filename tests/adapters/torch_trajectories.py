#!/usr/bin/env python3
"""torch_trajectories.py > torch_trajectories.json: weights that PyTorch's Muon and AdamW make of given gradients, in float32.

tests/adapters/torch_test.cpp compares with them, so that it can do so with a libtorch that has no Muon. Weights and gradients
are sin(0.7 i^2 + 1.3 seed + 0.1) at element i; the weight of tensor t has seed t, its gradient of step s seed 100 + 10 s + t.
"""
import json
import math

import torch

SHAPES = [(12, 8), (8, 12)]
STEPS = [1, 10, 50]


def filled(shape, seed):
    rows, cols = shape
    return torch.tensor([math.sin(0.7 * (i * i) + 1.3 * seed + 0.1) for i in range(rows * cols)], dtype=torch.float64).view(shape).float()


def run(make):
    weights = [torch.nn.Parameter(filled(s, i)) for i, s in enumerate(SHAPES)]
    optimizer = make(weights)
    out = {}
    for step in range(max(STEPS)):
        for i, w in enumerate(weights):
            w.grad = filled(w.shape, 100 + 10 * step + i)
        optimizer.step()
        if step + 1 in STEPS:
            out[str(step + 1)] = [[float(f"{x:.9g}") for x in w.flatten().tolist()] for w in weights]
    return out


def muon(adjust, decay=0.1):
    return lambda w: torch.optim.Muon(w, lr=0.02, weight_decay=decay, adjust_lr_fn=adjust)


print(json.dumps({
    "made_with": torch.__version__.split("+")[0],
    "torch_muon": run(muon("original")),
    "torch_muon_match_rms": run(muon("match_rms_adamw")),
    "torch_muon_spectral": run(muon("spectral_unclamped")),
    "adamw": run(lambda w: torch.optim.AdamW(w, lr=3e-3, weight_decay=0.1)),
}, indent=1, separators=(",", ":")).replace(",\n    ", ","))
