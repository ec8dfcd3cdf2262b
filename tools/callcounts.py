#!/usr/bin/env python3
"""Instructions that a call of each fast path executes, counted with callgrind, beside the committed table.

    callcounts.py check PROGRAM    counts, and fails where a path needs more than docs/callcounts.md says
    callcounts.py write PROGRAM    counts, and writes docs/callcounts.md

PROGRAM is tools/callcounts.c with the library, built by the pinned Zig for a plain x86-64: `./zigw build callcounts`
does both, and `./zigw build check` compares. The counts do not depend on the machine's speed or load. Without valgrind,
or on another processor, it says so and compares nothing.
"""
import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TABLE = os.path.join(ROOT, "docs", "callcounts.md")
CALLS = 8  # N of callcounts.c: three times as many stores fit into a barrier buffer, twice
TOLERANCE = 0.1
# Name in callcounts.c, in words, and what the project wants of it.
PATHS = (
    ("new_typed", "`tri_new`, a struct of 24 bytes with two references", 10),
    ("new_leaf", "`tri_new`, a pointer-free struct of 16 bytes", 8),
    ("new_n", "`tri_new_n`, an array of six references", None),
    ("new_bytes", "`tri_new_bytes`, 48 bytes", None),
    ("init", "`tri_init`, with the loads of both arguments", None),
    ("store", "`tri_store`, no cycle under way, with the loads of both arguments", None),
    ("store_first", "`tri_store` while marking, over an unmarked object, but for its flush", None),
    ("store_again", "`tri_store` while marking, over a marked object", None),
    ("move_one", "`tri_move` of one slot, no cycle under way", None),
    ("move_one_first", "`tri_move` of one slot while marking, over an unmarked object, but for its flush", None),
    ("move_one_again", "`tri_move` of one slot while marking, over a marked object", None),
    ("move_many", "`tri_move` of 64 slots, no cycle under way", None),
    ("move_many_first", "`tri_move` of 64 slots while marking, over unmarked objects, with its flushes", None),
    ("move_many_again", "`tri_move` of 64 slots while marking, over marked objects", None),
    ("load", "`tri_load`", None),
    ("poll", "`tri_poll`, nothing asked", None),
    ("frame", "`TRI_LOCALS` of one slot and `TRI_POP`", None),
    ("manual", "`tri_manual_alloc` of 64 bytes and `tri_manual_free`", None),
)
HEAD = """# Instructions a call

What each fast path executes when it hits, inlined into a loop where it is inline: counted with callgrind, without the
loop itself, for plain x86-64 code of the pinned Zig's clang. `./zigw build check` counts again and compares;
`./zigw build callcounts` writes this file anew. A call of the library's counts with all that it does.

"""


def parse(text):
    """Inclusive instructions of each once_* and twice_* function, from callgrind's output with whole names."""
    costs, callee = {}, None
    calls = False
    for line in text.splitlines():
        if line.startswith("cfn="):
            callee = line[4:]
        elif line.startswith("calls="):
            calls = True
        elif calls:
            calls = False
            if re.fullmatch(r"(once|twice)_\w+", callee or ""):
                costs[callee] = costs.get(callee, 0) + int(line.split()[-1])
    return costs


def counts(costs):
    """Instructions a call of each path, the empty loop's taken off."""
    loop = lambda name: (costs["twice_" + name] - costs["once_" + name]) / CALLS
    return {name: loop(name) - loop("empty") for name, _, _ in PATHS}


def count(program):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "callgrind.out")
        done = subprocess.run(["valgrind", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no",
                               "--callgrind-out-file=" + out, program], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            sys.exit("callcounts: %s failed:\n%s" % (program, done.stdout.decode(errors="replace")))
        with open(out, encoding="utf-8", errors="replace") as file:
            return counts(parse(file.read()))


def render(found):
    rows = [("path", "instructions", "at most", "reached")]
    for name, words, goal in PATHS:
        number = "%.1f" % found[name]
        rows.append((words, number, str(goal or ""), "" if goal is None else "yes" if found[name] <= goal else "NO"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return HEAD + "\n".join(lines) + "\n"


def committed(text):
    """The numbers of a table that render wrote, by path."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name, words, _ in PATHS:
            if cells and cells[0] == words:
                rows[name] = float(cells[1])
    return rows


def compare(found, table):
    """What got worse, as complaints, and what got better, as remarks."""
    worse, better = [], []
    for name, words, _ in PATHS:
        if name not in table:
            worse.append("%s is not in the table" % words)
        elif found[name] > table[name] + TOLERANCE:
            worse.append("%s: %.1f instructions, the table says %.1f" % (words, found[name], table[name]))
        elif found[name] < table[name] - TOLERANCE:
            better.append("%s: %.1f instructions, the table still says %.1f" % (words, found[name], table[name]))
    return worse, better


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("check", "write"))
    parser.add_argument("program")
    options = parser.parse_args()
    if platform.machine() != "x86_64":
        print("callcounts: the table is of x86-64; not compared here", file=sys.stderr)
        return 0
    if not shutil.which("valgrind"):
        print("callcounts: not compared, valgrind is missing: sudo apt-get install -y valgrind", file=sys.stderr)
        return 0
    found = count(options.program)
    if options.mode == "write":
        with open(TABLE, "w", encoding="utf-8") as file:
            file.write(render(found))
        print(render(found))
        return 0
    with open(TABLE, encoding="utf-8") as file:
        worse, better = compare(found, committed(file.read()))
    for line in better:
        print("callcounts: better: %s; ./zigw build callcounts writes it down" % line, file=sys.stderr)
    for line in worse:
        print("callcounts: %s; see why, or accept it with ./zigw build callcounts" % line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
