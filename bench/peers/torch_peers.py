"""What the scripts *_torch.py beside it share: running cases in a process that can be stopped and
started again, timing, graph capture, and the results as JSON and as a table.

A case is one peer on one subject (a shape or a model). The parent never touches the GPU: it forks a child that works through the
cases in order, stops it when a case passes its time limit, and starts another for the cases left.
"""
import datetime
import gc
import json
import math
import multiprocessing
import os
import signal
import statistics
import sys
import time
import traceback

import torch

FORK = multiprocessing.get_context("fork")


def add_arguments(parser, seconds):
    parser.add_argument("--json", metavar="FILE", help="write the records here (after each one)")
    parser.add_argument("--dion", metavar="PATH", help="folder that holds the package `dion` of microsoft/dion")
    parser.add_argument("--peers", help="comma-separated, instead of the default ones")
    parser.add_argument("--quick", action="store_true", help="leave out the peers that compile for long")
    parser.add_argument("--limit-s", type=float, default=45, help="for one peer on one subject, its compilation included")
    parser.add_argument("--budget-s", type=float, default=95, help="for the whole run; cases left by then are not run")
    parser.add_argument("--warm", type=int, help="processes that first compile everything at once, into the caches on disk")
    parser.add_argument("--warm-s", type=float, default=45, help="stop them after this")
    parser.add_argument("--seconds", type=float, default=seconds, help="of repeats for one measurement")
    parser.add_argument("--triton-tune-ms", type=int, default=20,
                        help="for each configuration that Triton's autotuner tries (0: its own default, five times as long)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="on a CPU nothing is a CUDA graph")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU")
    parser.add_argument("--tiny", action="store_true", help="small subjects, to try this script out")


def chosen(names, wanted, what):
    """The names that `wanted` (a comma-separated list or None) asks for, in the order of `names`."""
    if wanted is None:
        return list(names)
    asked = [w.strip() for w in wanted.split(",") if w.strip()]
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise SystemExit(f"unknown {what} {', '.join(unknown)}; there are {', '.join(names)}")
    return [name for name in names if name in asked]


def import_dion(path):
    """Puts microsoft/dion on the import path: `path` is the package or the folder above it."""
    if not path:
        raise RuntimeError("needs --dion PATH")
    path = os.path.abspath(path)
    if os.path.isfile(os.path.join(path, "__init__.py")):
        path = os.path.dirname(path)
    if not os.path.isfile(os.path.join(path, "dion", "__init__.py")):
        raise RuntimeError("no package `dion` in the folder given with --dion")
    if path not in sys.path:
        sys.path.insert(0, path)


