#!/usr/bin/env python3
"""Checks that need only the compiler's front end, run as

    compile_checks.py headers    COMPILER INCLUDE_DIR EIGEN_DIR                every header alone, with hostile macros
    compile_checks.py fail       COMPILER INCLUDE_DIR EIGEN_DIR FOLDER FILE    one file of compile_fail/
    compile_checks.py precompile COMPILER INCLUDE_DIR EIGEN_DIR FOLDER         what the files of compile_fail/ share, for `fail`

A file of compile_fail/ must compile as it is, and with -DMATOPT_MAKE_IT_FAIL must not; the compiler's message must then
hold the words of its first line, "// expect: words". The first half guards against failing for another reason. If the
second line is "// flags: ...", these flags are given besides, where the file must not compile.

Most of the time would go into headers that all of these include, so those are precompiled. A header is still checked alone: its text
comes after all that it includes, and sees nothing else, whether that is precompiled or not. (Nor is anything hidden in what is
precompiled, as each header of it is checked, too.)
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wold-style-cast", "-Werror"]
# What is precompiled: the first of these that a file includes all of.
BASES = [("matopt/eigen.hpp", "matopt/optimizer.hpp"), ("matopt/eigen.hpp",), ("matopt/optimizer.hpp",), ("matopt/core/policy.hpp",),
         ("matopt/core/pass.hpp",), ("matopt/core/functors.hpp",)]

# What other headers leave behind: <complex.h>, curses, old Windows headers, R, numerical code of long ago.
HOSTILE = ["I=_Complex_I_", "OK=0", "ERR=-1", "small=char", "near=", "far=", "interface=struct", "DOMAIN=1", "EPS=1e-9",
           "MAX=9", "MIN=9", "ALIGN=16", "TRUE=1", "FALSE=0", "PI=3.14", "LOG(x)=hostile", "CHECK(x)=hostile"]
# Eigen itself has template parameters of these names.
HOSTILE_TO_EIGEN = ["N=64", "M=64", "K=64"]


def definitions(macros):
    return "".join("#define " + m.replace("=", " ", 1) + "\n" for m in macros)


def includes_of(path, root, seen=None):
    """The headers of this project that a file includes, directly or not, whatever macros are defined. They are sought beside the
    file and in the folder `root`, and named as from there."""
    seen = {} if seen is None else seen
    depth = 0  # of #if
    with open(path) as f:
        for line in f:
            depth += bool(re.match(r"#if", line)) - bool(re.match(r"#endif", line))
            found = None if depth else re.match(r'#include (?:"([^"]+)"|<(matopt/[^>]+)>)', line)
            if found:
                name = os.path.normpath(os.path.join(os.path.dirname(path), found[1]) if found[1] else os.path.join(root, found[2]))
                if os.path.relpath(name, root) not in seen and os.path.isfile(name):
                    seen[os.path.relpath(name, root)] = name
                    includes_of(name, root, seen)
    return seen


class Compiler:
    def __init__(self, compiler, include, eigen, folder):
        """Precompiled headers are sought in `folder`."""
        self.command = [compiler, *FLAGS, "-I" + include, "-isystem", eigen]
        self.include, self.folder = include, folder

    def run(self, *args, text=None):
        return subprocess.run([*self.command, *args], input=text, capture_output=True, text=True)

    def base_of(self, path):
        names = includes_of(path, self.include)
        return next((base for base in BASES if all(header in names for header in base)), None)

    def precompiled(self, base, macros=()):
        return os.path.join(self.folder, f"{BASES.index(base)}_{len(macros)}.hpp")

    def precompile(self, base, macros=()):
        path, own = self.precompiled(base, macros), os.path.join(self.folder, str(os.getpid()))  # others may do the same
        with open(own, "w") as f:
            f.write("#pragma once\n" + definitions(macros) + "".join(f"#include <{header}>\n" for header in base))
        # A compiler that cannot take what this gives reads the text; if nothing is given, those who include it say why.
        if self.run("-w", "-x", "c++-header", own, "-o", own + ".gch").returncode == 0:
            os.replace(own + ".gch", path + ".gch")
        os.replace(own, path)

    def check(self, path, *args, macros=(), text=None):
        """Runs the front end on the file at `path`, or on a text that includes no more than that file does."""
        base = self.base_of(path)
        if base:
            if not os.path.isfile(self.precompiled(base, macros)):
                self.precompile(base, macros)
            args = ["-include", self.precompiled(base, macros), *args]
        return self.run("-fsyntax-only", *args, *(["-x", "c++", "-"] if text else [path]), text=text)


def check_fail(compiler, include, eigen, folder, path):
    cc = Compiler(compiler, include, eigen, folder)
    with open(path) as f:
        expected = f.readline().split("// expect:")[1].strip()
        flags = f.readline().partition("// flags:")[2].split()
    good = cc.check(path)
    if good.returncode != 0:
        sys.exit(f"{path} must compile without MATOPT_MAKE_IT_FAIL:\n{good.stderr}")
    bad = cc.check(path, "-DMATOPT_MAKE_IT_FAIL", *flags)
    if bad.returncode == 0:
        sys.exit(f"{path} compiles")
    if expected not in bad.stderr:
        sys.exit(f"{path}: the message does not say \"{expected}\":\n{bad.stderr}")


def precompile(compiler, include, eigen, folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    Compiler(compiler, include, eigen, folder).precompile(BASES[0])  # the others where they are needed


def check_headers(compiler, include, eigen):
    failures = []
    # adapters and other backends need libraries of their own
    skip = tuple(os.path.join(include, "matopt", d) for d in ("cuda", "adapters", "distributed"))
    with tempfile.TemporaryDirectory() as precompiled:
        cc = Compiler(compiler, include, eigen, precompiled)
        for folder, _, names in sorted(os.walk(os.path.join(include, "matopt"))):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not name.endswith(".hpp") or path.startswith(skip) or name.startswith("cuda"):
                    continue
                header = os.path.relpath(path, include)
                macros = HOSTILE + ([] if "eigen" in header else HOSTILE_TO_EIGEN)
                text = f"#include <{header}>\n#include <{header}>\n"
                own_text = "".join(open(p).read() for p in [path, *includes_of(path, include).values()])
                if "nlohmann" in own_text:  # JSON goes before the macros, which it does not survive.
                    text = "#include <nlohmann/json.hpp>\n" + definitions(macros) + text
                    result = cc.run("-fsyntax-only", "-x", "c++", "-", text=text)
                else:
                    result = cc.check(path, macros=macros, text=text if cc.base_of(path) else definitions(macros) + text)
                if result.returncode != 0:
                    failures.append(f"{header}:\n" + "\n".join(result.stderr.splitlines()[:12]))
    if failures:
        sys.exit(f"{len(failures)} headers fail:\n\n" + "\n\n".join(failures[:5]))


if __name__ == "__main__":
    {"fail": check_fail, "headers": check_headers, "precompile": precompile}[sys.argv[1]](*sys.argv[2:])
