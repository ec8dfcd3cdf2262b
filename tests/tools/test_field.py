#!/usr/bin/env python3
"""The field benchmark judges as it says, and its recorder of mallocs counts what a program does."""

import math
import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "bench")]

import counted
import field

PROGRAM = r"""
#include <stdlib.h>
static void *kept[10];
int main(void) {
    for (int i = 0; i < 1000; i++) { void *volatile p = malloc(100); free(p); }     /* 104 bytes, one allocation */
    for (int i = 0; i < 10; i++) kept[i] = calloc(50, 100);                         /* 5 KB class, to the end */
    void *volatile grown = malloc(24);                                              /* lives 33 allocations: 2^5 */
    for (int i = 0; i < 32; i++) { void *volatile p = malloc(1000); free(p); }
    grown = realloc(grown, 64 << 10);                                               /* ends it, and makes another */
    free(grown);
    return kept[0] == 0;
}
"""

WORKER = """#!/bin/sh
case "$*" in *%(broken)s*) exit 3 ;; esac
printf 'name x\\nns %(ns)s\\ncpu_ns 1\\nobjects 1\\nlive_kb 0\\nbound_kb 8192\\n'
printf 'peak_kb %(peak)s\\ncollections 0\\nend\\n'
"""


class Recorder(unittest.TestCase):
    def test_sizes_and_lifetimes_are_counted(self):
        with tempfile.TemporaryDirectory() as folder:
            source, library = os.path.join(folder, "p.c"), os.path.join(folder, "record.so")
            with open(source, "w", encoding="utf-8") as file:
                file.write(PROGRAM)
            subprocess.run(["gcc", "-O1", "-o", os.path.join(folder, "p"), source], check=True)
            subprocess.run(["gcc", "-O2", "-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library,
                            os.path.join(ROOT, "bench", "field", "record.c")], check=True)
            subprocess.run([os.path.join(folder, "p")], check=True,
                           env=dict(os.environ, LD_PRELOAD=library, FIELD_RECORD=os.path.join(folder, "out")))
            out = [name for name in os.listdir(folder) if name.startswith("out.")]
            self.assertEqual(len(out), 1)
            with open(os.path.join(folder, out[0]), encoding="utf-8") as file:
                lines = file.read().split("\n")
        self.assertEqual(lines[0], "allocations 1044")
        rows = {tuple(map(int, line.split())) for line in lines[1:] if line}
        self.assertEqual(rows, {(104, 0, 1000), (5120, -1, 10), (24, 5, 1), (1000, 0, 32), (65536, 0, 1)})

    def test_the_shipped_sizes_are_whole(self):
        for name in ("sizes_cc1.txt", "sizes_python.txt"):
            with open(os.path.join(ROOT, "bench", "field", name), encoding="utf-8") as file:
                text = file.read()
            total = int(re.search(r"^allocations (\d+)$", text, re.M).group(1))
            rows = re.findall(r"^(\d+) (-?\d+) (\d+)$", text, re.M)
            counted_blocks = sum(int(row[2]) for row in rows)
            self.assertGreater(counted_blocks, 0.98 * total, name)
            self.assertLessEqual(counted_blocks, total, name)


