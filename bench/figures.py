#!/usr/bin/env python3
"""The project's figures to reach, measured: medians of N interleaved runs of trigc and Boehm.

    python3 bench/figures.py --runs=5            every line but the 2 GB ones
    python3 bench/figures.py --runs=5 --full     those too
    python3 bench/figures.py --only=store,trees

Uses the programs that `./zigw build bench-programs` and `./zigw build examples` install (--bin). In each round the
peers of a line run one after the other, each in a process of its own, so that what else the machine does meets all of
them; a ratio is taken within its round, then the median over the rounds. Prints a table in Markdown, and below it the
commands.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

MB = 1 << 20
STORE = "store --ops=5000000"
LRU = {"lru64": "lru --live=%d --ops=2000000" % (64 * MB), "lru512": "lru --live=%d --ops=1500000" % (512 * MB),
       "lru2g": "lru --live=%d --ops=3000000" % (2048 * MB)}
FAULTS = "faults --live=%d" % (2048 * MB)
TREES = {"trees": "trees --depth=18", "trees2": "trees --depth=18 --threads=2"}
ALLOC = {"alloc16": "alloc --size=16 --ops=50000000", "alloc32": "alloc --size=32 --ops=50000000",
         "alloc16x2": "alloc --size=16 --ops=50000000 --threads=2",
         "alloc32x2": "alloc --size=32 --ops=50000000 --threads=2"}
LOX_PROGRAMS = re.compile(r"^(binary_trees|closures.*|string.*|list_churn|linked.*|event.*)\.lox$")
MEMORY_LIMIT = 1.2
PAUSE_GOAL = 0.1


def wait_for(child, deadline):
    """The child's status and its resources; None, None: it was killed at the deadline. No wait of Python's has
    both a deadline and resources, so it asks again every 5 ms: so much too long is a run that does not time itself
    (Lox), on each side."""
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = status
            return status, usage
        if time.monotonic() > deadline:
            child.kill()
            os.wait4(child.pid, 0)
            child.returncode = -9
            return None, None
        time.sleep(0.005)


class Run:
    """One process: its exit, its seconds, its worst gap, its peak memory."""

    def __init__(self, command, timeout_s):
        self.command = command
        self.error = None
        self.seconds = self.worst_ns = self.on_core_ns = self.peak_kb = 0
        self.collections = 0
        with tempfile.TemporaryFile() as out:
            started = time.monotonic()
            child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
            status, usage = wait_for(child, started + timeout_s)
            self.wall = time.monotonic() - started
            if status is None:
                self.error = "stopped after %d s" % timeout_s
                return
            if status != 0:
                self.error = "exit status %#x" % status
                return
            self.peak_kb = usage.ru_maxrss
            out.seek(0)
            self.read(out.read().decode(errors="replace"))

    def read(self, text):
        self.output = text
        self.seconds = self.wall
        if not text.rstrip().endswith("end"):
            return  # not one of the workers
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "seconds":
                self.seconds = float(value)
            elif key == "collections":
                self.collections = int(value)
            elif key == "worst_on_core_ns":
                self.on_core_ns = int(value)
            elif key == "gaps":
                self.worst_ns = int(value.split()[1])


class Figures:
    def __init__(self, options):
        self.o = options
        self.commands = []
        self.rows = []

    def rounds(self, *commands):
        """The commands' runs, round by round; None when one of them failed."""
        rounds = []
        for command in commands:
            self.commands.append(" ".join(command))
        for i in range(self.o.runs):
            runs = []
            for command in commands:
                sys.stderr.write("\r\033[Kround %d of %d: %s" % (i + 1, self.o.runs, " ".join(command[-3:])))
                runs.append(Run(command, self.o.timeout))
            rounds.append(runs)
        sys.stderr.write("\r\033[K")
        return rounds

    def bench(self, collector, arguments):
        return [os.path.join(self.o.bin, "bench-" + collector)] + arguments.split()

    def row(self, what, ours, theirs, ratio, goal, memory=None):
        reached = ratio is not None and ratio <= goal and (memory is None or memory <= MEMORY_LIMIT)
        self.rows.append((what, ours, theirs, "-" if ratio is None else "%.3f" % ratio, "%.2f" % goal,
                          "-" if memory is None else "%.2f" % memory, "yes" if reached else "NO"))
        print("  %-44s %s" % (what, " ".join(self.rows[-1][1:])), file=sys.stderr)

    def compare(self, what, arguments, value, show, goal):
        """One line: value(ours) / value(Boehm's), and the peak memories."""
        rounds = self.rounds(self.bench("trigc", arguments), self.bench("boehm", arguments))
        errors = [run.error for runs in rounds for run in runs if run.error]
        if errors:
            self.row(what, errors[0], "", None, goal)
            return []
        median = statistics.median
        self.row(what, show(median(value(a) for a, _ in rounds)), show(median(value(b) for _, b in rounds)),
                 median(value(a) / value(b) for a, b in rounds), goal, median(a.peak_kb / b.peak_kb for a, b in rounds))
        if rounds[0][0].worst_ns and goal == PAUSE_GOAL:
            self.rows.append(("  the same, waits for a core taken off", show(median(a.on_core_ns for a, _ in rounds)),
                              show(median(b.on_core_ns for _, b in rounds)),
                              "%.3f" % median(a.on_core_ns / b.on_core_ns for a, b in rounds), "", "", ""))
        return [value(a) for a, _ in rounds]

    def pauses(self):
        worst = {}
        milliseconds = lambda ns: "%.3f ms" % (ns / 1e6)
        for name, arguments in [("store", STORE)] + list(LRU.items()):
            if not self.o.wants(name) or (name == "lru2g" and not self.o.full):
                continue
            worst[name] = self.compare("worst pause, " + name, arguments, lambda run: run.worst_ns, milliseconds,
                                       PAUSE_GOAL)
        if worst.get("lru2g") and worst.get("lru64"):
            big, small = statistics.median(worst["lru2g"]), statistics.median(worst["lru64"])
            self.row("worst pause at 2 GB beside 64 MB (trigc)", milliseconds(big), milliseconds(small), big / small,
                     2.0)
            self.machine_alone(milliseconds)
            self.populated(milliseconds)

    def machine_alone(self, show):
        """What the system's page faults take by themselves: 2 GB of fresh memory touched, no collector."""
        runs = [runs[0] for runs in self.rounds(self.bench("trigc", FAULTS)) if not runs[0].error]
        if runs:
            alone = [("fresh memory, 2 GB, no collector", [run.worst_ns for run in runs]),
                     ("the same, waits for a core taken off", [run.on_core_ns for run in runs])]
            self.rows += [("  " + what, show(statistics.median(values)), "", "", "", "", "") for what, values in alone]

    def populated(self, show):
        """The collector's own share: the cache at 2 GB beside 64 MB with all memory touched beforehand."""
        rounds = self.rounds(*(self.bench("trigc", LRU[name] + " --populate") for name in ("lru2g", "lru64")))
        rounds = [runs for runs in rounds if not any(run.error for run in runs)]
        for what, value in (("worst pause at 2 GB beside 64 MB, populated", lambda run: run.worst_ns),
                            ("  the same, waits for a core taken off", lambda run: run.on_core_ns)):
            if rounds:
                median = statistics.median
                big, small = (median(value(runs[i]) for runs in rounds) for i in (0, 1))
                self.row(what, show(big), show(small), big / small, 2.0)

    def times(self):
        for name, arguments in TREES.items():
            if self.o.wants(name):
                self.compare("time, " + name, arguments, lambda run: run.seconds, lambda s: "%.3f s" % s, 1.0)
        for name, arguments in ALLOC.items():
            if self.o.wants(name):
                self.compare("time of one allocation, " + name, arguments, lambda run: run.seconds * 1e9 / 50e6,
                             lambda ns: "%.2f ns" % ns, 0.5)

    def lox(self):
        folder = self.o.programs
        names = sorted(n for n in os.listdir(folder) if LOX_PROGRAMS.match(n)) if os.path.isdir(folder) else []
        for name in names if self.o.wants("lox") else []:
            lox, program = os.path.join(self.o.bin, "lox"), os.path.join(folder, name)
            command = lambda collector: [lox, "--gc=" + collector, program]
            rounds = self.rounds(command("trigc"), command("boehm"), command("none"))
            errors = [run.error for runs in rounds for run in runs if run.error]
            if errors:
                self.row("Lox " + name, errors[0], "", None, 1.25)
                continue
            if any(run.output != runs[0].output for runs in rounds for run in runs):
                self.row("Lox " + name, "different output", "", None, 1.25)
                continue
            median = statistics.median
            seconds = [median(runs[i].wall for runs in rounds) for i in range(3)]
            text = ["%.3f s" % s for s in seconds]
            self.row("Lox %s, beside none" % name, text[0], text[2],
                     median(a.wall / n.wall for a, _, n in rounds), 1.25)
            self.row("Lox %s, beside Boehm" % name, text[0], text[1],
                     median(a.wall / b.wall for a, b, _ in rounds), 1.0,
                     median(a.peak_kb / b.peak_kb for a, b, _ in rounds))

    def report(self):
        heading = ("figure", "trigc", "beside", "ratio", "goal", "memory", "reached")
        widths = [max(len(row[i]) for row in [heading] + self.rows) for i in range(len(heading))]
        line = lambda row: "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |"
        print(line(heading))
        print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
        for row in self.rows:
            print(line(row))
        print("\nMedians of %d runs; memory: peak beside Boehm's in the same round, at most %.1f. Commands:" %
              (self.o.runs, MEMORY_LIMIT))
        for command in self.commands:
            print("    " + " ".join(os.path.relpath(word) if os.path.isabs(word) else word for word in command.split()))


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="the 2 GB lines too")
    parser.add_argument("--only", default="",
                        help="comma-separated: store lru64 lru512 lru2g trees trees2 alloc16 ... lox")
    parser.add_argument("--bin", default=os.path.join(root, "zig-out", "bin"))
    parser.add_argument("--programs", default=os.path.join(root, "examples", "lox", "programs"))
    parser.add_argument("--timeout", type=int, default=180, help="seconds for one process")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    options.wants = lambda name: not only or name in only
    figures = Figures(options)
    figures.pauses()
    figures.times()
    figures.lox()
    figures.report()


if __name__ == "__main__":
    main()
