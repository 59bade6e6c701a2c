#!/usr/bin/env python3
"""Time of a whole optimizer step on a model's matrices in PyTorch and in microsoft/dion, in milliseconds, one GPU or the CPU,
and the memory that the step takes beyond weights, gradients and state (the peak during one step), in MiB.

Weights and gradients are random float32. Peers:
  adamw-foreach      torch.optim.AdamW(foreach=True)
  adamw-fused        torch.optim.AdamW(fused=True)
  torch-muon         torch.optim.Muon
  stacked            as stacked-compiled, but nothing is compiled
  stacked-compiled   Muon as nanochat organises it: matrices of equal shape stacked, one compiled function for momentum, batched
                     bfloat16 Newton-Schulz and update, then copied back; and `stacked-compiled-graph`, the step as a CUDA graph
  dion-polar         microsoft/dion's Muon (--dion PATH) as it comes: compiled Polar Express; and `dion-polar-graph`
  dion-triton        its Newton-Schulz on Triton kernels; and `dion-triton-graph`
  dion-polar-triton  not by default: Polar Express on Triton kernels; compiles for minutes
All Muons take five steps, momentum 0.95 with Nesterov, and decoupled weight decay.
"""
import argparse
import math

import torch

import torch_peers as peers
from orthogonalize_torch import batched_newton_schulz

MODELS = {  # as in bench/common/models.hpp
    "gpt2_block_256": [(4, 256, 256), (1, 1024, 256), (1, 256, 1024)],
    "many_tiny": [(512, 64, 64), (256, 128, 32)],
    "gpt2_124m": [(48, 768, 768), (12, 3072, 768), (12, 768, 3072)],
    "gpt2_350m": [(96, 1024, 1024), (24, 4096, 1024), (24, 1024, 4096)],
    "llama_1b": [(64, 2048, 2048), (32, 7168, 2048), (16, 2048, 7168)],
    "gpt2_1_5b": [(192, 1600, 1600), (48, 6400, 1600), (48, 1600, 6400)],
}
USUAL = {"cuda": ["gpt2_124m", "gpt2_350m", "llama_1b"], "cpu": ["gpt2_block_256", "many_tiny"]}
TINY = {"tiny-a": [(4, 32, 32), (2, 64, 32), (2, 32, 64)], "tiny-b": [(3, 48, 48), (1, 96, 48)]}
PEERS = ["adamw-foreach", "adamw-fused", "torch-muon", "stacked", "stacked-compiled", "dion-polar", "dion-triton",
         "dion-polar-triton"]
SLOW = PEERS[4:]
RATE, DECAY, MOMENTUM = 1e-3, 0.01, 0.95


def stacked_update(weights, gradients, momentum, rate, decay, mu):
    momentum.mul_(mu).add_(gradients)
    direction = batched_newton_schulz(gradients + mu * momentum, torch.bfloat16 if weights.is_cuda else torch.float32)
    rows, columns = weights.shape[-2:]
    weights.mul_(1 - rate * decay).sub_(direction * (rate * math.sqrt(max(1.0, rows / columns))))


class StackedMuon:
    """Muon on stacks of matrices of equal shape. The rate and the like are tensors: changing them compiles nothing anew."""

    def __init__(self, weights, compiled):
        self.update = torch.compile(stacked_update, dynamic=False, fullgraph=True) if compiled else stacked_update
        self.scalars = [torch.tensor(value) for value in (RATE, DECAY, MOMENTUM)]
        stacks = {}
        for w in weights:
            stacks.setdefault(tuple(w.shape), []).append(w)
        self.stacks = [(group, torch.zeros((len(group), *shape), device=group[0].device)) for shape, group in stacks.items()]

    def step(self):
        for group, momentum in self.stacks:
            weights = torch.stack([w.detach() for w in group])
            self.update(weights, torch.stack([w.grad for w in group]), momentum, *self.scalars)
            if hasattr(torch, "_foreach_copy_"):
                torch._foreach_copy_([w.detach() for w in group], list(weights.unbind(0)))
            else:
                for w, new in zip(group, weights.unbind(0)):
                    w.copy_(new)