class Driver(unittest.TestCase):
    def run_driver(self, times, broken="nothing", peak=5000, only="short"):
        with tempfile.TemporaryDirectory() as folder:
            for worker, ns in times.items():
                path = os.path.join(folder, "field-" + worker)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(WORKER % {"ns": ns, "broken": broken, "peak": peak})
                os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
            done = subprocess.run([sys.executable, os.path.join(ROOT, "bench", "field.py"), "--runs=1", "--sizes=16",
                                   "--only=" + only, "--bin=" + folder, "--out=" + os.path.join(folder, "out")],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
            return done.returncode, done.stdout.decode(), done.stderr.decode()

    def verdicts(self, text):
        section = text.split("## Everyone")[0]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()
                if line.startswith("| 16")]

    def test_a_figure_within_its_ratios_is_reached(self):
        code, out, _ = self.run_driver({"trigc": 1, "manual": 10, "malloc": 10, "boehm": 100})
        self.assertEqual(code, 0)
        rows = self.verdicts(out)
        self.assertEqual(len([r for r in rows if "pointers" in r[0]]), 4)
        self.assertEqual({r[-1] for r in rows}, {"yes"})

    def test_a_slow_one_is_not(self):
        _, out, _ = self.run_driver({"trigc": 4, "manual": 14, "malloc": 10, "boehm": 100})
        verdict = {(r[0], r[2].split()[0]): r[-1] for r in self.verdicts(out)}
        fastest = next(b for w, b in verdict if "trigc pointers" in w and b != "boehm")
        self.assertEqual(verdict[("16 B, death at once, trigc pointers", fastest)], "NO")  # 0.40 of the fastest
        self.assertEqual(verdict[("16 B, death at once, trigc pointers", "boehm")], "yes")  # 0.04
        self.assertEqual(verdict[("16 B, death at once, trigc manual", fastest)], "NO")  # 1.4 times

    def test_memory_beyond_the_bound_is_not_reached(self):
        _, out, _ = self.run_driver({"trigc": 1, "malloc": 10, "boehm": 100}, peak=9000)
        verdict = {(r[0], r[2].split()[0]): r[-1] for r in self.verdicts(out)}
        self.assertIn("NO", verdict.values())

    def test_a_worker_that_fails_or_is_missing_is_said_and_left_out(self):
        code, out, err = self.run_driver({"trigc": 1, "malloc": 10, "boehm": 100}, broken="--kind=pointers")
        self.assertEqual(code, 0)
        self.assertIn("trigc pointers: exit code 3", err)
        self.assertNotIn("trigc manual", out.split("## Everyone")[0])
        self.assertIn("trigc leaf", out)

    def test_without_workers_it_says_what_to_build(self):
        code, _, err = self.run_driver({})
        self.assertNotEqual(code, 0)
        self.assertIn("bench-programs", err)

    def test_the_fastest_is_of_the_mallocs_alone(self):
        run = lambda ns: type("R", (), {"values": {"ns": ns}, "__getitem__": lambda self, key: self.values[key]})()
        rounds = field.Rounds([{"trigc leaf": run(1), "glibc": run(9), "jemalloc": run(7)},
                               {"trigc leaf": run(1), "glibc": run(8), "jemalloc": run(30)},
                               {"trigc leaf": run(2), "glibc": run(8), "jemalloc": run(7)}], {})
        self.assertEqual(rounds.fastest(), "jemalloc")
        self.assertAlmostEqual(rounds.ratio("trigc leaf", "glibc"), 1 / 8)

    def test_a_time_of_nothing_is_nobodys_figure(self):
        rounds = field.Rounds([{"trigc leaf": {"ns": 4}, "glibc": {"ns": 0}, "jemalloc": {"ns": 8}}], {})
        self.assertEqual(rounds.fastest(), "jemalloc")
        self.assertTrue(math.isnan(rounds.ratio("trigc leaf", "glibc")))

    def test_a_curve_is_sampled_within_its_phases(self):
        lines = [[str(i / 10), "growing" if i < 11 else "idle", str(i), str(i + 100)] for i in range(32)]
        self.assertEqual(field.pick_samples(lines), [
            ("growing 33 %", 3, 103), ("growing 67 %", 7, 107), ("growing 100 %", 10, 110),
            ("idle 5 %", 12, 112), ("idle 20 %", 15, 115), ("idle 50 %", 21, 121), ("idle 100 %", 31, 131)])

    def test_processor_time_is_judged_where_asked_for_and_measured(self):
        run = lambda ns, cpu: {"ns": ns, "cpu_ns": cpu}
        rounds = field.Rounds([{"trigc leaf": run(4, 1), "glibc": run(4, 4)}], {}, "cpu_ns")
        self.assertAlmostEqual(rounds.ratio("trigc leaf", "glibc"), 1 / 4)
        rounds = field.Rounds([{"trigc leaf": run(4, 1), "glibc": run(4, 0)}], {}, "cpu_ns")
        self.assertAlmostEqual(rounds.ratio("trigc leaf", "glibc"), 1)


if __name__ == "__main__":
    sys.exit(counted.main())
