#!/usr/bin/env python3
"""trigc beside Boehm, mimalloc with malloc and free by hand, Go and Java: the figures to reach, in one run.

    python3 bench/peers.py --rounds=5                all but the loads of 2 GB
    python3 bench/peers.py --rounds=3 --big          only those: 3 GB of memory, some minutes
    python3 bench/peers.py --rounds=3 --only=store,lru62 --peers=trigc,mimalloc
    python3 bench/peers.py --rounds=5 --by=cpu       by processor time, and waits for a core taken off: a busy machine
    python3 bench/peers.py --quick                   a look at each load, in seconds; its figures mean nothing

Uses the programs that `./zigw build bench-programs` installs (--bin), and builds bench/peers/go and bench/peers/java
with the go and javac that it finds. A peer that is not installed is named in one line and left out. In each round
the peers of a load run one after the other, each in a process of its own, beginning with another one each time; a ratio
is taken within its round, then the median over the rounds. All peers must print the same checksum. Prints tables in
Markdown, and writes them with results.json to --out. The exit code is 1 when a program fails or a checksum differs; it
does not depend on the figures.
"""
import argparse
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from figures import wait_for

MB = 1 << 20
PEERS = ("trigc", "boehm", "mimalloc", "go", "zgc", "g1")
MIMALLOC = ("libmimalloc.so.2", "libmimalloc2.0")
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
JAVA = {"zgc": "-XX:+UseZGC", "g1": "-XX:+UseG1GC"}
GOS = ("go", "/usr/local/go/bin/go")
MARK_ROUNDS = 7

# name: (heading, arguments, arguments of a quick look, is it one of the big ones?)
LOADS = {
    "store": ("message store, 200,000 x 1 KB", "store --ops=5000000", "store --ops=60000 --count=10000", False),
    "lru62": ("LRU cache, 62 MB", "lru --live=%d --ops=2000000" % (62 * MB), "lru --live=4194304 --ops=30000", False),
    "lru500": ("LRU cache, 500 MB", "lru --live=%d --ops=1500000" % (500 * MB), "lru --live=8388608 --ops=30000",
               False),
    "gcbench": ("GCBench", "gcbench --depth=18", "gcbench --depth=13", False),
    "trees": ("binary trees, depth 18", "trees --depth=18", "trees --depth=11", False),
    "trees2": ("binary trees, depth 18, 2 threads", "trees --depth=18 --threads=2", "trees --depth=11 --threads=2",
               False),
    "splay": ("Splay", "splay --ops=300000", "splay --ops=2000 --count=500", False),
    "mark": ("marking", "", "", False),
    "store2m": ("message store, 2,000,000 x 1 KB", "store --ops=5000000 --count=2000000",
                "store --ops=60000 --count=20000", True),
    "lru2g": ("LRU cache, 2 GB", "lru --live=%d --ops=3000000" % (2048 * MB), "lru --live=16777216 --ops=30000", True),
}
# What is to be reached: (load, figure, beside whom, ratio at most). "worst" beside None is in milliseconds.
TARGETS = [
    ("store", "worst", "mimalloc", 2.0), ("store", "time", "zgc", 1.0),
    ("store2m", "worst", "mimalloc", 2.0), ("store2m", "time", "zgc", 0.7),
    *[(lru, figure, beside, most) for lru in ("lru62", "lru500", "lru2g")
      for figure, beside, most in (("p99.9", "mimalloc", 2.0), ("worst", None, 1.0), ("time", "mimalloc", 1.25))],
    ("gcbench", "time", "mimalloc", 1.0), ("gcbench", "time", "boehm", 0.5),
    ("trees", "time", "mimalloc", 0.8), ("trees", "time", "boehm", 0.5),
    ("trees2", "time", "mimalloc", 1.0), ("trees2", "time", "boehm", 0.5),
    ("splay", "time", "mimalloc", 1.2),
]
SAME_WORST = 1.5  # "the same at all sizes": the longest gap of the largest cache beside that of the smallest
PEAK = 1.2        # beside Boehm's, every load
MARKS = (("shuffled tree", 3.5), ("ordered tree", 1.3))  # beside Boehm, one marker each