def optimizer_of(peer, weights, args):
    if peer.startswith("adamw"):
        return torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=DECAY, **{peer.removeprefix("adamw-"): True})
    if peer == "torch-muon":
        return torch.optim.Muon(weights, lr=RATE, weight_decay=DECAY, momentum=MOMENTUM, nesterov=True)
    if peer == "stacked":
        return StackedMuon(weights, compiled=False)
    peers.allow_recompilations()
    if peer == "stacked-compiled":
        return StackedMuon(weights, compiled=True)
    peers.import_dion(args.dion)
    import dion
    if peer == "dion-triton":
        from dion import newton_schulz_triton as module
        peers.tune_quickly([module.ns_line_1_kernel, module.ns_line_2_kernel], args.triton_tune_ms)
    return dion.Muon(weights, lr=RATE, mu=MOMENTUM, weight_decay=DECAY, nesterov=True, use_triton=peer != "dion-polar",
                     use_polar_express=peer != "dion-triton")


def matrices(model, args):
    weights = []
    for count, rows, columns in {**MODELS, **TINY}[model]:
        for _ in range(count):
            w = torch.nn.Parameter(0.02 * torch.randn(rows, columns, device=args.device))
            w.grad = torch.randn_like(w)
            weights.append(w)
    return weights


def work(model, peer, args):
    weights = matrices(model, args)
    optimizer = optimizer_of(peer, weights, args)
    sample = weights[0].detach().clone()
    for _ in range(3):
        optimizer.step()
    peers.synchronize(args.device)
    for w in (weights[0], weights[-1]):
        if not torch.isfinite(w).all():
            raise RuntimeError("the weights are not finite")
    change = (weights[0].detach() - sample).norm().item()
    if change == 0:
        raise RuntimeError("the step changed nothing")

    extra = None
    if args.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        optimizer.step()
        torch.cuda.synchronize()
        extra = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)

    def record(name, call, extra):
        median, best, repeats = peers.measure([call], args)
        return {"peer": name, "rule": "adamw" if peer.startswith("adamw") else "muon", "ms": round(median, 4), "best_ms": round(best, 4), "repeats": repeats, "extra_mib": extra,
                "matrices": len(weights), "change": round(change, 6)}

    yield record(peer, optimizer.step, extra)
    if peer in SLOW and args.device == "cuda" and not args.no_graphs:
        name = peer + "-graph"
        try:
            replay, _ = peers.captured(optimizer.step)
            yield record(name, replay, None)
        except Exception as error:
            yield {"peer": name, "error": peers.message(error)}


def compile_job(model, peer, args):
    def job():
        optimizer_of(peer, matrices(model, args), args).step()
        peers.synchronize(args.device)
    return job


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers.add_arguments(parser, seconds=1.0)
    parser.add_argument("--models", help="comma-separated, of " + ", ".join(MODELS))
    parser.add_argument("--no-graphs", action="store_true", help="do not also replay the compiled peers as CUDA graphs")
    args = parser.parse_args()
    models = list(TINY) if args.tiny else USUAL[args.device]
    if args.models:
        models = peers.chosen({**MODELS, **TINY}, args.models, "model")
    default = PEERS[:5] + PEERS[5:7] * bool(args.dion)
    names = peers.chosen(PEERS, args.peers, "peer") if args.peers else default
    names = [name for name in names if not (args.quick and name in SLOW)]

    # The largest first; dion-triton compiles what dion-polar does, but for its kernels.
    jobs = [compile_job(model, name, args) for name in reversed(names) for model in reversed(models)
            if name in SLOW and not (name == "dion-triton" and (args.device != "cuda" or "dion-polar" in names))]
    if "dion-triton" in names and args.device == "cuda":
        jobs += peers.dion_kernel_jobs(args, 6)
    results = peers.Results("step", "model", args)
    peers.run([(model, name) for model in models for name in names], work, jobs, results, args)
    print("optimizer step, milliseconds (median) / extra peak memory in MiB")
    results.table(lambda r: f"{r['ms']:.3f}" + (f" / {r['extra_mib']:.0f}" if r["extra_mib"] is not None else ""))


if __name__ == "__main__":
    main()
