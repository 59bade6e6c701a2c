#!/usr/bin/env python3
"""mutation_smoke_test.py SCRIPT: what scripts/mutation-smoke keeps of its runs.

The project is one header and two test programs, and is built by a stand-in for cmake: header and test are Python here, so that nothing
is compiled.
"""
import csv
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

script = pathlib.Path(sys.argv[1])
FILES = {
    "tests/CMakeLists.txt": "matopt_test(sum sum_test.cpp)\n"
                            "matopt_test(both one_test.cpp two_test.cpp)\nmatopt_test_by_source(both)\n",
    "tests/one_test.cpp": "#include <matopt/sum.hpp>\n# sum, sum\nimport sys\nsys.exit(plus(2, 2) != 4)\n",
    "tests/two_test.cpp": "#include <matopt/sum.hpp>\nimport sys\nsys.exit(plus(1, 2) != 3)\n",
    "tests/sum_test.cpp": '#include "expected.hpp"\nimport sys\nsys.exit(plus(2, 2) != 4)\n',
    "tests/expected.hpp": "// four\n4\n",
    "include/matopt/sum.hpp": "def plus(a, b): return a + b\n",
    "tests/mutations.txt": "# the second one survives, because the test adds two and two; the third is no program\n"
                           "sum.hpp : sum\n- return a + b\n+ return a - b\n\n"
                           "sum.hpp : sum\n- def plus(a, b):\n+ def plus(a, b): a = b;\n\n"
                           "sum.hpp : sum\n- b): return\n+ b): retrun 0\n\n",
    "docs/mutation-smoke.md": "",
}
CMAKE = """#!/usr/bin/env python3
import pathlib, sys
if sys.argv[1] == "--build":
    build = pathlib.Path(sys.argv[2])
    for target in sys.argv[sys.argv.index("--target") + 1:]:
        test = target.removeprefix("test_").removeprefix("both.").removesuffix("_test")
        text = "".join((build.parent / "tree" / f).read_text() for f in ("include/matopt/sum.hpp", f"tests/{test}_test.cpp"))
        compile(text, test, "exec")
        program = build / "tests" / target
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/usr/bin/env python3\\n" + text)
        program.chmod(0o755)
"""