def find_mimalloc():
    paths = [os.path.join(folder, MIMALLOC[0]) for folder in FOLDERS]
    return next((path for path in paths if os.path.exists(path)), None)


class Run:
    """One process: what it printed, its peak memory, its processor time."""

    def __init__(self, command, preload, timeout_s):
        self.error, self.values = None, {}
        environment = dict(os.environ, LD_PRELOAD=preload) if preload else None
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
            status, usage = wait_for(child, time.monotonic() + timeout_s)
            if status is None:
                self.error = "stopped after %d s" % timeout_s
                return
            out.seek(0)
            err.seek(0)
            text, said = out.read().decode(errors="replace"), err.read().decode(errors="replace").strip()
        if status != 0 or not text.endswith("end\n"):
            self.error = "exit status %#x %s" % (status, said.splitlines()[-1] if said else "")
            return
        for line in text.splitlines()[:-1]:
            key, _, value = line.partition(" ")
            self.values[key] = value
        self.checksum = self.values["checksum"]
        self.wall_s, self.cpu_s = float(self.values["seconds"]), usage.ru_utime + usage.ru_stime
        self.worst_ns, self.p999_ns = int(self.values["worst_ns"]), int(self.values["p999_ns"])
        self.on_core_ns = int(self.values.get("worst_on_core_ns", self.worst_ns))
        self.collections, self.peak_kb = int(self.values["collections"]), usage.ru_maxrss


def table(heading, rows):
    widths = [max(len(str(row[i])) for row in [heading, *rows]) for i in range(len(heading))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(w) for cell, w in zip(row, widths)) + " |"
    return "\n".join([line(heading), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)])


def show_ns(ns):
    return "%.2f ms" % (ns / 1e6) if ns >= 1e6 else "%.1f us" % (ns / 1e3)


