#!/usr/bin/env python3
"""The demo's driver judges as it says: Lox programs by what they print, rows by how they end."""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tools")]

import counted
import mmu

LOX = """#!/bin/sh
cat "${2%.lox}.prints" 2>/dev/null || { echo "no such thing" >&2; exit 70; }
"""
WORKER = """#!/bin/sh
for option; do case "$option" in --map=*) map="${option#--map=}" ;; esac; done
printf '@ 1.000 10 20 30\\n0 2 small 8 8\\n2 1 manual\\n' >"$map"
printf '@ 2.000 10 20 30\\n0 1 large\\n1 1 free\\n2 1 returned\\n' >>"$map"
printf 'ops 1\\nseconds 1\\ngaps 1 1 1 1:1\\nend\\n'
"""
TELLER = """#!/bin/sh
for option; do case "$option" in --events=*) cp "$0.told" "${option#--events=}" ;; esac; done
printf 'ops 1\\nseconds 1\\ngaps 1 1 1 1:1\\nend\\n'
"""
SOURCES = ("child", "clock", "demo", "hdr", "heapmap_read", "mmu", "page", "plan", "probe", "report")


def some_events(chance):
    """What a worker could have written: a run of half a second, pauses of threads, some of them within others, some
    across the run's ends, some that do not count."""
    start = chance.randrange(1, 10**15)
    lines = [f"run {start} {start + 500000000 + chance.randrange(1000)}"]
    for _ in range(chance.choice((0, 1, 300))):
        at, ns = start + chance.randrange(-10**6, 501 * 10**6), int(10 ** chance.uniform(2, 7.5))
        cause = chance.choice(("handshake", "assist", "sweep", "stopped", "wait"))
        lines.append(f"pause {chance.randrange(1, 4)} {at} {at + ns} {cause}")
        if chance.random() < 0.3:
            lines.append(f"phase {at} mark\npause 1 {at + ns // 3} {at + ns // 2} scan")
    return "\n".join(lines) + "\n"