def main(root):
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "scripts").mkdir()
    shutil.copy(script, root / "scripts" / "mutation-smoke")
    work, tools = root.parent / "work", root.parent / "tools"
    tools.mkdir()
    (tools / "cmake").write_text(CMAKE)
    (tools / "cmake").chmod(0o755)

    def run(*options):
        result = subprocess.run([sys.executable, root / "scripts" / "mutation-smoke", "--work", work, *options],
                                capture_output=True, text=True,
                                env=dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}"))
        return result.returncode, result.stdout + result.stderr

    def outcomes():
        with open(root / "tests" / "mutation-results.csv") as file:
            return [row["outcome"] for row in csv.DictReader(file)]

    def must(condition, what):
        if not condition:
            sys.exit(f"mutation-smoke: {what}")

    all_three = ["killed", "survived", "does not compile"]
    must("3 never run" in run("--status")[1], "a list without results is not reported as never run")
    status, said = run("--resume", "--only", "a - b")
    must(status == 0 and outcomes() == ["killed"], f"one entry alone: {said}")
    status, said = run("--resume")
    must(status == 1 and outcomes() == all_three, f"the rest of the list: {said}")
    must("2 of 2 tried, 0 killed" in said, f"an entry with a result was tried again: {said}")
    page = (root / "docs" / "mutation-smoke.md").read_text()
    must("1 killed, 1 survived, 1 did not compile" in page and "**survived**" in page, f"the page says: {page}")
    must("every entry has a result" in run("--resume")[1], "--resume tries what has a result")
    must("0 of 3 tried" in run("--until", "0")[1], "--until 0 does not stop the run")

    # Several workers find the same, each in a copy of its own; the page can be written from the results alone.
    (root / "tests" / "mutation-results.csv").unlink()
    (root / "docs" / "mutation-smoke.md").unlink()
    status, said = run("--resume", "--workers", "3")
    must(status == 1 and outcomes() == all_three and "3 of 3 tried, 1 killed" in said, f"three workers: {said}")
    must(all((work / str(i) / "tree").is_dir() for i in range(3)), "three workers share a copy")
    (root / "docs" / "mutation-smoke.md").unlink()
    must(run("--report")[0] == 0 and (root / "docs" / "mutation-smoke.md").read_text() == page, "--report writes another page")
    must("--workers is 0" in run("--workers", "0")[1], "no workers are accepted")

    # When the time is up, the fault that is being tried is left, its test is stopped, and the other results stand.
    endless = ("sum.hpp : sum\n- plus(a, b): return\n"
               "+ plus(a, b): import os, time; print(os.getpid(), flush=True); time.sleep(1000); return\n\n")
    (root / "tests" / "mutations.txt").write_text(endless + FILES["tests/mutations.txt"])
    (root / "tests" / "mutation-results.csv").unlink()
    begin = time.monotonic()
    status, said = run("--resume", "--workers", "2", "--until", "8")
    must(time.monotonic() - begin < 60, "--until waits for a fault that takes long")
    must(outcomes() == all_three and "3 of 3 tried" not in said and "8 seconds are over" in said, f"when the time is up: {said}")
    pids = [line for i in range(2) for line in (work / str(i) / "log.txt").read_text().splitlines() if line.isdigit()]
    must(len(pids) == 1 and not pathlib.Path("/proc", pids[0]).exists(), f"a test is running still: {pids}")
    must("1 never run" in run("--status")[1], "a fault that was left has a result")
    (root / "tests" / "mutations.txt").write_text(FILES["tests/mutations.txt"])

    # A file that the test includes makes results stale; so does the header.
    (root / "tests" / "expected.hpp").write_text("// four, by hand\n4\n")
    must("every entry has a result" in run("--resume")[1], "a change of a comment makes results stale")
    (root / "tests" / "expected.hpp").write_text("// four, by hand\n3 + 1\n")
    must("3 with a stale one" in run("--status")[1], "a change of the test's text leaves results as they are")
    new = "sum.hpp : sum\n- return a + b\n+ return b - a\n\n"
    (root / "tests" / "mutations.txt").write_text(FILES["tests/mutations.txt"] + new)
    status, said = run("--resume")
    must(said.index("->  return b - a") < said.index("->  return a - b"), f"faults without a result come after stale ones: {said}")
    must(status == 1 and "0 with a stale one" in run("--status")[1], "--resume does not renew stale results")
    (root / "tests" / "mutations.txt").write_text(FILES["tests/mutations.txt"])
    (root / "include" / "matopt" / "sum.hpp").write_text(FILES["include/matopt/sum.hpp"] + "# the end\n")
    must("3 with a stale one" in run("--status")[1], "a change of the header leaves results as they are")

    # A list that has changed: the result of an entry that is gone is dropped at the next run.
    (root / "tests" / "mutations.txt").write_text(FILES["tests/mutations.txt"].split("sum.hpp : sum\n- def")[0])
    must(run("--resume")[0] == 0 and outcomes() == ["killed"], "results of entries that are gone are kept")

    # A program that is built source by source: what speaks most of the header is tried first, and what finds a fault is named.
    product = "sum.hpp : both\n- return a + b\n+ return a * b\n\n"
    (root / "tests" / "mutations.txt").write_text(product + product.replace("both", "both.one_test").replace("a * b", "b * a"))
    status, said = run("--resume")
    must(status == 1 and outcomes() == ["killed", "survived"], f"a program that is built source by source: {said}")
    must("(both.two_test, " in said and said.index("both.one_test passes") < said.index("both.two_test passes"), f"in turn: {said}")
    must((root / "include" / "matopt" / "sum.hpp").read_text().endswith("a + b\n# the end\n"), "the tree was edited")


with tempfile.TemporaryDirectory() as folder:
    main(pathlib.Path(folder) / "tree")
