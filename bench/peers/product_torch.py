#!/usr/bin/env python3
"""Time of products of matrices in PyTorch (torch.matmul, torch.bmm), in microseconds, one GPU or the CPU: D = A B and D = A A^T.

On a GPU as a CUDA graph of as many products as take some 200 microseconds, like bench/products_bench.cu. Shapes are
batch x rows x columns x depth; `symmetric` is computed whole.
"""
import argparse

import torch

import torch_peers as peers

SHAPES = {
    "plain": [(1, n, n, n) for n in (512, 1024, 2048, 4096, 8192)] + [(48, 768, 768, 768), (16, 1024, 1024, 1024),
                                                                     (8, 1024, 4096, 1024), (24, 768, 3072, 768)],
    "symmetric": [(1, n, n, n) for n in (512, 1024, 2048, 4096, 8192)] + [(48, 768, 768, 768), (16, 1024, 1024, 1024),
                                                                         (8, 1024, 1024, 4096), (24, 768, 768, 3072)],
}
CPU_SHAPES = {
    "plain": [(1, n, n, n) for n in (256, 512, 768, 1024)] + [(1, 768, 3072, 768)],
    "symmetric": [(1, n, n, n) for n in (256, 512, 768, 1024)] + [(1, 768, 768, 3072)],
}
TINY = {"plain": [(1, 32, 32, 32), (3, 16, 48, 16)], "symmetric": [(1, 32, 32, 32)]}
ELEMENTS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "tfloat32": torch.float32, "float": torch.float32,
            "double": torch.float64}


def work(subject, peer, args):
    kind, element, shape = subject.split(" ")
    batch, m, n, depth = (int(part) for part in shape.split("x"))
    torch.backends.cuda.matmul.allow_tf32 = element == "tfloat32"
    at_once = 1 if args.device == "cpu" else int(min(max(1e11 / (2 * batch * m * n * depth), 1), 64))
    a = torch.randn((batch, m, depth), device=args.device).to(ELEMENTS[element])
    b = a.mT if kind == "symmetric" else torch.randn((batch, depth, n), device=args.device).to(ELEMENTS[element])
    d = torch.empty((batch, m, n), device=args.device, dtype=ELEMENTS[element])

    def call():
        for _ in range(at_once):
            if batch == 1:
                torch.mm(a[0], b[0], out=d[0])
            else:
                torch.bmm(a, b, out=d)

    run = peers.captured(call)[0] if args.device == "cuda" else call
    median, best, repeats = peers.measure([run], args)
    if not torch.isfinite(d.float()).all():
        raise RuntimeError("the product is not finite")
    yield {"peer": peer, "kind": kind, "element": element, "shape": shape, "us": round(1e3 * median / at_once, 2),
           "ms": round(median / at_once, 6), "best_ms": round(best / at_once, 6), "repeats": repeats}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers.add_arguments(parser, seconds=0.1)
    parser.add_argument("--elements", help="comma-separated, of " + ", ".join(ELEMENTS) + " (default: all, on a CPU float)")
    args = parser.parse_args()
    elements = peers.chosen(ELEMENTS, args.elements or ("float" if args.device == "cpu" else None), "element")
    shapes = TINY if args.tiny else CPU_SHAPES if args.device == "cpu" else SHAPES
    cases = [(f"{kind} {element} {'x'.join(map(str, shape))}", "torch-matmul")
             for kind, of_kind in shapes.items() for element in elements for shape in of_kind]
    results = peers.Results("product", "case", args)
    peers.run(cases, work, [], results, args)
    print("products, microseconds (median)")
    results.table(lambda r: f"{r['us']:.1f}")


if __name__ == "__main__":
    main()