def tune_quickly(kernels, milliseconds):
    """Lets Triton's autotuner spend less time on each configuration of these kernels."""
    if milliseconds > 0:
        import triton.testing
        for kernel in kernels:
            kernel._do_bench = lambda call, quantiles: triton.testing.do_bench(
                call, warmup=max(1, milliseconds // 4), rep=milliseconds, quantiles=quantiles)


def dion_kernel_jobs(args, parts):
    """Jobs that compile dion's Triton kernels into Triton's cache on disk, each a part of their configurations."""

    def job(part):
        import_dion(args.dion)
        from dion import newton_schulz_triton as module
        kernels = [module.ns_line_1_kernel, module.ns_line_2_kernel]
        tune_quickly(kernels, 1)
        for kernel in kernels:
            kernel.configs = kernel.configs[part::parts]
        module.newton_schulz_triton(torch.randn(256, 256, device=args.device, dtype=torch.bfloat16))
        synchronize(args.device)

    return [lambda part=part: job(part) for part in range(parts)]


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def forget():
    """Drops what a case has left behind: compiled code and memory."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def allow_recompilations():
    """A model has more shapes than the compiler's default limit allows for one function."""
    from torch._dynamo import config
    config.recompile_limit = 64


def captured(call):
    """`call` as a CUDA graph; returns its replay and its result, which each replay overwrites."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    graph.replay()
    torch.cuda.synchronize()
    return graph.replay, result


def measure(calls, args):
    """Times the calls in turn; returns the median and the fastest in milliseconds, and the number of repeats."""
    for _ in range(max(1, 3 // len(calls))):
        for call in calls:
            call()
    synchronize(args.device)
    start = time.perf_counter()
    for call in calls:
        call()
    synchronize(args.device)
    each = max((time.perf_counter() - start) / len(calls), 1e-6)
    repeats = min(max(int(args.seconds / each), 12), 400)
    warm = math.ceil(repeats / 8)
    times = []
    if args.device == "cuda":
        marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for i in range(warm):
            calls[i % len(calls)]()
        for i, (begin, end) in enumerate(marks):
            begin.record()
            calls[(warm + i) % len(calls)]()
            end.record()
        torch.cuda.synchronize()
        times = [begin.elapsed_time(end) for begin, end in marks]
    else:
        for i in range(repeats):
            start = time.perf_counter()
            calls[i % len(calls)]()
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times), repeats


def message(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def describe_machine(args):
    info = {"device": "cpu", "torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0],
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    if args.device == "cuda":
        info["device"] = torch.cuda.get_device_name()
        info["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    try:
        import triton
        info["triton"] = triton.__version__
    except ImportError:
        pass
    return info


def child(connection, cases, left, work, args):
    os.setsid()
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        connection.send(("machine", describe_machine(args)))
        for index in left:
            connection.send(("start", index))
            subject, peer = cases[index]
            begin = time.perf_counter()
            try:
                for record in work(subject, peer, args):
                    record.setdefault("case_s", round(time.perf_counter() - begin, 2))
                    connection.send(("record", index, record))
            except Exception as error:
                if not isinstance(error, (ImportError, AttributeError)):  # those: this PyTorch does not have the peer
                    traceback.print_exc(limit=-3)
                connection.send(("record", index, {"peer": peer, "error": message(error)}))
            connection.send(("done", index))
            try:
                forget()
                synchronize(args.device)
            except Exception:  # the context is broken: go on in a new process
                break
    except Exception as error:
        connection.send(("failed", message(error)))
    connection.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def stop(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        if process.is_alive():
            process.kill()
    process.join()


def warm_child(jobs, threads):
    os.setsid()
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(threads)
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    for job in jobs:
        try:
            if hasattr(torch, "compile"):
                from torch._inductor import config
                config.autotune_local_cache = False  # what is tuned while other processes use the GPU must not be kept
            job()
        except Exception as error:
            print("warming:", message(error), file=sys.stderr)
        try:
            forget()
        except Exception:
            break
    sys.stderr.flush()
    os._exit(0)


def warm_caches(jobs, workers, until):
    """Runs the jobs in several processes, so that the caches on disk are filled before anything is timed."""
    if not jobs or workers <= 0:
        return
    workers = min(workers, len(jobs))
    processes = [FORK.Process(target=warm_child, args=(jobs[i::workers], 2)) for i in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(0.0, until - time.perf_counter()))
        stop(process)


class Results:
    def __init__(self, subject, label, args):
        self.subject, self.label, self.path = subject, label, args.json
        self.machine, self.records = {}, []

    def add(self, case, record):
        # bench/report joins these with ours by `subject` and by the shape or the model
        self.records.append({"subject": self.subject, "peer": record.pop("peer", case[1]), self.label: case[0],
                             "ms": None, "extra_mib": None, "error": None, **record})
        self.write()

    def write(self):
        if self.path:
            with open(self.path, "w") as file:
                json.dump({**self.machine, "records": self.records}, file, indent=1)
                file.write("\n")

    def table(self, cell):
        rows = list(dict.fromkeys(r[self.label] for r in self.records))
        columns = list(dict.fromkeys(r["peer"] for r in self.records if r["error"] is None or "time budget" not in r["error"]))
        cells = {(r[self.label], r["peer"]): cell(r) if r["error"] is None else "not run" if r["error"].startswith("not run") else "failed"
                 for r in self.records}
        lines = [[self.label, *columns]] + [[row, *(cells.get((row, column), "-") for column in columns)] for row in rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        print("  ".join(f"{k} {v}" for k, v in self.machine.items()))
        for line in lines:
            print("  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                            for i, (text, width) in enumerate(zip(line, widths))).rstrip())
        errors = {}
        for r in self.records:
            if r["error"]:
                errors.setdefault((r["peer"], r["error"]), []).append(r[self.label])
        for (peer, error), subjects in errors.items():
            print(f"  {peer} ({', '.join(subjects)}): {error[:160]}")


def run(cases, work, jobs, results, args):
    """Runs work(subject, peer, args), a generator of records, for each case; jobs are run before, to warm the caches."""
    begin = time.perf_counter()
    budget = begin + args.budget_s
    workers = args.warm if args.warm is not None else min(8, (os.cpu_count() or 2) // 2) if args.device == "cuda" else 0
    warm_caches(jobs, workers, min(begin + args.warm_s, budget))
    results.machine["warm_s"] = round(time.perf_counter() - begin, 1)

    left, failures = list(range(len(cases))), 0
    while left and failures < 3 and time.perf_counter() < budget:
        ours, theirs = FORK.Pipe(duplex=False)
        process = FORK.Process(target=child, args=(theirs, cases, list(left), work, args))
        process.start()
        theirs.close()
        current, limit, progress, told = None, time.perf_counter() + args.limit_s, False, "the process ended"
        while True:
            if not ours.poll(max(0.0, min(limit, budget) - time.perf_counter())):
                told = f"stopped at the time {'budget' if budget < limit else f'limit of {args.limit_s:g} s'}"
                break
            try:
                kind, *rest = ours.recv()
            except EOFError:
                break
            if kind == "machine":
                results.machine.update(rest[0])
            elif kind == "start":
                current, limit = rest[0], time.perf_counter() + args.limit_s
            elif kind == "record":
                results.add(cases[rest[0]], rest[1])
            elif kind == "failed":
                told = rest[0]
            else:
                left.remove(current)
                current, progress = None, True
                limit = time.perf_counter() + args.limit_s
        ours.close()
        stop(process)
        if current is not None:
            results.add(cases[current], {"error": told})
            left.remove(current)
            progress = True
        failures = 0 if progress else failures + 1
        reason = told
    for index in left:
        results.add(cases[index], {"error": "not run: time budget" if time.perf_counter() >= budget else "not run: " + reason})
    results.machine["total_s"] = round(time.perf_counter() - begin, 1)
    results.write()
