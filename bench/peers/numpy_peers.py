#!/usr/bin/env python3
"""Time of products and of the five-step Newton-Schulz iteration in NumPy, on the CPU in float: that is, of the BLAS that NumPy is
linked with. Threads are the BLAS's; --threads has to come before it is loaded, so it is set here through the environment.
"""
import argparse
import datetime
import json
import os
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", metavar="FILE", help="write the records here")
parser.add_argument("--threads", type=int, help="of OpenBLAS, MKL or OpenMP")
parser.add_argument("--seconds", type=float, default=0.1, help="of repeats for one measurement")
parser.add_argument("--subjects", default="product,newton_schulz", help="comma-separated (default: both)")
parser.add_argument("--sizes", default="256,768,1024", help="of the squares (default: 256,768,1024)")
args = parser.parse_args()
if args.threads:
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(args.threads)
# OpenBLAS 0.3.21 does not know many newer processors and then leaves AVX-512 aside.
if "OPENBLAS_CORETYPE" not in os.environ and os.path.exists("/proc/cpuinfo") and " avx512f " in open("/proc/cpuinfo").read():
    os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
import numpy  # noqa: E402, behind the environment


def blas_name():
    try:
        return numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    except (TypeError, KeyError):  # before NumPy 1.25
        return "unknown"


def measure(call):
    call()
    start, times = time.perf_counter(), []
    while len(times) < 5 or time.perf_counter() - start < args.seconds:
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return {"ms": round(statistics.median(times), 5), "best_ms": round(min(times), 5), "repeats": len(times)}


def newton_schulz(x):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (numpy.linalg.norm(x) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


random = numpy.random.default_rng(1)
sizes = [int(n) for n in args.sizes.split(",")]
records = []
if "product" in args.subjects:
    for m, n, k in [(n, n, n) for n in sizes]:
        x, y = (random.standard_normal(s, dtype=numpy.float32) for s in ((m, k), (k, n)))
        d = numpy.empty((m, n), dtype=numpy.float32)
        common = {"subject": "product", "peer": "numpy", "element": "float", "shape": f"1x{m}x{n}x{k}", "error": None}
        records.append({**common, "kind": "plain", **measure(lambda: numpy.matmul(x, y, out=d))})
        records.append({**common, "kind": "symmetric", **measure(lambda: numpy.matmul(x, x.T, out=d))})
if "newton_schulz" in args.subjects:
    for m, n in [(n, n) for n in sizes] + [(n, 4 * n) for n in sizes if n == 768]:
        x = random.standard_normal((m, n), dtype=numpy.float32)
        records.append({"subject": "newton_schulz", "peer": "numpy", "element": "float", "set": "keller", "shape": f"1x{m}x{n}",
                        "error": None, **measure(lambda: newton_schulz(x))})
result = {"device": "cpu", "numpy": numpy.__version__, "blas": blas_name(),
          "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "records": records}
if args.json:
    with open(args.json, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
for r in records:
    print(f"{r['subject']:14} {r.get('kind', ''):10} {r['shape']:18} {r['ms']:10.3f} ms")
