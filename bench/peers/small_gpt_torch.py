#!/usr/bin/env python3
"""Speed of the `nanogpt` model of examples/small_gpt in PyTorch (1.13 or newer), as a peer of bench/small_gpt_bench.cpp.

The model: token and learned position embeddings, pre-norm blocks with a LayerNorm without bias, causal attention with a fused
qkv product, an exact-GELU MLP of four times the width, and a head tied to the embedding. No biases, no dropout.
Prints one line of JSON; times are medians over the steps after the warm-up.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F


class Gain(torch.nn.Module):
    """LayerNorm with a gain and no bias."""

    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class Block(torch.nn.Module):
    def __init__(self, width, heads, context):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = Gain(width), Gain(width)
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.attention_out = torch.nn.Linear(width, width, bias=False)
        self.mlp_in = torch.nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = torch.nn.Linear(4 * width, width, bias=False)
        self.register_buffer("future", torch.ones(context, context, dtype=torch.bool).triu(1), persistent=False)

    def attention(self, x):
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(x).split(width, dim=2))
        if hasattr(F, "scaled_dot_product_attention"):  # PyTorch 2
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(2, 3)) * (1.0 / math.sqrt(q.shape[-1]))
            scores = scores.masked_fill(self.future[:length, :length], float("-inf"))
            y = scores.softmax(dim=-1) @ v
        return self.attention_out(y.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x):
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))


class GPT(torch.nn.Module):
    def __init__(self, layers, heads, width, context, vocabulary):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.positions = torch.nn.Parameter(torch.empty(context, width))
        self.blocks = torch.nn.ModuleList(Block(width, heads, context) for _ in range(layers))
        self.norm = Gain(width)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                last = name.endswith(("attention_out.weight", "mlp_out.weight"))
                torch.nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        z = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(z.view(-1, z.shape[-1]), targets.reshape(-1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(threads=2, batch=12, context=64, layers=4, heads=4, width=128, steps=50, warmup=5).items():
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=65, help="of the random tokens used without --tokens-file")
    parser.add_argument("--tokens-file", help="a text file; its bytes, renumbered, are the tokens")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--compile", action="store_true", help="torch.compile (PyTorch 2)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    if args.tokens_file:
        with open(args.tokens_file, "rb") as file:
            data = file.read()
        number = {byte: i for i, byte in enumerate(sorted(set(data)))}
        tokens, vocabulary = torch.tensor([number[byte] for byte in data]), len(number)
    else:
        tokens, vocabulary = torch.randint(args.vocabulary, (100_000,)), args.vocabulary

    model = GPT(args.layers, args.heads, args.width, args.context, vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=0.1)
    step = torch.compile(model) if args.compile else model

    both, whole, loss = [], [], None
    for i in range(args.warmup + args.steps):
        starts = torch.randint(len(tokens) - args.context - 1, (args.batch,))
        rows = torch.stack([tokens[s : s + args.context + 1] for s in starts])
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = step(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        loss.backward()
        middle = time.perf_counter()
        optimizer.step()
        end = time.perf_counter()
        if i >= args.warmup:
            both.append(middle - start)
            whole.append(end - start)

    count = args.batch * args.context
    print(json.dumps({
        "implementation": "torch " + torch.__version__, "arch": "nanogpt", "threads": args.threads,
        "tokens_per_step": count, "parameters": sum(p.numel() for p in model.parameters()),
        "forward_backward_ms": round(1e3 * statistics.median(both), 3),
        "forward_backward_best_ms": round(1e3 * min(both), 3),
        "forward_backward_tokens_per_s": round(count / statistics.median(both)),
        "step_ms": round(1e3 * statistics.median(whole), 3),
        "step_tokens_per_s": round(count / statistics.median(whole)),
        "last_loss": round(loss.item(), 4),
    }))


if __name__ == "__main__":
    main()
