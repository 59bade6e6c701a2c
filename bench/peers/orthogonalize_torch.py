#!/usr/bin/env python3
"""Time of the five-step Newton-Schulz iteration in PyTorch and in microsoft/dion, in microseconds, one GPU or the CPU.

Peers, and the names of their records:
  torch-muon         torch.optim.Muon's function, launched as the optimizer launches it (a batch: one matrix after the other), and
                     `torch-muon-graph`, the same replayed as a CUDA graph (not for a batch)
  torch-eager        the same steps written out, a batch as batched products; and `torch-eager-graph`
  torch-compiled     torch-muon's function (a batch: torch-eager's) under torch.compile, and `torch-compiled-graph`
  dion-triton        microsoft/dion's Triton kernels (--dion PATH), and `dion-triton-graph`
  dion-polar         not by default: dion's compiled Polar Express (five steps of other coefficients) as a CUDA graph
  dion-polar-triton  not by default: the same on Triton kernels; compiles for minutes
Inputs are random normal; several sets are used in turn. `mean_square` in the records is the mean of the squared singular values of
one result, which a working iteration brings near one.
"""
import argparse
import math

import torch

import torch_peers as peers

SHAPES = ["1x768x768", "1x1024x1024", "1x768x3072", "1x1024x4096", "1x2048x2048", "1x2048x8192", "1x4096x4096", "1x8192x8192",
          "48x768x768", "16x1024x1024", "8x1024x4096", "24x768x3072"]
CPU_SHAPES = ["1x256x256", "1x768x768", "1x1024x1024", "1x768x3072", "8x256x256"]
TINY = ["1x32x32", "1x32x96", "3x64x32"]
PEERS = ["torch-muon", "torch-eager", "torch-compiled", "dion-triton", "dion-polar", "dion-polar-triton"]
SLOW = PEERS[2:]
COEFFICIENTS, STEPS, EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7


def batched_newton_schulz(x, element=torch.bfloat16):
    """X <- a X + (b A + c A A) X with A = X X^T, on each matrix of a batch."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    y = (x.mT if tall else x).to(element)
    y = y / torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True).clamp_min(EPSILON)
    for _ in range(STEPS):
        gram = torch.bmm(y, y.mT)
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT if tall else y


def element_of(args):
    return torch.float32 if args.element == "float" else torch.bfloat16


def newton_schulz_of_torch():
    from torch.optim._muon import _zeropower_via_newtonschulz
    return lambda x: _zeropower_via_newtonschulz(x, COEFFICIENTS, STEPS, EPSILON)


def function_of(peer, batched, args):
    if peer == "torch-muon":
        single = newton_schulz_of_torch()
        return (lambda x: [single(matrix) for matrix in x]) if batched else single
    element = element_of(args)
    eager = lambda x: batched_newton_schulz(x if batched else x[None], element)
    if peer == "torch-eager":
        return eager
    if peer == "torch-compiled":
        return torch.compile(eager if batched or args.device == "cpu" else newton_schulz_of_torch(), dynamic=False, fullgraph=True)
    peers.import_dion(args.dion)
    if peer == "dion-triton":
        from dion import newton_schulz_triton as module
        kernels = [module.ns_line_1_kernel, module.ns_line_2_kernel]
        peers.tune_quickly(kernels, args.triton_tune_ms)
        for kernel in kernels:
            kernel.cache.clear()  # tuned anew for each shape: the kernels' own key leaves out the batch
        return module.newton_schulz_triton
    from dion import polar_express as module
    return module.polar_express if peer == "dion-polar" else module.polar_express_triton


def inputs(shape, args):
    batch, m, n = (int(part) for part in shape.split("x"))
    dtype = torch.float32 if args.input == "fp32" else torch.bfloat16
    count = min(max(math.ceil(120 * 2**23 / (batch * m * n * torch.finfo(dtype).bits)), 3), 8)
    sizes = (m, n) if batch == 1 else (batch, m, n)
    return [torch.randn(sizes, device=args.device, dtype=dtype) for _ in range(count)]


def mean_square(result):
    results = result if isinstance(result, list) else [result]
    value = sum(r.float().square().sum().item() for r in results) / sum(r.numel() / max(r.shape[-2:]) for r in results)
    if not 0.3 < value < 1.6:  # also when it is NaN
        raise RuntimeError(f"not orthogonalized: the squared singular values have mean {value}")
    return round(value, 3)


def work(shape, peer, args):
    batched = not shape.startswith("1x")
    function = function_of(peer, batched, args)
    sets = inputs(shape, args)

    def record(name, calls, result):
        check = mean_square(result)
        median, best, repeats = peers.measure(calls, args)
        return {"peer": name, "set": "polar_express_1_02" if "polar" in peer else "keller",
                "element": "bfloat16" if peer == "torch-muon" else args.element, "us": round(1e3 * median, 2), "best_us": round(1e3 * best, 2), "ms": round(median, 5),
                "repeats": repeats, "input_sets": len(calls), "mean_square": check}

    def graphs(name, f):
        pairs = [peers.captured(lambda x=x: f(x)) for x in sets]
        return record(name, [replay for replay, _ in pairs], pairs[-1][1])

    yield record(peer, [lambda x=x: function(x) for x in sets], function(sets[0]))
    if args.device == "cuda" and not (peer == "torch-muon" and batched):
        yield graphs(peer + "-graph", function)


def compile_job(shape, peer, args):
    def job():
        function_of(peer, not shape.startswith("1x"), args)(inputs(shape, args)[0])
        peers.synchronize(args.device)
    return job


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers.add_arguments(parser, seconds=0.3)
    parser.add_argument("--shapes", help="comma-separated, batch x rows x columns, as 1x768x768 (any; default: the usual ones)")
    parser.add_argument("--input", choices=("bf16", "fp32"), help="type of the inputs (default: that of the products)")
    parser.add_argument("--element", choices=("bfloat16", "float"),
                        help="type of the products but torch-muon's and dion's (default: bfloat16, on a CPU float)")
    args = parser.parse_args()
    args.element = args.element or ("float" if args.device == "cpu" else "bfloat16")
    args.input = args.input or ("fp32" if args.element == "float" else "bf16")
    usual = CPU_SHAPES if args.device == "cpu" else SHAPES
    shapes = [s.strip() for s in args.shapes.split(",")] if args.shapes else TINY if args.tiny else usual
    for shape in shapes:
        if len(shape.split("x")) != 3 or not all(part.isdigit() and int(part) > 0 for part in shape.split("x")):
            parser.error(f"not a shape: {shape}")
    names = peers.chosen(PEERS, args.peers, "peer") if args.peers else PEERS[:3] + ["dion-triton"] * bool(args.dion)
    names = [name for name in names if not (args.quick and name in SLOW)]

    jobs = []
    if "dion-triton" in names and args.device == "cuda":
        jobs += peers.dion_kernel_jobs(args, 8)
    jobs += [compile_job(shape, name, args) for shape in shapes for name in names if name in SLOW and name != "dion-triton"]
    results = peers.Results("newton_schulz", "shape", args)
    peers.run([(shape, name) for shape in shapes for name in names], work, jobs, results, args)
    print("five-step Newton-Schulz, microseconds (median)")
    results.table(lambda r: f"{r['us']:.1f}")


if __name__ == "__main__":
    main()
