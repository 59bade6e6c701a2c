#!/usr/bin/env python3
"""Are the loops of elementwise formulas and reductions vectorised in a user's program, which is compiled without our flags?

    vectorised_test.py SOURCE INCLUDE_DIR COMPILER...         SOURCE: vectorised/kernels.cpp

SOURCE holds the loops of every published rule. It is compiled at -O2 and at -O3, and the instructions are read: in a loop
there may be no arithmetic on one number at a time. Formulas that call a function of the C library other than a square root
(a power, a logarithm) are let off. On x86 the formulas of updates have loops for AVX2 besides, which must use its vectors. A compiler that is not installed is left out; one at least must be. With --keep FILE
objects are left as FILE-COMPILER-LEVEL-ELEMENTS.o.
"""
import argparse
import concurrent.futures
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

KERNEL = re.compile(r"matopt::(?:v\d+_\d+::)?lines::(map_blocks_\w+|reduce_blocks|load|store)<")
HEAD = re.compile(r"^([0-9a-f]+) <(.*)>:$")
LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")
ONE_AT_A_TIME = re.compile(r"^v?(?:(?:add|sub|mul|div|sqrt|max|min|comi|ucomi|cmp\w*|fn?m(?:add|sub)\d*|round)s[sd]"
                           r"|cvt\w*s[sd]\w*)$")
PACKED = re.compile(r"^v?(?:\w+p[sdh]|p\w+|\w*dqu\w*|\w*dqa\w*|cvt\w*p[sdh]\w*)$")
FUNCTIONS = re.compile(r"<(pow|log|exp|cos|sin|lgamma|tgamma)\w*(@plt)?>|R_X86_64_\w+\s+(pow|log|exp|cos|sin|lgamma|tgamma)")


def functions(text):
    """(name, lines) of every kernel in what objdump prints."""
    name, body = None, []
    for line in text.splitlines():
        head = HEAD.match(line)
        if head:
            if name:
                yield name, body
            name, body = (head[2] if KERNEL.search(head[2].split("(")[0]) else None), []
        elif name:
            body.append(line)
    if name:
        yield name, body


def loops(body):
    """The innermost loops: lists of instructions between a jump back and its target."""
    code = [(int(m[1], 16), m[2], m[3]) for m in map(LINE.match, body) if m]
    spans = []
    for address, what, operands in code:
        target = re.match(r"([0-9a-f]+)\b", operands) if what.startswith("j") else None
        if target and int(target[1], 16) <= address:
            spans.append((int(target[1], 16), address))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[c for c in code if s[0] <= c[0] <= s[1]] for s in inner]


def fault(name, body):
    """What is wrong with a kernel; None if nothing is, "" if it is let off."""
    if any(FUNCTIONS.search(line) for line in body):
        return ""
    calls = [line for line in body if re.search(r"\tcall|R_X86_64_PLT32", line) and "stack_chk" not in line
             and not re.search(r"mem(cpy|move|set)", line)]
    if any("sqrt" in c for c in calls):
        return "calls a square root"
    inner = loops(body)
    is_load = not re.search("map_blocks|reduce_blocks", name)
    some_packed = any(PACKED.match(what) for loop in inner for _, what, _ in loop)
    for loop in inner:
        scalar = sorted(what for _, what, _ in loop if ONE_AT_A_TIME.match(what))
        packed = sum(bool(PACKED.match(what)) for _, what, _ in loop)
        # A whole block unrolled may have a comparison or two of numbers that all its elements share; what loads and
        # stores goes one by one at the ends of a line and over strides.
        if scalar and not (some_packed if is_load else packed >= 2 * len(scalar) or all("comi" in s for s in scalar)):
            return "one number at a time: " + " ".join(scalar)
    if "map_blocks_avx2" in name and not any("ymm" in operands for loop in inner for _, _, operands in loop):
        return "vectors of 16 bytes in a kernel for AVX2"
    return None


def check(source, include, compiler, level, elements, keep):
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "kernels.o")
        if keep:
            made = f"{keep}-{os.path.basename(compiler)}{level}-{elements.split('::')[-1]}.o"
        built = subprocess.run([compiler, "-std=c++20", level, "-I" + include, "-DMATOPT_ELEMENTS=" + elements, "-c", source, "-o", made],
                               capture_output=True, text=True)
        if built.returncode:
            sys.exit(f"{compiler} {level}: {source} does not compile\n{built.stderr}")
        text = subprocess.run(["objdump", "-dr", "-C", "--no-show-raw-insn", made], capture_output=True, text=True, check=True).stdout
    checked, wide, let_off, faults = 0, 0, [], []
    for name, body in functions(text):
        found = fault(name, body)
        short = re.sub(r"matopt::(?:v\d+_\d+::)?|void |lines::|\(.*", "", name)
        if found == "":
            let_off.append(short)
        else:
            checked += 1
            wide += "map_blocks_avx2" in name
            if found:
                faults.append(f"  {short}\n      {found}")
    if checked < 100:
        faults.append(f"  only {checked} loops were found")
    if platform.machine() == "x86_64" and wide < 20:
        faults.append(f"  only {wide} loops for AVX2 were found")
    print("\n".join([f"{compiler} {level} {elements}: {checked} loops, {wide} of them for AVX2, {len(let_off)} with other functions, {len(faults)} faults"] + faults),
          flush=True)
    return len(faults)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("include")
    parser.add_argument("compilers", nargs="+")
    parser.add_argument("--elements", default="float", help="comma-separated")
    parser.add_argument("--levels", default="-O2,-O3")
    parser.add_argument("--keep")
    a = parser.parse_args()
    there = [c for c in a.compilers if shutil.which(c)]
    for c in a.compilers:
        if c not in there:
            print(f"left out, because it is not installed: {c or 'a compiler without a name'}", flush=True)
    if not there:
        sys.exit("no compiler to read the loops of")
    jobs = [(a.source, a.include, c, level, e, a.keep) for c in there for e in a.elements.split(",") for level in a.levels.split(",")]
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", os.cpu_count() or 1))) as pool:
        sys.exit(1 if sum(pool.map(lambda job: check(*job), jobs)) else 0)


main()
