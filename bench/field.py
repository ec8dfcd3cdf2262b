#!/usr/bin/env python3
"""trigc's allocator beside the field: glibc, jemalloc, mimalloc, tcmalloc and Boehm, in interleaved rounds.

    python3 bench/field.py --runs=5                    everything; about three quarters of an hour
    python3 bench/field.py --runs=3 --only=short,larson --sizes=16,64
    python3 bench/field.py --quick                     a look at each load, in seconds; its figures mean nothing

Uses the workers that `./zigw build bench-programs` installs (--bin). In each round the peers of a load run one after
the other, each in a process of its own, so that what else the machine does meets all of them; a ratio is taken within
its round, then the median over the rounds. "Fastest" is the malloc with the lowest median in that load. A malloc that
is not installed is named once and left out. Prints tables in Markdown, with what is to be reached and whether it is;
--out gets results.json and the curves of memory over time as CSV.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

MB = 1 << 20
SIZES = (16, 32, 64, 256, 1024, 8192, 65536)
MALLOCS = ("glibc", "jemalloc", "mimalloc", "tcmalloc")
PRELOADS = {"jemalloc": ("libjemalloc.so.2", "libjemalloc2"), "mimalloc": ("libmimalloc.so.2", "libmimalloc2.0"),
            "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4")}
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
WORKERS = ("trigc", "manual", "malloc", "boehm")
ZEROED = tuple(name + " zeroed" for name in MALLOCS)  # the same with calloc: what zeroing costs them
EVERYONE = ("trigc pointers", "trigc leaf", "trigc manual") + MALLOCS + ("boehm pointers", "boehm leaf")
# What is to be reached: a collected object beside the fastest malloc/free pair, by size; Boehm's tenth for all but the
# two largest; 500 ns for 64 KB without pointers.
BESIDE_MALLOC = {"trigc pointers": {16: .35, 32: .35, 64: .35, 256: .8, 1024: 2.5, 8192: 2.5},
                 "trigc leaf": {16: .35, 32: .35, 64: .35, 256: .8, 1024: 1.5, 8192: 2.0}}
BESIDE_BOEHM = {16: .1, 32: .1, 64: .1, 256: .1, 1024: .1}
LARGE_LEAF_NS = 500
ZEROED_FROM = 1024  # bytes from which zeroing alone costs more than a malloc: compared with calloc besides
LIVE_BESIDE_FACTOR = 1.3
MANUAL_BESIDE_FASTEST = 1.3
MANUAL_BESIDE_GLIBC = 1.0
SECOND_THREAD = 0.9
DIED_FACTOR = 4
IDLE_FACTOR, IDLE_MORE_KB = 1.3, 4096


def find_preloads():
    """Path of each malloc to preload; what is missing is said in one line."""
    found, missing = {}, []
    for name, (library, package) in PRELOADS.items():
        paths = [os.path.join(folder, library) for folder in FOLDERS]
        path = next((p for p in paths if os.path.exists(p)), None)
        if path:
            found[name] = path
        else:
            missing.append("%s (%s)" % (name, package))
    if missing:
        print("field: not installed, left out: " + ", ".join(missing), file=sys.stderr)
    return found


class Run:
    """One process and the keys and values that it printed."""

    def __init__(self, command, preload, timeout_s):
        environment = dict(os.environ)
        if preload:
            environment["LD_PRELOAD"] = preload
        self.error, self.values = None, {}
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            self.error = "stopped after %d s" % timeout_s
            return
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0 or not text.endswith("end\n"):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            self.error = "exit code %d %s" % (done.returncode, said[-1] if said else "")
            return
        for line in text.splitlines()[:-1]:
            key, _, value = line.partition(" ")
            self.values[key] = value if key == "name" else float(value)

    def __getitem__(self, key):
        return self.values[key]


class Rounds:
    """The runs of one load: rounds[i][peer]. Peers that failed once are gone from it, with a word. `time` is the key
    that they are judged by: ns, or cpu_ns where asked for and measured."""

    def __init__(self, rounds, errors, by="ns"):
        self.rounds, self.errors = rounds, errors
        self.peers = list(rounds[0])
        self.time = by if by == "ns" or all(run[by] for r in rounds for run in r.values()) else "ns"

    def median(self, peer, key):
        return statistics.median(r[peer][key] for r in self.rounds)

    def ratio(self, peer, other, key=None):
        """Not a number where no round has a time of the other's: so short a one may come out as 0."""
        key = key or self.time
        ratios = [r[peer][key] / r[other][key] for r in self.rounds if r[other][key] > 0]
        return statistics.median(ratios) if ratios else math.nan

    def fastest(self, among=MALLOCS):
        mallocs = [p for p in self.peers if p in among and self.median(p, self.time) > 0]
        return min(mallocs, key=lambda p: self.median(p, self.time)) if mallocs else None


