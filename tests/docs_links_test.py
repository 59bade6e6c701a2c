#!/usr/bin/env python3
"""docs_links_test.py SOURCE_DIR: what a page of the documentation links to is there, headings included; every page of docs/ is
reached from README.md by at most two links; and a table under the mark `<!-- rows from PAGE -->` agrees with PAGE: its head is the
head of a table there, and its rows are rows of that table."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1]).resolve()
pages = [root / "README.md", root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
pages += [p for folder in ("docs", "examples", "python", "bench") for p in sorted((root / folder).rglob("*.md"))]


def prose(page):
    """The text without blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)


def anchors(page):
    """The names that GitHub gives to headings."""
    names = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(page), re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        if name in names:
            name += f"-{sum(n == name or n.startswith(name + '-') for n in names)}"
        names.add(name)
    return names


def tables(text):
    """Of each table its lines, without the one of dashes."""
    found = re.findall(r"^\|.*\|$(?:\n\|.*\|$)+", text, re.M)
    return [[line for line in table.split("\n") if not re.fullmatch(r"[|\s:-]+", line)] for table in found]


def copied_rows(page):
    """What is wrong with the tables of a page that are copied from another one."""
    for source, rest in re.findall(r"<!-- rows from (\S+) -->\n((?:.*\n?)*?)(?=<!-- rows from|\Z)", page.read_text()):
        where = f"{page.relative_to(root)}: the table with rows from {source}"
        if not rest.startswith("|"):
            yield f"{where} is not there"
            continue
        head, *rows = tables(rest)[0]
        originals = [t for t in tables((root / source).read_text()) if t[0] == head] if (root / source).exists() else []
        if not originals:
            yield f"{where} has a head that no table there has"
        for row in rows:
            if originals and not any(row in t[1:] for t in originals):
                yield f"{where} has a row that is not there: {row}"


problems, links = [], {}
for page in pages:
    links[page] = set()
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        if not where.exists():
            problems.append(f"{page.relative_to(root)}: {target} is not there")
        elif anchor and where.suffix == ".md" and anchor not in anchors(where):
            problems.append(f"{page.relative_to(root)}: {target}: there is no such heading")
        else:
            links[page].add(where)

for page in pages:
    problems += copied_rows(page)

near = links[root / "README.md"]
near = near.union(*(links.get(page, set()) for page in near))
for page in sorted((root / "docs").rglob("*.md")):
    if page not in near:
        problems.append(f"{page.relative_to(root)}: more than two links away from README.md")

if problems or not any(links.values()):
    sys.exit("\n".join(problems or ["no links were found"]))
print(f"{sum(map(len, links.values()))} links of {len(pages)} pages lead somewhere")
