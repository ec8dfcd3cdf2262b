#!/usr/bin/env python3
"""Worst pauses where cores are scarce, beside those with a free core.

    scarce.py [--bin=zig-out/bin] [--runs=5] [--quick]

Each load runs with a core left for the collector, then alone on one core (the last: the first serves most of the
system), or with as many threads as there are cores. Printed are, for the longest time between two operations, medians
over the runs, taken in turn, and their ratio to the first: by the wall, which says what a caller waits (on a machine
that does nothing else), and by the thread's own time on a core. The design asks for at most 3 by the wall.

Beside them, in the same turn: the longest gap that a plain loop without any heap sees on the same cores, with as many
loops as the load has threads. Where that gap alone is longer, it is the machine's: what else runs there takes a core
from somebody once all are in use.
"""

import os
import statistics
import subprocess
import sys

CORES = len(os.sched_getaffinity(0))
LAST = str(max(os.sched_getaffinity(0)))
LOOP_MS = 500
LOADS = {  # arguments, in short, and where cores are scarce: on which cores, how many threads, other arguments
    "store": (["store", "--ops=3000000"], ["store", "--ops=400000"], LAST, 1, []),
    "lru": (["lru", "--live=67108864", "--ops=600000"], ["lru", "--live=16777216", "--ops=100000"], LAST, 1, []),
    "trees": (["trees", "--threads=1", "--depth=17"], ["trees", "--threads=1", "--depth=14"], LAST, 1, []),
    "trees, a thread a core": (
        ["trees", "--threads=1", "--depth=17"],
        ["trees", "--threads=1", "--depth=14"],
        None,
        CORES,
        [f"--threads={CORES}"],
    ),
}


def on(cores, command):
    return (["taskset", "-c", cores] if cores else []) + command


def values_of(text):
    return dict(line.split()[:2] for line in text.splitlines() if len(line.split()) >= 2)


def run(folder, arguments, cores):
    command = on(cores, [os.path.join(folder, "bench-trigc")] + arguments)
    values = values_of(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return int(values["worst_ns"]), int(values["worst_on_core_ns"])


def loops(folder, cores, nloops, milliseconds):
    """The longest gap in so many plain loops at once."""
    command = on(cores, [os.path.join(folder, "trigc-demo"), f"--measure-noise={milliseconds}"])
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(nloops)]
    texts = [p.communicate()[0] for p in running]
    if any(p.returncode != 0 for p in running):
        raise SystemExit(f"{' '.join(command)} failed")
    return max(int(values_of(text)["worst_ns"]) for text in texts)


def median_ms(values):
    return statistics.median(values) / 1e6


def main():
    folder, runs, quick = "zig-out/bin", 5, False
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        if name == "--bin":
            folder = value
        elif name == "--runs":
            runs = int(value)
        elif name == "--quick":
            quick = True
        else:
            raise SystemExit(__doc__)
    print(f"{'':24}{'by the wall, ms':>26}{'':8}{'on a core, ms':>26}{'':8}{'plain loops, ms':>20}")
    head = f"{'free':>13}{'scarce':>13}{'ratio':>8}"
    print(f"{'load':24}{head}{head}{'free':>10}{'scarce':>10}")
    for name, (long, short, cores, nthreads, more) in LOADS.items():
        arguments, free, scarce, gaps = short if quick else long, [], [], ([], [])
        milliseconds = LOOP_MS // 5 if quick else LOOP_MS
        for _ in range(runs):
            free.append(run(folder, arguments, None))
            scarce.append(run(folder, arguments + more, cores))
            gaps[0].append(loops(folder, None, 1, milliseconds))
            gaps[1].append(loops(folder, cores, nthreads, milliseconds))
        line = f"{name:24}"
        for i in (0, 1):
            a, b = (median_ms([r[i] for r in side]) for side in (free, scarce))
            line += f"{a:13.2f}{b:13.2f}{b / a if a else 0:8.1f}"
        print(line + f"{median_ms(gaps[0]):10.2f}{median_ms(gaps[1]):10.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
