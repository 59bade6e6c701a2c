#!/usr/bin/env python3
"""matopt_torch.py [--steps N] [--json FILE]: whole steps from Python on GPT-2 124M's hidden matrices: matopt.torch beside torch.optim, in
one process on one GPU. Needs the Python package (docs/pytorch.md). Times are wall time around a step and a synchronisation. Of the records
in FILE `bench/report FILE --page docs/benchmarks.md` makes a table."""
import argparse
import datetime
import json
import statistics
import time

import torch

import matopt.torch as mt

SHAPES = [(768, 768)] * 48 + [(3072, 768)] * 12 + [(768, 3072)] * 12


def parameters(seed=0):
    torch.manual_seed(seed)
    params = [torch.nn.Parameter(0.02 * torch.randn(shape, device="cuda")) for shape in SHAPES]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def measure(peer, rule, optimizer, steps):
    """The record of one optimizer, by whom and by which rule."""
    for _ in range(3):
        optimizer.step()
    torch.cuda.synchronize()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        optimizer.step()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    print(f"{peer + ', ' + rule:24} median {statistics.median(times):7.2f} ms   best {min(times):7.2f} ms", flush=True)
    return {"subject": "from_python", "peer": peer, "rule": rule, "ms": statistics.median(times), "best_ms": min(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    o = parser.parse_args()
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, "CUDA", torch.version.cuda)
    records = []
    for _ in range(o.rounds):
        records.append(measure("torch.optim", "muon", torch.optim.Muon(parameters(), lr=0.02), o.steps))
        records.append(measure("matopt", "muon", mt.Muon(parameters(), lr=0.02), o.steps))
        for rule in ("muown", "normuon", "adamw"):
            records.append(measure("matopt", rule, mt.Optimizer(parameters(), rule=rule), o.steps))
        records.append(measure("torch.optim", "adamw", torch.optim.AdamW(parameters(), lr=1e-3, fused=True), o.steps))
    theirs, ours = parameters(1), parameters(1)
    before = [p.detach().clone() for p in ours]
    pair = (torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0), mt.Muon(ours, lr=0.02, weight_decay=0.0))
    for _ in range(3):
        for optimizer in pair:
            optimizer.step()
    cosines = [torch.nn.functional.cosine_similarity((p - w).flatten(), (q - w).flatten(), dim=0).item()
               for p, q, w in zip(theirs, ours, before)]
    print(f"cosine of three steps of the two Muons: {min(cosines):.5f} or more")
    for record in records:
        if (record["peer"], record["rule"]) == ("matopt", "muon"):
            record["cosine"] = min(cosines)
    if o.json:
        with open(o.json, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "date": datetime.date.today().isoformat(),
                       "records": records}, file, indent=1)


if __name__ == "__main__":
    main()
