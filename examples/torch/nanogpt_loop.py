"""nanoGPT's training loop with matopt: three lines of it are changed, which end in `# matopt`.

A tiny GPT learns to continue a text. `python nanogpt_loop.py [steps]`
"""

import math
import sys

import torch
import torch.nn as nn
from torch.nn import functional as F

import matopt.torch  # matopt

torch.manual_seed(1337)
text = "".join(f"{a} plus {b} is {a + b}. " for a in range(10) for b in range(10))
chars = sorted(set(text))
data = torch.tensor([chars.index(c) for c in text])
block_size, batch_size, n_embd, n_head, n_layer = 32, 16, 32, 2, 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.c_fc, self.c_out = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)

    def forward(self, x):
        q, k, v = self.c_attn(self.ln_1(x)).split(n_embd, dim=2)
        q, k, v = (t.unflatten(2, (n_head, -1)).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).flatten(2))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(len(chars), n_embd), nn.Embedding(block_size, n_embd)
        self.h = nn.Sequential(*(Block() for _ in range(n_layer)))
        self.ln_f, self.lm_head = nn.LayerNorm(n_embd), nn.Linear(n_embd, len(chars), bias=False)

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        logits = self.lm_head(self.ln_f(self.h(x)))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def get_batch():
    ix = torch.randint(len(data) - block_size, (batch_size,))
    x = torch.stack([data[i : i + block_size] for i in ix])
    return x, torch.stack([data[i + 1 : i + 1 + block_size] for i in ix])


max_iters = int(sys.argv[1]) if len(sys.argv) > 1 else 100
warmup_iters, min_factor, grad_clip, gradient_accumulation_steps = 5, 0.1, 1.0, 2
model = GPT()

# The matrices of the blocks; embeddings, head, biases and norms.
matrices = [p for p in model.h.parameters() if p.ndim == 2]
others = [p for p in model.parameters() if all(p is not m for m in matrices)]
optimizer = matopt.torch.Optimizer([{"params": matrices, "rule": "muown", "lr": 0.02},  # matopt
                                    {"params": others, "rule": "adamw", "lr": 3e-3, "beta2": 0.95}])  # matopt
for group in optimizer.param_groups:
    group["initial_lr"] = group["lr"]


def get_factor(it):
    if it < warmup_iters:
        return (it + 1) / (warmup_iters + 1)
    decay_ratio = (it - warmup_iters) / (max_iters - warmup_iters)
    return min_factor + 0.5 * (1.0 + math.cos(math.pi * decay_ratio)) * (1 - min_factor)


losses = []
for iter_num in range(max_iters):
    for param_group in optimizer.param_groups:
        param_group["lr"] = param_group["initial_lr"] * get_factor(iter_num)
    for micro_step in range(gradient_accumulation_steps):
        loss = model(*get_batch()) / gradient_accumulation_steps
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item() * gradient_accumulation_steps)
    if iter_num % 20 == 0:
        print(f"iter {iter_num}: loss {losses[-1]:.4f}")

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
sys.exit(0 if losses[-1] < 0.6 * losses[0] else 1)
