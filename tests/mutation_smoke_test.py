#!/usr/bin/env python3
"""mutation_smoke_test.py SCRIPT COMPILER: what scripts/mutation-smoke keeps of its runs, on a project of one header and one test."""
import csv
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

script, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
FILES = {
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.22)\nproject(small CXX)\nadd_subdirectory(tests)\n",
    "tests/CMakeLists.txt": "function(matopt_test name)\n  add_executable(test_${name} ${ARGN})\n"
                            "  target_include_directories(test_${name} PRIVATE ${PROJECT_SOURCE_DIR}/include)\nendfunction()\n"
                            "matopt_test(sum sum_test.cpp)\n",
    "tests/sum_test.cpp": '#include <matopt/sum.hpp>\n#include "expected.hpp"\nint main() { return sum(2, 2) == expected ? 0 : 1; }\n',
    "tests/expected.hpp": "constexpr int expected = 4;\n",
    "include/matopt/sum.hpp": "inline int sum(int a, int b) { return a + b; }\n",
    "tests/mutations.txt": "# the second one survives, because the test adds two and two\n"
                           "sum.hpp : sum\n- return a + b;\n+ return a - b;\n\n"
                           "sum.hpp : sum\n- int sum(int a, int b) {\n+ int sum(int a, int b) { a = b;\n\n",
    "docs/mutation-smoke.md": "",
}


def main(root):
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "scripts").mkdir()
    shutil.copy(script, root / "scripts" / "mutation-smoke")
    work = root.parent / "work"

    def run(*options):
        result = subprocess.run([root / "scripts" / "mutation-smoke", "--work", work, *options], capture_output=True,
                                text=True, env=dict(os.environ, CXX=compiler))
        return result.returncode, result.stdout + result.stderr

    def outcomes():
        with open(root / "tests" / "mutation-results.csv") as file:
            return [row["outcome"] for row in csv.DictReader(file)]

    def must(condition, what):
        if not condition:
            sys.exit(f"mutation-smoke: {what}")

    must("2 never run" in run("--status")[1], "a list without results is not reported as never run")
    status, said = run("--resume", "--only", "a - b")
    must(status == 0 and outcomes() == ["killed"], f"one entry alone: {said}")
    status, said = run("--resume")
    must(status == 1 and outcomes() == ["killed", "survived"], f"the rest of the list: {said}")
    must("1 of 1 tried" in said, f"an entry with a result was tried again: {said}")
    page = (root / "docs" / "mutation-smoke.md").read_text()
    must("1 were killed, 1 survived" in page and "**survived**" in page, f"the page says: {page}")
    must("every entry has a result" in run("--resume")[1], "--resume tries what has a result")

    # A file that the test includes makes results stale; so does the header.
    (root / "tests" / "expected.hpp").write_text("constexpr int expected = 4;  // by hand\n")
    must("2 with a stale one" in run("--status")[1], "a change of the test's text leaves results as they are")
    must(run("--resume")[0] == 1 and "0 with a stale one" in run("--status")[1], "--resume does not renew stale results")
    (root / "include" / "matopt" / "sum.hpp").write_text(FILES["include/matopt/sum.hpp"] + "// the end\n")
    must("2 with a stale one" in run("--status")[1], "a change of the header leaves results as they are")

    # A list that has changed: the result of an entry that is gone is dropped at the next run.
    (root / "tests" / "mutations.txt").write_text(FILES["tests/mutations.txt"].split("sum.hpp : sum\n- int")[0])
    must(run("--resume")[0] == 0 and outcomes() == ["killed"], "results of entries that are gone are kept")
    must((root / "include" / "matopt" / "sum.hpp").read_text().endswith("// the end\n"), "the tree was edited")


with tempfile.TemporaryDirectory() as folder:
    main(pathlib.Path(folder) / "tree")
