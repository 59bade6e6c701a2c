"""A run in bfloat16 that stops, and goes on from its checkpoint as if it had not: master weights, a scheduler, groups."""

import io
import sys

import torch
from torch import nn

import matopt.torch


def make():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 6)).to(torch.bfloat16)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = matopt.torch.Optimizer(
        [{"params": matrices, "rule": "muon"}, {"params": vectors, "rule": "adamw"}], lr=3e-3, master_weights=True
    )
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)


def train(model, optimizer, scheduler, steps):
    for step in steps:
        g = torch.Generator().manual_seed(step)
        x = torch.randn(32, 12, generator=g).to(torch.bfloat16)
        loss = ((model(x) - x[:, :6]) ** 2).float().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()


whole = make()
train(*whole, range(30))

stopped = make()
train(*stopped, range(12))
file = io.BytesIO()
torch.save([part.state_dict() for part in stopped], file)

resumed = make()
file.seek(0)
for part, state in zip(resumed, torch.load(file)):
    part.load_state_dict(state)
train(*resumed, range(12, 30))

same = all(a.equal(b) for a, b in zip(whole[0].parameters(), resumed[0].parameters()))
print("the resumed run ends at the same bits" if same else "the resumed run has drifted")
sys.exit(0 if same else 1)