def show_ns(ns):
    return "%.2f" % ns if ns < 100 else "%.0f" % ns


def show_mb(kb):
    return "%.1f" % (kb / 1024)


def table(heading, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(heading)] + rows) for i in range(len(heading))]
    line = lambda row: "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |"
    return "\n".join([line(heading), "|" + "|".join("-" * (w + 2) for w in widths) + "|"] + [line(r) for r in rows])


def pick_samples(lines):
    """(heading, live MB, resident MB) at a few points of each phase of a curve's lines, in the order of the phases."""
    phases = {}
    for seconds, phase, live, resident in lines:
        phases.setdefault(phase, []).append((float(seconds), float(live), float(resident)))
    picked = []
    for phase, samples in phases.items():
        first, last = samples[0][0], samples[-1][0]
        for percent in (5, 20, 50, 100) if phase == "idle" else (100,) if phase == "trimmed" else (33, 67, 100):
            at = first + (last - first) * percent / 100
            _, live, resident = min(samples, key=lambda sample: abs(sample[0] - at))
            picked.append(("%s %d %%" % (phase, percent), live, resident))
    return picked


class Field:
    def __init__(self, options):
        self.o = options
        self.preloads = find_preloads()
        self.rows = []     # judged: what, figure, beside, ratio, at most, memory, reached
        self.all_ns = []   # one row a load: every peer's time
        self.all_cpu = []  # its processor time
        self.all_mb = []   # and its peak
        self.all_zeroed = []  # the mallocs' time with zeroing, for the larger sizes
        self.sections = [] # further tables
        self.results = {}

    # ---- running

    def command(self, peer, arguments):
        worker = {"trigc": "trigc", "boehm": "boehm"}.get(peer.split()[0], "malloc")
        kind = "pointers" if peer.endswith(("pointers", "zeroed")) else "leaf"
        if peer == "trigc manual":
            worker = "manual"
        malloc = peer.split()[0]
        preload = self.preloads.get(malloc)
        if malloc in PRELOADS and not preload:
            return None
        path = os.path.join(self.o.bin, "field-" + worker)
        if not os.path.exists(path):
            return None
        return [path, "--kind=" + kind] + arguments.split(), preload

    def run(self, name, peers, arguments, runs=None):
        """Rounds of `arguments` on the peers. A peer may be a triple (label, peer, more arguments)."""
        runs = min(runs or self.o.runs, self.o.runs)
        commands = {}
        for peer in peers:
            label, which, more = (peer, peer, "") if isinstance(peer, str) else peer
            command = self.command(which, arguments.replace("{peer}", label.replace(" ", "-")) + " " + more)
            if command:
                commands[label] = command
        rounds, errors = [], {}
        for i in range(runs):
            rounds.append({})
            for label, (command, preload) in commands.items():
                if label in errors:
                    continue
                sys.stderr.write("\r\033[Kround %d of %d: %s: %s" % (i + 1, runs, name, label))
                sys.stderr.flush()
                run = Run(command, preload, self.o.timeout)
                if run.error:
                    errors[label] = run.error
                rounds[-1][label] = run
        sys.stderr.write("\r\033[K")
        for label, error in errors.items():
            print("field: %s: %s: %s" % (name, label, error), file=sys.stderr)
        rounds = [{label: run for label, run in r.items() if label not in errors} for r in rounds]
        self.results[name] = [{label: run.values for label, run in r.items()} for r in rounds]
        return Rounds(rounds, errors, self.o.by)

    # ---- judging

    def add(self, what, figure, beside, ratio, most, memory, reached):
        self.rows.append((what, figure, beside, ratio, most, memory, "yes" if reached else "NO"))
        print("  " + " | ".join(self.rows[-1]), file=sys.stderr)

    def memory(self, rounds, peer):
        peak, bound = rounds.median(peer, "peak_kb"), rounds.median(peer, "bound_kb")
        return "%s / %s" % (show_mb(peak), show_mb(bound)), peak <= bound

    def judge(self, what, rounds, peer, other, most, with_memory=True):
        """One line: the peer's time beside another's."""
        if peer not in rounds.peers or other not in rounds.peers:
            return
        ratio = rounds.ratio(peer, other)
        text, fits = self.memory(rounds, peer)
        self.add("%s, %s" % (what, peer), show_ns(rounds.median(peer, rounds.time)),
                 "%s %s" % (other, show_ns(rounds.median(other, rounds.time))), "%.2f" % ratio, "%.2f" % most,
                 text if with_memory else "", ratio <= most and (fits or not with_memory))

    def everyone(self, what, rounds, peers=EVERYONE):
        if not rounds.peers:
            return
        show = lambda key, form: [form(rounds.median(p, key)) if p in rounds.peers else "-" for p in peers]
        self.all_ns.append([what] + show("ns", show_ns))
        if any(rounds.median(p, "cpu_ns") for p in rounds.peers):
            self.all_cpu.append([what] + show("cpu_ns", show_ns))
        if any(p in ZEROED for p in rounds.peers):
            self.all_zeroed.append([what] + [show_ns(rounds.median(p, rounds.time)) if p in rounds.peers else "-"
                                             for p in ZEROED])
        bound = max(rounds.median(p, "bound_kb") for p in rounds.peers)
        self.all_mb.append([what] + show("peak_kb", show_mb) + [show_mb(bound)])

    def judge_short(self, what, rounds, size, factor):
        fastest = rounds.fastest()
        for peer in ("trigc pointers", "trigc leaf"):
            if size in BESIDE_MALLOC[peer] and fastest:
                self.judge(what, rounds, peer, fastest, BESIDE_MALLOC[peer][size] * factor)
            if peer == "trigc pointers" and size in BESIDE_MALLOC[peer] and rounds.fastest(ZEROED):
                self.judge(what, rounds, peer, rounds.fastest(ZEROED), BESIDE_MALLOC[peer][size] * factor, False)
            if size in BESIDE_BOEHM:
                self.judge(what, rounds, peer, peer.replace("trigc", "boehm"), BESIDE_BOEHM[size] * factor, False)
        if size == 65536 and "trigc leaf" in rounds.peers:
            ns = rounds.median("trigc leaf", rounds.time)
            text, fits = self.memory(rounds, "trigc leaf")
            self.add("%s, trigc leaf" % what, show_ns(ns), "", "", "%d ns" % (LARGE_LEAF_NS * factor), text,
                     ns <= LARGE_LEAF_NS * factor and fits)
        if factor == 1:
            self.judge_manual(what, rounds)

    def judge_manual(self, what, rounds):
        fastest = rounds.fastest()
        if fastest:
            self.judge(what, rounds, "trigc manual", fastest, MANUAL_BESIDE_FASTEST)
            if fastest != "glibc":
                self.judge(what, rounds, "trigc manual", "glibc", MANUAL_BESIDE_GLIBC, False)

    # ---- the loads

    def short(self):
        for size in self.o.sizes:
            for delay in (0, 1000):
                if self.o.quick and delay != (size == 256) * 1000:
                    continue
                what = "%d B, %s" % (size, "death delayed by 1,000" if delay else "death at once")
                load = "--load=short --size=%d --delay=%d --ms=%d" % (size, delay, self.o.ms)
                rounds = self.run(what, EVERYONE + (ZEROED if size >= ZEROED_FROM else ()), load)
                self.everyone(what, rounds)
                self.judge_short(what, rounds, size, 1)

    def beside(self):
        peers = [p for p in EVERYONE if p != "trigc manual"]
        for size in self.o.sizes:
            for delay in (0, 1000):
                what = "%d B, %s, 100 MB beside" % (size, "delayed" if delay else "at once")
                rounds = self.run(what, peers, "--load=short --size=%d --delay=%d --beside=100 --ms=%d" %
                                  (size, delay, self.o.ms))
                self.everyone(what, rounds)
                self.judge_short(what, rounds, size, LIVE_BESIDE_FACTOR)

    def threads(self):
        for size in self.o.sizes:
            for delay in (0, 1000):
                what = "%d B, %s, second thread" % (size, "delayed" if delay else "at once")
                peers = [("%s x%d" % (p, n), p, "--threads=%d" % n)
                         for p in ("trigc pointers", "trigc leaf", "mimalloc") for n in (1, 2)]
                rounds = self.run(what, peers, "--load=short --size=%d --delay=%d --ms=%d" % (size, delay, self.o.ms))
                scale = 2 if rounds.time == "cpu_ns" else 1  # both threads' time for an object, were they undisturbed
                gain = lambda r, p: scale * r[p + " x1"][rounds.time] / r[p + " x2"][rounds.time]
                for peer in ("trigc pointers", "trigc leaf"):
                    if not {peer + " x2", peer + " x1", "mimalloc x1", "mimalloc x2"} <= set(rounds.peers):
                        continue
                    ours = statistics.median(gain(r, peer) for r in rounds.rounds)
                    theirs = statistics.median(gain(r, "mimalloc") for r in rounds.rounds)
                    ratio = statistics.median(gain(r, peer) / gain(r, "mimalloc") for r in rounds.rounds)
                    text, fits = self.memory(rounds, peer + " x2")
                    self.add("%s, %s" % (what, peer), "gains %.2f" % ours, "mimalloc %.2f" % theirs, "%.2f" % ratio,
                             "at least %.2f" % SECOND_THREAD, text, ratio >= SECOND_THREAD and fits)

    def larson(self):
        for threads in (1, 2):
            what = "larson, %d thread%s" % (threads, "s" if threads > 1 else "")
            rounds = self.run(what, EVERYONE, "--load=larson --threads=%d --ms=%d" % (threads, self.o.ms))
            self.everyone(what, rounds)
            self.judge_manual(what, rounds)

    def handoff(self):
        for size in [s for s in self.o.sizes if s <= 8192]:
            what = "%d B, freed on the other thread" % size
            rounds = self.run(what, EVERYONE, "--load=handoff --threads=2 --size=%d --ms=%d" % (size, self.o.ms))
            self.everyone(what, rounds)
            self.judge_manual(what, rounds)

    def measured_sizes(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "field")
        for program in ("cc1", "python"):
            for threads in (1, 2):
                what = "sizes and lifetimes of %s, %d thread%s" % (program, threads, "s" if threads > 1 else "")
                rounds = self.run(what, EVERYONE, "--load=sizes --threads=%d --ms=%d --data=%s" %
                                  (threads, self.o.ms, os.path.join(folder, "sizes_%s.txt" % program)))
                self.everyone(what, rounds)
                self.judge_manual(what, rounds)

    def sawtooth(self):
        for pause in (0, 100):
            what = "sawtooth of %d MB%s" % (self.o.live_mb, ", %d ms idle at both ends" % pause if pause else "")
            rounds = self.run(what, EVERYONE, "--load=sawtooth --window=%d --pause=%d --ms=%d" %
                              (self.o.live_mb * MB, pause, max(self.o.ms, 0 if self.o.quick else 3000)))
            self.everyone(what, rounds)
            self.judge_manual(what, rounds)
            rows = [[p, show_ns(rounds.median(p, "ns")), "%.0f" % rounds.median(p, "faults"),
                     show_mb(rounds.median(p, "peak_kb"))] for p in rounds.peers]
            self.sections.append((what, table(("peer", "ns an object", "page faults a second", "peak MB"), rows)))

    def curve_path(self, slug):
        """Where each peer writes its curve; run() puts the name in."""
        return os.path.join(self.o.out, slug + "-{peer}.csv")

    def curve(self, what, rounds, slug):
        """A few samples of each phase of every peer's last curve."""
        heading, rows = [], []
        for peer in rounds.peers:
            with open(self.curve_path(slug).replace("{peer}", peer.replace(" ", "-")), encoding="utf-8") as file:
                picked = pick_samples([line.split(",") for line in file.read().splitlines()[1:]])
            if len(picked) >= len(heading):
                heading = [name for name, _, _ in picked]
            rows.append([peer] + ["%.0f / %.0f" % (live, resident) for _, live, resident in picked])
        rows = [row + [""] * (len(heading) + 1 - len(row)) for row in rows]
        if rows:
            self.sections.append((what + ": live / resident MB over time", table(["peer"] + heading, rows)))

    def fragment(self):
        rounds = self.fragmented("nine tenths of a mixed heap die at random, then ten seconds idle", "", "fragment")
        for peer in [p for p in rounds.peers if p.startswith("trigc")]:
            live, idle = rounds.median(peer, "survivors_kb"), rounds.median(peer, "idle_kb")
            self.add("fragmentation, ten seconds after the deaths, %s" % peer, show_mb(idle) + " MB",
                     "live %s MB" % show_mb(live), "%.2f" % (idle / live), "%.2f" % DIED_FACTOR, "",
                     idle <= DIED_FACTOR * live)
            boehm = peer.replace("trigc", "boehm").replace("manual", "leaf")
            if boehm in rounds.peers:
                ratio = rounds.ratio(peer, boehm, "peak_kb")
                self.add("fragmentation, peak, %s" % peer, show_mb(rounds.median(peer, "peak_kb")) + " MB",
                         "%s %s MB" % (boehm, show_mb(rounds.median(boehm, "peak_kb"))), "%.2f" % ratio, "1.00", "",
                         ratio <= 1)

    def idle(self):
        rounds = self.fragmented("a peak's nine tenths die, then ten seconds idle", "--block", "idle")
        for peer in [p for p in rounds.peers if p.startswith("trigc")]:
            live, idle = rounds.median(peer, "survivors_kb"), rounds.median(peer, "idle_kb")
            most = IDLE_FACTOR * live + IDLE_MORE_KB
            self.add("ten seconds idle after a peak, %s" % peer, show_mb(idle) + " MB", "live %s MB" % show_mb(live),
                     "%.2f" % (idle / live), show_mb(most) + " MB", "", idle <= most)

    def fragmented(self, what, more, slug):
        """One round: what is asked is memory, not time."""
        arguments = "--load=fragment --window=%d --pause=%d --curve=%s %s" % (
            self.o.live_mb * MB, 100 if self.o.quick else 10000, self.curve_path(slug), more)
        rounds = self.run(what, EVERYONE, arguments, runs=1)
        keys = ("peak_kb", "survivors_kb", "pages_kb", "died_kb", "idle_kb", "trimmed_kb")
        rows = [[p] + [show_mb(rounds.median(p, key)) for key in keys] for p in rounds.peers]
        heading = ("peer", "peak MB", "live after", "pages it lies in", "resident after 1 s", "after 10 s",
                   "after a trim")
        self.sections.append((what, table(heading, rows)))
        self.curve(what, rounds, slug)
        return rounds

    def buffers(self):
        what = "a proxy's buffers"
        arguments = "--load=buffers --ms=%d --pause=%d" % ((150, 150) if self.o.quick else (3000, 10000))
        arguments += " --curve=" + self.curve_path("buffers")
        peers = [p for p in EVERYONE if not p.endswith("pointers")]
        rounds = self.run(what, peers, arguments, runs=1)
        self.everyone(what, rounds)
        self.judge_manual(what, rounds)
        keys = ("live_kb", "busy_kb", "quiet_kb", "idle_kb", "held_kb")
        rows = [[p, show_ns(rounds.median(p, "ns"))] + [show_mb(rounds.median(p, key)) for key in keys]
                for p in rounds.peers]
        heading = ("peer", "ns a request", "live MB, busy", "resident, busy", "quiet", "idle", "live MB, idle")
        self.sections.append((what, table(heading, rows)))
        self.curve(what, rounds, "buffers")

    def limit(self):
        rows = []
        for size in self.o.sizes:
            row = ["%d B" % size]
            for zero in ("--zero", ""):
                for window in (1, 4, 64):
                    rounds = self.run("limit %d B, %d MB%s" % (size, window, ", zeroed" if zero else ""), ["glibc"],
                                      "--load=limit --size=%d --window=%d --ms=%d %s" %
                                      (size, window * MB, max(self.o.ms // 4, 20), zero))
                    row.append(show_ns(rounds.median("glibc", "ns")) if rounds.peers else "-")
            rows.append(row)
        self.sections.append(("the limit: a bump through a window, ns an object", table(
            ("size", "1 MB zeroed", "4 MB zeroed", "64 MB zeroed", "1 MB", "4 MB", "64 MB"), rows)))

    # ---- the report

    def report(self, started, load_before):
        print("## Reached or not\n")
        print(table(("load", "ns", "beside", "ratio", "at most", "peak / bound MB", "reached"), self.rows))
        missed = sum(row[-1] != "yes" for row in self.rows)
        print("\n%d of %d reached." % (len(self.rows) - missed, len(self.rows)))
        if self.all_zeroed:
            print("\n## calloc and free, ns an object\n")
            print(table(("load",) + MALLOCS, self.all_zeroed))
        if self.all_ns:
            print("\n## Everyone's time, ns an object\n")
            print(table(("load",) + EVERYONE, self.all_ns))
            if self.all_cpu:
                print("\n## Processor time, ns an object (collector threads included)\n")
                print(table(("load",) + EVERYONE, self.all_cpu))
            print("\n## Everyone's peak, MB (bound: live + max(live, 8 MB))\n")
            print(table(("load",) + EVERYONE + ("bound",), self.all_mb))
        for title, text in self.sections:
            print("\n## %s\n\n%s" % (title[0].upper() + title[1:], text))
        print("\n%s: medians of %d rounds%s, %d s in all; load average %.1f before, %.1f after." %
              (machine(), self.o.runs, "" if self.o.by == "ns" else ", judged by processor time",
               time.monotonic() - started, load_before, os.getloadavg()[0]))
        with open(os.path.join(self.o.out, "results.json"), "w", encoding="utf-8") as file:
            json.dump(self.results, file, indent=1)


def machine():
    model = "unknown processor"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return "%s, %d cores" % (model, os.cpu_count())


GROUPS = {"short": Field.short, "beside": Field.beside, "threads": Field.threads, "larson": Field.larson,
          "handoff": Field.handoff, "sizes": Field.measured_sizes, "sawtooth": Field.sawtooth,
          "fragment": Field.fragment, "idle": Field.idle, "buffers": Field.buffers, "limit": Field.limit}
QUICK = ("short", "larson", "handoff", "sizes", "sawtooth", "fragment", "buffers")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--only", default="", help="comma-separated: " + " ".join(GROUPS))
    parser.add_argument("--sizes", default="", help="comma-separated, of %s" % (SIZES,))
    parser.add_argument("--ms", type=int, default=400, help="milliseconds that a process measures")
    parser.add_argument("--by", choices=("ns", "cpu_ns"), default="ns",
                        help="judge by wall time, or by processor time where other programs run beside")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bin", default=os.path.join(root, "zig-out", "bin"))
    parser.add_argument("--out", default=os.path.join(root, "zig-out", "field"))
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one process")
    options = parser.parse_args()
    options.live_mb = 8 if options.quick else 64
    options.sizes = [int(s) for s in options.sizes.split(",") if s] or ((16, 256, 65536) if options.quick else SIZES)
    if options.quick:
        options.runs, options.ms = 1, 20
    wanted = [name for name in options.only.split(",") if name] or (QUICK if options.quick else GROUPS)
    unknown = [name for name in wanted if name not in GROUPS]
    if unknown:
        parser.error("--only: no load %s" % ", ".join(unknown))
    os.makedirs(options.out, exist_ok=True)
    started, load_before = time.monotonic(), os.getloadavg()[0]
    if not any(os.path.exists(os.path.join(options.bin, "field-" + worker)) for worker in WORKERS):
        sys.exit("field: no worker in %s; run ./zigw build bench-programs first" % options.bin)
    field = Field(options)
    for name in wanted:
        GROUPS[name](field)
    field.report(started, load_before)


if __name__ == "__main__":
    main()