class Peers:
    def __init__(self, options):
        self.o = options
        self.rows, self.everyone, self.failed = [], [], False
        self.rounds = {}  # load: [{peer: Run}]
        self.programs = self.find_programs()

    # ---- the programs

    def missing(self, peer, why):
        print("peers: %s left out: %s" % (peer, why), file=sys.stderr)

    def build(self, peer, command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout, file=sys.stderr)
            self.missing(peer, "its program does not build")
            self.failed = True
        return done.returncode == 0

    def find_programs(self):
        """peer: (start of its command, library to preload)."""
        found, here = {}, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
        for peer in self.o.peers:
            if peer in ("trigc", "boehm", "mimalloc"):
                path = os.path.join(self.o.bin, "bench-" + peer.replace("mimalloc", "malloc"))
                preload = find_mimalloc() if peer == "mimalloc" else None
                if not os.path.exists(path):
                    self.missing(peer, "no %s; ./zigw build bench-programs makes it" % os.path.basename(path))
                elif peer == "mimalloc" and not preload:
                    self.missing(peer, "%s is not installed (%s)" % MIMALLOC)
                else:
                    found[peer] = ([path], preload)
            elif peer == "go":
                go, program = next(filter(None, map(shutil.which, GOS)), None), os.path.join(self.o.out, "peers-go")
                if not go:
                    self.missing(peer, "no go on PATH")
                elif self.build(peer, [go, "build", "-o", program, *sorted(glob.glob(here + "/go/*.go"))]):
                    found[peer] = ([program], None)
        wanted = [peer for peer in self.o.peers if peer in JAVA]
        java, javac, classes = shutil.which("java"), shutil.which("javac"), os.path.join(self.o.out, "classes")
        if wanted and not (java and javac):
            self.missing(" and ".join(wanted), "no java and javac on PATH")
        elif wanted and self.build("java", [javac, "-d", classes, *sorted(glob.glob(here + "/java/*.java"))]):
            for peer in wanted:
                found[peer] = ([java, JAVA[peer], "-cp", classes, "Peers"], None)
        return {peer: found[peer] for peer in self.o.peers if peer in found}

    # ---- running

    def run(self, load, arguments):
        peers, broken = list(self.programs), {}
        rounds = []
        for i in range(self.o.rounds):
            runs = {}
            for peer in peers[i % len(peers):] + peers[:i % len(peers)]:
                if peer in broken:
                    continue
                if sys.stderr.isatty():
                    sys.stderr.write("\r\033[Kround %d of %d: %s: %s" % (i + 1, self.o.rounds, load, peer))
                start, preload = self.programs[peer]
                runs[peer] = Run(start + arguments.split(), preload, self.o.timeout)
                if runs[peer].error:
                    broken[peer] = runs[peer].error
            rounds.append(runs)
        for peer, error in broken.items():
            print("peers: %s: %s: %s" % (load, peer, error), file=sys.stderr)
            self.failed = True
        rounds = [{peer: run for peer, run in runs.items() if peer not in broken} for runs in rounds]
        sums = {run.checksum for runs in rounds for run in runs.values()}
        if len(sums) > 1:
            print("peers: %s: checksums differ: %s" % (load, {p: r.checksum for p, r in rounds[0].items()}),
                  file=sys.stderr)
            self.failed = True
        self.rounds[load] = rounds

    def seconds(self, run):
        return run.cpu_s if self.o.by == "cpu" else run.wall_s

    def worst(self, run):
        return run.on_core_ns if self.o.by == "cpu" else run.worst_ns

    def median(self, load, peer, value):
        return statistics.median(value(runs[peer]) for runs in self.rounds[load])

    def has(self, load, *peers):
        return load in self.rounds and all(peer in runs for runs in self.rounds[load] for peer in peers)

    # ---- judging

    def add(self, what, ours, beside, ratio, most, reached):
        self.rows.append((what, ours, beside, ratio, most, "yes" if reached else "NO"))

    def compare(self, load, figure, value, show, beside, most):
        if not self.has(load, "trigc", beside):
            return
        ratio = statistics.median(value(runs["trigc"]) / value(runs[beside]) for runs in self.rounds[load])
        self.add("%s: %s" % (LOADS[load][0], figure), show(self.median(load, "trigc", value)),
                 "%s %s" % (beside, show(self.median(load, beside, value))), "%.2f" % ratio, "%.2f" % most,
                 ratio <= most)

    def judge(self, load, figure, beside, most):
        values = {"worst": (self.worst, show_ns), "p99.9": (lambda run: run.p999_ns, show_ns),
                  "time": (self.seconds, lambda s: "%.3f s" % s)}
        value, show = values[figure]
        if beside:
            self.compare(load, figure, value, show, beside, most)
        elif self.has(load, "trigc"):
            worst_ns = self.median(load, "trigc", value)
            self.add("%s: %s" % (LOADS[load][0], figure), show(worst_ns), "", "", "%.0f ms" % most,
                     worst_ns <= most * 1e6)

    def judge_all(self):
        for load, figure, beside, most in TARGETS:
            self.judge(load, figure, beside, most)
        for big in ("lru500", "lru2g"):
            if self.has(big, "trigc") and self.has("lru62", "trigc"):
                ours, small = (self.median(load, "trigc", self.worst) for load in (big, "lru62"))
                self.add("%s: worst, the same as with 62 MB" % LOADS[big][0], show_ns(ours), show_ns(small),
                         "%.2f" % (ours / small), "%.2f" % SAME_WORST, ours <= SAME_WORST * small)
        for load in self.rounds:
            self.compare(load, "peak memory", lambda run: run.peak_kb, lambda kb: "%.0f MB" % (kb / 1024), "boehm",
                         PEAK)

    def list_everyone(self):
        for load, rounds in self.rounds.items():
            for peer in self.programs:
                if not rounds or not self.has(load, peer):
                    continue
                m = lambda value, peer=peer, load=load: self.median(load, peer, value)
                on_core = show_ns(m(lambda r: r.on_core_ns)) if "worst_on_core_ns" in rounds[0][peer].values else "-"
                self.everyone.append((LOADS[load][0], peer, "%.3f" % m(lambda r: r.wall_s),
                                      "%.2f" % m(lambda r: r.cpu_s), show_ns(m(lambda r: r.p999_ns)),
                                      show_ns(m(lambda r: r.worst_ns)), on_core,
                                      "%.0f" % m(lambda r: r.collections), "%.0f" % (m(lambda r: r.peak_kb) / 1024)))

    def mark(self):
        """Marking, by the program that measures it: processor time, both collectors by turns in one process."""
        program = os.path.join(self.o.bin, "bench-mark")
        if not os.path.exists(program) or not {"trigc", "boehm"} <= set(self.programs):
            return
        for graph, least in MARKS:
            command = [program, "--graph=" + graph, "--rounds=%d" % (1 if self.o.quick else MARK_ROUNDS)]
            done = subprocess.run(command + (["--nodes=100000"] if self.o.quick else []), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, timeout=self.o.timeout, check=False)
            found = re.search(r"trigc .*? ([\d.]+) ns.* boehm .*? ([\d.]+) ns.*speed ([\d.]+)", done.stdout, re.I)
            if done.returncode != 0 or not found:
                print("peers: bench-mark: %s" % (done.stderr or done.stdout), file=sys.stderr)
                self.failed = True
                continue
            ours, theirs, speed = found.groups()
            self.add("marking, " + graph, ours + " ns an object", "boehm %s ns" % theirs, speed,
                     "at least %.1f" % least,
                     float(speed) >= least)

    def report(self, started, load_before):
        judged = "processor time, waits for a core taken off" if self.o.by == "cpu" else "wall time"
        reached = sum(row[-1] == "yes" for row in self.rows)
        text = "%d of %d figures are reached. Medians of %d rounds, by %s; load average %.1f before and %.1f after, " \
            "%.0f s.\n\n" % (reached, len(self.rows), self.o.rounds, judged, load_before, os.getloadavg()[0],
                             time.monotonic() - started)
        text += table(("figure", "trigc", "beside", "ratio", "at most", "reached"), self.rows) + "\n\n"
        text += table(("load", "peer", "seconds", "cpu s", "p99.9", "worst", "worst on core", "collections", "peak MB"),
                      self.everyone) + "\n"
        print(text)
        with open(os.path.join(self.o.out, "results.md"), "w", encoding="utf-8") as file:
            file.write(text)
        with open(os.path.join(self.o.out, "results.json"), "w", encoding="utf-8") as file:
            told = lambda run: dict(run.values, gaps="", cpu_s=run.cpu_s, peak_kb=run.peak_kb)
            json.dump({"figures": self.rows, "rounds": {load: [{peer: told(run) for peer, run in runs.items()}
                                                              for runs in rounds]
                                                       for load, rounds in self.rounds.items()}}, file, indent=1)


