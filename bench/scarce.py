#!/usr/bin/env python3
"""Worst pauses where cores are scarce, beside those with a free core.

    scarce.py [--worker=zig-out/bin/bench-trigc] [--runs=5] [--quick]

Each load runs with a core left for the collector, then alone on one core (taskset -c 0), or with as many threads as
there are cores. Printed are, for the longest time between two operations, medians over the runs, taken in turn, and
their ratio to the first: by the wall, which says what a caller waits (on a machine that does nothing else), and by the
thread's own time on a core. The design asks for at most 3 by the wall.
"""

import os
import statistics
import subprocess
import sys

CORES = len(os.sched_getaffinity(0))
LOADS = {  # arguments, in short, and where cores are scarce: on which cores, other arguments
    "store": (["store", "--ops=3000000"], ["store", "--ops=400000"], "0", []),
    "lru": (["lru", "--live=67108864", "--ops=600000"], ["lru", "--live=16777216", "--ops=100000"], "0", []),
    "trees": (["trees", "--threads=1", "--depth=17"], ["trees", "--threads=1", "--depth=14"], "0", []),
    "trees, a thread a core": (
        ["trees", "--threads=1", "--depth=17"],
        ["trees", "--threads=1", "--depth=14"],
        None,
        [f"--threads={CORES}"],
    ),
}


def run(worker, arguments, cores):
    command = (["taskset", "-c", cores] if cores else []) + [worker] + arguments
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = dict(line.split()[:2] for line in out.splitlines() if len(line.split()) >= 2)
    return int(values["worst_ns"]), int(values["worst_on_core_ns"])


def main():
    worker, runs, quick = "zig-out/bin/bench-trigc", 5, False
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        if name == "--worker":
            worker = value
        elif name == "--runs":
            runs = int(value)
        elif name == "--quick":
            quick = True
        else:
            raise SystemExit(__doc__)
    print(f"{'':24}{'by the wall, ms':>26}{'':8}{'on a core, ms':>26}")
    print(f"{'load':24}{'free':>13}{'scarce':>13}{'ratio':>8}{'free':>13}{'scarce':>13}{'ratio':>8}")
    for name, (long, short, cores, more) in LOADS.items():
        arguments, free, scarce = short if quick else long, [], []
        for _ in range(runs):
            free.append(run(worker, arguments, None))
            scarce.append(run(worker, arguments + more, cores))
        line = f"{name:24}"
        for i in (0, 1):
            a, b = (statistics.median(r[i] for r in side) / 1e6 for side in (free, scarce))
            line += f"{a:13.2f}{b:13.2f}{b / a if a else 0:8.1f}"
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
