#!/usr/bin/env python3
"""Holds the tables of docs/design.md against the code, and fails on any difference.

    invariants.py [ROOT]

Invariants: every id of the form I-NAME1 that alloc/, gc/ or include/ cite has exactly one row, every row's id is cited
in the file that the row names, and no id has two rows. Locks: the rank table says what enum lock_rank says. Rules: each
of R1 to R21 has one row, and the code cites no other.
"""

import os
import re
import sys

CITED = re.compile(r"\bI-[A-Z]+[0-9]+\b")
INVARIANT_ROW = re.compile(r"^\| (I-[A-Z]+[0-9]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.M)
RANK_ROW = re.compile(r"^\| (\d+) \| `(RANK_[A-Z]+)` \|", re.M)
RANK_ENUM = re.compile(r"\b(RANK_[A-Z]+) = (\d+)")
RULE_ROW = re.compile(r"^\| R(\d+) \|", re.M)
RULE_CITED = re.compile(r"\bR(\d+)\b")
NRULES = 21


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def sources(root):
    for top in ("alloc", "gc", "include"):
        for where, folders, files in os.walk(os.path.join(root, top)):
            folders.sort()
            for name in sorted(files):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(where, name), root)


def check_invariants(design, texts):
    rows = [(found.group(1), found.group(3).strip()) for found in INVARIANT_ROW.finditer(design)]
    listed = {}
    for name, path in rows:
        if name in listed:
            yield f"docs/design.md: {name} has two rows"
        listed[name] = path
    for path, text in texts.items():
        for name in sorted(set(CITED.findall(text)) - set(listed)):
            yield f"{path}: {name} has no row in docs/design.md"
    for name, path in listed.items():
        if name not in CITED.findall(texts.get(path, "")):
            yield f"docs/design.md: {name} is not to be found in {path}"


def check_ranks(design, lock_header):
    said = {name: int(rank) for rank, name in RANK_ROW.findall(design)}
    real = {name: int(rank) for name, rank in RANK_ENUM.findall(lock_header)}
    for name in sorted(said.keys() | real.keys()):
        if said.get(name) != real.get(name):
            yield f"docs/design.md: {name} is {said.get(name)}, alloc/base/lock.h has {real.get(name)}"


def check_rules(design, texts):
    rows = [int(number) for number in RULE_ROW.findall(design)]
    if rows != list(range(1, NRULES + 1)):
        yield f"docs/design.md: the table of rules has rows {rows}, not 1 to {NRULES}"
    for path, text in texts.items():
        for number in sorted({int(found) for found in RULE_CITED.findall(text)}):
            if not 1 <= number <= NRULES:
                yield f"{path}: cites R{number}, which is no rule"


def problems(root):
    design = read(root, "docs/design.md")
    texts = {path: read(root, path) for path in sources(root)}
    lock_header = texts["alloc/base/lock.h"]
    return [*check_invariants(design, texts), *check_ranks(design, lock_header), *check_rules(design, texts)]


def main():
    found = problems(sys.argv[1] if len(sys.argv) > 1 else ".")
    for problem in found:
        print(f"invariants: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
