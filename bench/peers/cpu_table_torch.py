#!/usr/bin/env python3
"""PyTorch's rows of the table that bench/cpu-table makes: cpu_table_torch.py THREADS

It prints names and answers to names as bench/cpu_table_bench.cpp does, with medians in milliseconds. Optimizers are torch.optim as shipped: AdamW(fused=True), and Muon, whose Newton-Schulz steps are in bfloat16. PyTorch has no Lion: its row is the
same arithmetic written out in foreach operations. Its check of finite gradients is torch.amp.GradScaler's, which also writes them.
"""
import statistics
import sys
import time

import torch
from torch.optim._muon import _zeropower_via_newtonschulz

COEFFICIENTS, STEPS, EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7
TWENTY, ONE, SMALL = [(20, 1000, 1000)], [(1, 5000, 4000)], [(100, 64, 64)]
GPT = [(8, 768, 768), (2, 3072, 768), (2, 768, 3072)]


def median_of(call):
    times = []
    for _ in range(2):
        call()
    begin = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begin < 0.5 and len(times) < 500):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def weights_of(groups, element):
    weights = []
    for count, rows, columns in groups:
        for _ in range(count):
            w = torch.nn.Parameter(torch.randn(rows, columns, dtype=element))
            w.grad = torch.randn_like(w)
            weights.append(w)
    return weights


def fused_adamw(weights):
    return torch.optim.AdamW(weights, lr=1e-4, weight_decay=0, fused=True).step


def muon(weights):
    return torch.optim.Muon(weights, lr=1e-4).step


def lion(weights):
    values, gradients = [w.detach() for w in weights], [w.grad for w in weights]
    momenta = [torch.zeros_like(w) for w in values]

    def step():
        directions = torch._foreach_lerp(momenta, gradients, 0.1)
        torch._foreach_sign_(directions)
        torch._foreach_add_(values, directions, alpha=-1e-4)
        torch._foreach_lerp_(momenta, gradients, 0.01)
    return step


def finite(weights):
    gradients, scale = [w.grad for w in weights], torch.ones(())
    return lambda: torch._amp_foreach_non_finite_check_and_unscale_(gradients, torch.zeros(()), scale)


def newton_schulz(rows, columns, element):
    x = torch.randn(rows, columns)

    def in_float():
        # torch.optim.Muon's function converts to bfloat16 itself; this is the same in float.
        a, b, c = COEFFICIENTS
        y = x.mT if rows > columns else x
        y = y / y.norm().clamp(min=EPSILON)
        for _ in range(STEPS):
            gram = y @ y.mT
            y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
        return y

    return in_float if element == "float" else lambda: _zeropower_via_newtonschulz(x, COEFFICIENTS, STEPS, EPSILON)


def main():
    if len(sys.argv) == 2 and sys.argv[1] == "--version":
        print(torch.__version__, "MKL" if torch.backends.mkl.is_available() else "no MKL",
              "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN", torch.backends.cpu.get_cpu_capability(), sep=", ")
        return
    torch.set_num_threads(int(sys.argv[1]))
    cases = {}
    for element, kind in (("float", torch.float32), ("double", torch.float64)):
        for name, groups, make in (("AdamW, 20 x (1000, 1000)", TWENTY, fused_adamw), ("AdamW, 1 x (5000, 4000)", ONE, fused_adamw),
                                   ("AdamW, 100 x (64, 64)", SMALL, fused_adamw), ("Lion, 20 x (1000, 1000)", TWENTY, lion)):
            cases[f"{name}|{element}"] = lambda g=groups, k=kind, m=make: m(weights_of(g, k))
        cases[f"Finite? 20 x (1000, 1000)|{element}"] = lambda k=kind: finite(weights_of(TWENTY, k))
    cases["Muon, 100 x (64, 64)|as it comes"] = lambda: muon(weights_of(SMALL, torch.float32))
    for rows, columns in ((768, 768), (1024, 1024), (768, 3072)):
        for element in ("float", "bfloat16"):
            cases[f"Newton-Schulz, five steps, {rows} x {columns}|{element}"] = lambda r=rows, c=columns, e=element: newton_schulz(r, c, e)
    cases["Muon, 8 x (768, 768) + 2 x (3072, 768) + 2 x (768, 3072)|as it comes"] = lambda: muon(weights_of(GPT, torch.float32))
    print(*cases, "", sep="\n", flush=True)
    with torch.no_grad():
        for name in sys.stdin:
            print(median_of(cases[name.rstrip("\n")]()), flush=True)


main()