class Driver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """The driver, and a tree of its own: bin/ with a lox that prints a file, the page's template, two programs."""
        cls.folder = tempfile.TemporaryDirectory()
        cls.demo = cls.at("trigc-demo")
        sources = [os.path.join(ROOT, "bench", name + ".c") for name in SOURCES]
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-I" + ROOT,
                        "-I" + os.path.join(ROOT, "include"), *sources, "-o", cls.demo, "-lm"], check=True)
        for name in ("tree", "bin", "tree/examples/lox/programs"):
            os.makedirs(cls.at(name))
        os.symlink(os.path.join(ROOT, "bench"), cls.at("tree/bench"))
        cls.script("bin/lox", LOX)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def at(cls, path):
        return os.path.join(cls.folder.name, path)

    @classmethod
    def script(cls, path, text):
        with open(cls.at(path), "w") as f:
            f.write(text)
        os.chmod(cls.at(path), 0o755)

    def programs(self, **prints_and_expected):
        """name=(what it prints, what it should print); None: the file is not there."""
        folder = self.at("tree/examples/lox/programs")
        for name in os.listdir(folder):
            os.remove(os.path.join(folder, name))
        for name, texts in prints_and_expected.items():
            for ending, text in (("lox", ""), ("prints", texts[0]), ("expected", texts[1])):
                if text is not None:
                    with open(os.path.join(folder, f"{name}.{ending}"), "w") as f:
                        f.write(text)

    def run_demo(self, only):
        done = subprocess.run([self.demo, "--quick", "--only=" + only, "--bin=" + self.at("bin"),
                               "--assets=" + self.at("tree/bench"), "--out=" + self.at("out")],
                              capture_output=True, text=True, timeout=60, check=False)
        with open(self.at("out/index.html")) as f:
            return done.returncode, done.stdout, f.read()

    def test_programs_that_print_what_they_should_are_counted(self):
        self.programs(one=("1\n2\n", "1\n2\n"), two=("", ""), binary_trees=("x\n", "x\n"))
        code, out, _ = self.run_demo("lox")
        self.assertIn("  3 of 3 Lox programs printed what they should\n", out)
        self.assertIn("\nLox: binary_trees\n", out)  # timed as well
        self.assertEqual(code, 0, out)

    def test_a_wrong_program_is_a_row_and_an_exit_code(self):
        self.programs(one=("1\n2\n", "1\nzwei\n"), two=("1", "1"), three=("1\n", "1\n\n"), four=("1\n", None),
                      five=(None, ""), six=("1\nmore\n", "1\n"))
        code, out, _ = self.run_demo("lox")
        table = out[out.index("\nLox: all programs"):]
        self.assertRegex(table, r'\n  one +line 2 of its output is "2" and should be "zwei"\n')
        self.assertRegex(table, r'\n  three +its output ends in line 2, which should be ""\n')
        self.assertRegex(table, r"\n  four +.*four\.expected cannot be read\n")
        self.assertRegex(table, r"\n  five +exit code 70: no such thing\n")
        self.assertRegex(table, r'\n  six +its output goes on in line 2: "more"\n')
        self.assertNotRegex(table, r"\n  two ")
        self.assertIn("\n  1 of 6 Lox programs printed what they should\n", table)
        self.assertEqual(code, 2)

    def test_the_heap_over_time_is_in_the_page(self):
        self.script("bin/bench-trigc", WORKER)
        code, out, page = self.run_demo("heapmap")
        os.remove(self.at("bin/bench-trigc"))
        self.assertEqual(code, 0, out)
        self.assertIn("a picture in the page", out)
        self.assertEqual(re.findall(r'"cells":"(.*?)"', page), ["88M", "Lfr"])

    def curves(self, told):
        """The curve in the page of a worker that wrote this, and that of tools/mmu.py from the same file."""
        self.script("bin/bench-trigc", TELLER)
        with open(self.at("bin/bench-trigc.told"), "w") as f:
            f.write(told)
        code, out, _ = self.run_demo("store")
        os.remove(self.at("bin/bench-trigc"))
        self.assertEqual(code, 0, out)
        with open(self.at("out/results.json")) as f:
            row = next(r for r in json.load(f)["scenes"][0]["rows"] if r["peer"] == "trigc")
        run, threads = mmu.read(self.at("out/store-trigc.events"))
        windows = [ns for ns in mmu.WINDOWS_NS if 10**5 <= ns <= 10**9 and ns < run[1] - run[0]]
        return row["mmu"], [(ns, mmu.mmu(run, threads, ns)) for ns in windows]

    def test_utilisation_is_that_of_the_tool(self):
        for seed in range(12):
            ours, tools = self.curves(some_events(random.Random(seed)))
            self.assertEqual([ns for ns, _ in ours], [ns for ns, _ in tools])
            for (ns, share), (_, other) in zip(ours, tools):
                self.assertAlmostEqual(share, other, places=8, msg=f"seed {seed}, window of {ns} ns")

    def test_utilisation_by_hand(self):
        run = "run 0 20000000\n"
        ours, _ = self.curves(run + "pause 7 1000000 1500000 handshake\npause 7 1200000 1300000 scan\n"
                              "pause 7 5000000 9000000 wait\npause 8 1600000 1700000 sweep\n")
        ours = dict(ours)
        self.assertEqual(max(ours), 17782794)  # shorter than the run
        self.assertEqual(ours[100000], 0)
        self.assertAlmostEqual(ours[1000000], 0.5)
        self.assertAlmostEqual(ours[10000000], 0.95)
        self.assertEqual({share for _, share in self.curves(run)[0]}, {1})

    def test_utilisation_is_of_windows_within_the_run(self):
        run = "run 20000000 40000000\n"
        for pause in ("10000000 21000000", "39000000 50000000"):
            ours = dict(self.curves(run + f"pause 7 {pause} assist\n")[0])
            self.assertAlmostEqual(ours[1000000], 0)
            self.assertAlmostEqual(ours[10000000], 0.9)

    def test_events_that_had_no_room_are_no_curve(self):
        with self.assertRaisesRegex(SystemExit, "no room for 3 events"):
            self.curves("run 0 20000000\npause 7 1000000 1500000 handshake\nlost 3\n")
        with open(self.at("out/results.json")) as f:
            self.assertIn('"mmu":[]', f.read())

    def test_a_row_without_its_program_says_so_and_is_no_error(self):
        code, out, _ = self.run_demo("store")
        self.assertEqual(len(re.findall(r"\n  (?:trigc|boehm) +\S+ is not there: build it first", out)), 2)
        self.assertEqual(code, 0)


if __name__ == "__main__":
    sys.exit(counted.main())
