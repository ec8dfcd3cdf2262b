#!/usr/bin/env python3
"""Random stress for as long as asked: the programs that edit heaps at random, with delays in every step of the protocol
and every check on, in turn under three builds: all checks, ThreadSanitizer, AddressSanitizer with UBSan.

    soak.py [--minutes=60] [--out=FOLDER] [--builds=checks,threads,memory] BUILD:PROGRAM=PATH...

Each run has a seed of its own, printed with its figures. The first failure ends everything, with exit code 1; its whole
output is kept in FOLDER and its seed, build and program are named. The figures of all runs are summed at the end.
"""

import argparse
import collections
import os
import pathlib
import random
import re
import subprocess
import sys
import time

ROUND_S = 45  # of each property run, about
COUNTS = re.compile(r"(?:(\d+) and )?(\d+) (operations|cycles|comparisons|runs and touches)")
TOTALS = ("operations", "cycles", "comparisons", "runs and touches")


class Build:
    """How many operations fill a round differs by a hundred between builds and machines: found while running."""

    def __init__(self, name):
        self.name = name
        self.operations = 50000
        self.programs = {}
        self.totals = collections.Counter()
        self.runs = 0
        self.seconds = 0.0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", default="soak-out")
    parser.add_argument("--builds", default="checks,threads,memory")
    parser.add_argument("programs", nargs="+", metavar="BUILD:PROGRAM=PATH")
    return parser.parse_args()


def builds_of(arguments):
    builds = {name: Build(name) for name in arguments.builds.split(",")}
    for entry in arguments.programs:
        name, path = entry.split("=", 1)
        build, program = name.split(":", 1)
        if build in builds:
            builds[build].programs[program] = os.path.abspath(path)
    empty = [build.name for build in builds.values() if not build.programs]
    if empty:
        sys.exit(f"soak: no program for {', '.join(empty)}")
    return list(builds.values())


def settings_of(build, program, rng):
    """The environment of one run, and the tests of the program that take part."""
    seed = rng.randrange(1, 10**9)
    if program == "stress_property":
        delay = rng.choice([10, 20, 50])
        return seed, ["with_changing_switches"], {
            "TRI_PROPERTY_SEED": seed,
            "TRI_PROPERTY_OPS": build.operations,
            "TRI_PROPERTY_THREADS": rng.choice([2, 5, 8]),
            "TRI_PROPERTY_DELAY": delay,
        }
    if program == "stress_handshake":
        return seed, [], {"TRI_TEST_SEED": seed, "TRI_HANDSHAKE_SECONDS": 10}
    return seed, ["delay"], {"TRI_TEST_SEED": seed, "TRI_COROUTINE_RUNS": 20000}


def run_one(build, program, rng, out):
    seed, filters, settings = settings_of(build, program, rng)
    environment = dict(os.environ, **{key: str(value) for key, value in settings.items()})
    start = time.monotonic()
    done = subprocess.run([build.programs[program], *filters], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    seconds = time.monotonic() - start
    text = done.stdout.decode(errors="replace")
    counts = collections.Counter()
    for line in text.split("\n"):
        if re.match(r"(property: .* in [0-9.]+ s|handshake: \d|coroutines: \d)", line):
            for first, second, what in COUNTS.findall(line):
                counts[what] += int(first or 0) + int(second)
    build.runs += 1
    build.seconds += seconds
    build.totals.update(counts)
    if program == "stress_property":
        build.operations = max(5000, int(build.operations * min(4, ROUND_S / max(seconds, 0.1))))
    figures = ", ".join(f"{counts[what]:,} {what}" for what in TOTALS if counts[what])
    print(f"soak: {build.name:8} {program:18} seed {seed:<9} {seconds:6.1f} s  {figures}", flush=True)
    if done.returncode == 0 and "0 failed" in text and counts:
        return True
    log = pathlib.Path(out) / f"{build.name}-{program}-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)
    named = " ".join(f"{key}={value}" for key, value in settings.items())
    print(f"soak: FAILED with exit code {done.returncode}: {log}\n      {named} {build.programs[program]} "
          f"{' '.join(filters)}")
    return False


def main():
    arguments = parse_arguments()
    builds = builds_of(arguments)
    rng = random.Random()
    start = time.monotonic()
    fine = True
    while fine:
        for build in builds:
            fine = fine and all(run_one(build, program, rng, arguments.out) for program in sorted(build.programs))
        if time.monotonic() - start >= arguments.minutes * 60:
            break
    for build in builds:
        figures = ", ".join(f"{build.totals[what]:,} {what}" for what in TOTALS)
        print(f"soak: {build.name:8} {build.runs} runs in {build.seconds / 60:.1f} minutes: {figures}")
    print(f"soak: {'nothing lost' if fine else 'FAILED'} in {(time.monotonic() - start) / 60:.1f} minutes")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
