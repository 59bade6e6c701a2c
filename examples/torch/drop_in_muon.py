"""matopt.torch.Muon and AdamW in the place of torch.optim.Muon and AdamW: names change. Both train the same network here."""

import sys

import torch
from torch import nn

import matopt.torch


def train(Muon, AdamW):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))
    x = torch.randn(128, 16)
    y = torch.tanh(x @ torch.randn(16, 8))
    muon = Muon([p for p in model.parameters() if p.ndim == 2], lr=0.02, weight_decay=0.01)
    adamw = AdamW([p for p in model.parameters() if p.ndim != 2], lr=3e-3)
    for _ in range(60):
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()
    return loss.item()


ours = train(matopt.torch.Muon, matopt.torch.AdamW)
theirs = train(torch.optim.Muon, torch.optim.AdamW) if hasattr(torch.optim, "Muon") else ours
print(f"loss with matopt.torch {ours:.4f}, with torch.optim {theirs:.4f}")
sys.exit(0 if abs(ours - theirs) < 0.1 * theirs else 1)