def options_of():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="comma-separated: " + " ".join(LOADS))
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated: " + " ".join(PEERS))
    parser.add_argument("--big", action="store_true", help="the loads of 2 GB, and the smallest cache beside them")
    parser.add_argument("--quick", action="store_true", help="everything, tiny, one round")
    parser.add_argument("--by", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--bin", default=os.path.join(root, "zig-out", "bin"))
    parser.add_argument("--out", default=os.path.join(root, "zig-out", "peers"))
    parser.add_argument("--timeout", type=int, default=180, help="seconds for one process")
    options = parser.parse_args()
    options.peers = [peer for peer in options.peers.split(",") if peer]
    only = [name for name in options.only.split(",") if name]
    unknown = [name for name in only if name not in LOADS] + [peer for peer in options.peers if peer not in PEERS]
    if unknown or options.rounds < 1:
        parser.error("no such load or peer: " + ", ".join(unknown) if unknown else "--rounds")
    options.loads = only or [name for name, load in LOADS.items()
                             if options.quick or load[3] == options.big or (options.big and name == "lru62")]
    if options.quick:
        options.rounds = 1
    return options


def main():
    options = options_of()
    started, load_before = time.monotonic(), os.getloadavg()[0]
    os.makedirs(options.out, exist_ok=True)
    peers = Peers(options)
    if "trigc" not in peers.programs:
        sys.exit("peers: no bench-trigc in %s; run ./zigw build bench-programs first" % options.bin)
    for load in options.loads:
        if load != "mark":
            peers.run(load, LOADS[load][2 if options.quick else 1])
    peers.judge_all()
    if "mark" in options.loads:
        peers.mark()
    peers.list_everyone()
    peers.report(started, load_before)
    sys.exit(1 if peers.failed else 0)


if __name__ == "__main__":
    main()
