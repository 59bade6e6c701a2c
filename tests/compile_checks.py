#!/usr/bin/env python3
"""Checks that need only the compiler's front end, run as

    compile_checks.py fail    COMPILER INCLUDE_DIR EIGEN_DIR FILE     one file of compile_fail/
    compile_checks.py headers COMPILER INCLUDE_DIR EIGEN_DIR          every header alone, with hostile macros

A file of compile_fail/ must compile as it is, and with -DMATOPT_MAKE_IT_FAIL must not; the compiler's message must then
hold the words of its first line, "// expect: words". The first half guards against failing for another reason. If the
second line is "// flags: ...", these flags are given besides, where the file must not compile.
"""
import os
import re
import subprocess
import sys

# What other headers leave behind: <complex.h>, curses, old Windows headers, R, numerical code of long ago.
HOSTILE = ["I=_Complex_I_", "OK=0", "ERR=-1", "small=char", "near=", "far=", "interface=struct", "DOMAIN=1", "EPS=1e-9",
           "MAX=9", "MIN=9", "ALIGN=16", "TRUE=1", "FALSE=0", "PI=3.14", "LOG(x)=hostile", "CHECK(x)=hostile"]
# Eigen itself has template parameters of these names.
HOSTILE_TO_EIGEN = ["N=64", "M=64", "K=64"]


def compile_only(compiler, include, eigen, *args, text=None):
    command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-I" + include,
               "-isystem", eigen, *args]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def check_fail(compiler, include, eigen, path):
    with open(path) as f:
        expected = f.readline().split("// expect:")[1].strip()
        flags = f.readline().partition("// flags:")[2].split()
    good = compile_only(compiler, include, eigen, path)
    if good.returncode != 0:
        sys.exit(f"{path} must compile without MATOPT_MAKE_IT_FAIL:\n{good.stderr}")
    bad = compile_only(compiler, include, eigen, "-DMATOPT_MAKE_IT_FAIL", *flags, path)
    if bad.returncode == 0:
        sys.exit(f"{path} compiles")
    if expected not in bad.stderr:
        sys.exit(f"{path}: the message does not say \"{expected}\":\n{bad.stderr}")


def own_text(path, seen=None):
    """A header and all of this project that it includes."""
    seen = set() if seen is None else seen
    if path in seen or not os.path.isfile(path):
        return ""
    seen.add(path)
    with open(path) as f:
        text = f.read()
    included = re.findall(r'^#include "([^"]+)"', text, re.M)
    return text + "".join(own_text(os.path.normpath(os.path.join(os.path.dirname(path), name)), seen) for name in included)


def check_headers(compiler, include, eigen):
    failures = []
    # adapters and other backends need libraries of their own
    skip = tuple(os.path.join(include, "matopt", d) for d in ("cuda", "adapters", "distributed"))
    for folder, _, names in sorted(os.walk(os.path.join(include, "matopt"))):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.endswith(".hpp") or path.startswith(skip) or name.startswith("cuda"):
                continue
            header = os.path.relpath(path, include)
            macros = HOSTILE + ([] if "eigen" in header else HOSTILE_TO_EIGEN)
            # JSON goes before the macros, which it does not survive.
            text = "#include <nlohmann/json.hpp>\n" if "nlohmann" in own_text(path) else ""
            text += "".join("#define " + m.replace("=", " ", 1) + "\n" for m in macros)
            text += f"#include <{header}>\n#include <{header}>\n"
            result = compile_only(compiler, include, eigen, "-x", "c++", "-", text=text)
            if result.returncode != 0:
                failures.append(f"{header}:\n" + "\n".join(result.stderr.splitlines()[:12]))
    if failures:
        sys.exit(f"{len(failures)} headers fail:\n\n" + "\n\n".join(failures[:5]))


if __name__ == "__main__":
    {"fail": check_fail, "headers": check_headers}[sys.argv[1]](*sys.argv[2:])
