#!/usr/bin/env python3
"""requirements_test.py SOURCE_DIR: the numbers that names of tests cite are those of docs/requirements.md."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
page = (root / "docs" / "requirements.md").read_text()
listed = re.findall(r"^\| (T-\d+|[A-D]\d?) \| \S", page, re.M)

cited = {}
for path in sorted((root / "tests").rglob("*.cpp")):
    for line in path.read_text().splitlines():
        if "TEST_CASE(" not in line:
            continue
        name = re.search(r'TEST_CASE\("((?:[A-D]\d?(?:, )?)+)\. ', line)  # "B2, B5. what it says"
        numbers = re.findall(r"\bT-\d+", line) + (name[1].split(", ") if name else [])
        for number in numbers:
            cited.setdefault(number, path.relative_to(root))

problems = [f"{number} stands twice in docs/requirements.md" for number in sorted(set(listed)) if listed.count(number) > 1]
problems += [f"{path} cites {number}, which is not in docs/requirements.md"
             for number, path in sorted(cited.items()) if number not in listed]
problems += [f"no test cites {number} of docs/requirements.md" for number in listed if number not in cited]
if not listed or problems:
    sys.exit("\n".join(problems or ["docs/requirements.md lists nothing"]))
print(f"{len(listed)} requirements, each cited by a test")
