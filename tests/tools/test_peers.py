#!/usr/bin/env python3
"""bench/peers.py judges as it says, compares checksums, leaves out what is missing; and its programs, those in Go and
Java too where these are installed, run small loads to the same checksums."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "bench")]

import counted
import peers

WORKER = """#!/bin/sh
printf 'name x\\nseconds %(seconds)s\\nchecksum %(sum)s\\np999_ns %(p999)d\\nworst_ns %(worst)d\\n'
printf 'worst_on_core_ns 5\\ncollections 1\\nend\\n'
exit %(status)d
"""
GOOD = {"seconds": 1.0, "sum": "ab", "p999": 1000, "worst": 100000, "status": 0}
C_SOURCES = ("clock", "events", "hdr", "probe", "work_alloc", "work_faults", "work_gcbench", "work_list", "work_lru",
             "work_splay", "work_store", "work_tides", "work_trees", "worker")
QUICK = ("store --ops=3000 --count=700", "lru --live=1000000 --ops=3000", "trees --depth=8",
         "trees --depth=8 --threads=2", "gcbench --depth=9", "splay --ops=300 --count=100")


class Driver(unittest.TestCase):
    def run_driver(self, workers, *arguments):
        """Workers are bench-NAME scripts that print what they are told to: name=changes to GOOD."""
        with tempfile.TemporaryDirectory() as folder:
            for name, changes in workers.items():
                path = os.path.join(folder, "bench-" + name)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(WORKER % {**GOOD, **changes})
                os.chmod(path, 0o755)
            done = subprocess.run([sys.executable, os.path.join(ROOT, "bench", "peers.py"), "--bin=" + folder,
                                   "--out=" + os.path.join(folder, "out"), "--rounds=2", *arguments],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
            results = os.path.join(folder, "out", "results.json")
            figures = []
            if os.path.exists(results):
                with open(results, encoding="utf-8") as file:
                    figures = json.load(file)["figures"]
            return done.returncode, {(f[0].split(": ")[1], f[2].split()[0] if f[2] else ""): f[-1] for f in figures}, \
                done.stdout + done.stderr

    def test_ratios_are_judged(self):
        code, reached, _ = self.run_driver({"trigc": {}, "boehm": {"seconds": 2.0}}, "--only=gcbench",
                                           "--peers=trigc,boehm")
        self.assertEqual((code, reached), (0, {("time", "boehm"): "yes", ("peak memory", "boehm"): "yes"}))
        _, reached, _ = self.run_driver({"trigc": {}, "boehm": {"seconds": 1.9}}, "--only=gcbench",
                                        "--peers=trigc,boehm")
        self.assertEqual(reached[("time", "boehm")], "NO")

    def test_a_worst_gap_is_judged_by_itself_and_beside_the_smallest_cache(self):
        _, reached, _ = self.run_driver({"trigc": {"worst": 1000000}}, "--only=lru62,lru500", "--peers=trigc")
        self.assertEqual(reached, {("worst", ""): "yes", ("worst, the same as with 62 MB", "1.00"): "yes"})
        _, reached, _ = self.run_driver({"trigc": {"worst": 1000001}}, "--only=lru62", "--peers=trigc")
        self.assertEqual(reached, {("worst", ""): "NO"})

    def test_waits_for_a_core_are_taken_off_where_asked_for(self):
        _, reached, _ = self.run_driver({"trigc": {"worst": 2000000}}, "--only=lru62", "--peers=trigc", "--by=cpu")
        self.assertEqual(reached, {("worst", ""): "yes"})

    def test_a_checksum_that_differs_fails(self):
        code, _, said = self.run_driver({"trigc": {}, "boehm": {"sum": "cd"}}, "--only=trees", "--peers=trigc,boehm")
        self.assertEqual(code, 1)
        self.assertIn("checksums differ", said)

    def test_a_program_that_fails_is_said(self):
        code, reached, said = self.run_driver({"trigc": {}, "boehm": {"status": 3}}, "--only=trees",
                                              "--peers=trigc,boehm")
        self.assertEqual((code, reached), (1, {}))
        self.assertIn("trees: boehm: exit status 0x300", said)

    def test_what_is_not_there_is_said_and_left_out(self):
        code, reached, said = self.run_driver({"trigc": {}}, "--only=trees", "--peers=trigc,boehm")
        self.assertEqual((code, reached), (0, {}))
        self.assertIn("boehm left out", said)
        code, _, said = self.run_driver({}, "--only=trees", "--peers=trigc")
        self.assertEqual(code, 1)
        self.assertIn("bench-programs", said)

    def test_every_load_has_a_target_or_its_memory(self):
        for load, _, beside, _ in peers.TARGETS:
            self.assertIn(load, peers.LOADS)
            self.assertIn(beside, (None, *peers.PEERS))


class Programs(unittest.TestCase):
    """Small loads: malloc by hand, trigc, Go, Java; the same checksums, sane figures."""

    def values(self, command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), command)
        self.assertTrue(done.stdout.endswith("end\n"), command)
        values = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
        self.assertGreater(float(values["seconds"]), 0)
        self.assertLessEqual(int(values["p50_ns"]), int(values["p999_ns"]), command)
        self.assertLessEqual(int(values["p999_ns"]), int(values["worst_ns"]), command)
        self.assertLessEqual(int(values["worst_ns"]), float(values["seconds"]) * 1e9 * 1.01, command)
        return values["checksum"]

    def test_all_do_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            sources = [os.path.join(ROOT, "bench", name + ".c") for name in C_SOURCES]
            malloc = os.path.join(folder, "malloc")
            subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O1", "-D_GNU_SOURCE", "-DADAPTER_MALLOC",
                            "-I" + ROOT, "-I" + os.path.join(ROOT, "include"), *sources, "-o", malloc, "-lpthread",
                            "-lm"], check=True)
            commands = [[malloc]]
            trigc = os.path.join(os.environ.get("TRI_TEST_PREFIX", os.path.join(ROOT, "zig-out")), "bin", "bench-trigc")
            if os.path.exists(trigc):
                commands.append([trigc])
            here = os.path.join(ROOT, "bench", "peers")
            go = next(filter(None, map(shutil.which, peers.GOS)), None)
            if go and os.path.isdir(subprocess.run([go, "env", "GOCACHE"], stdout=subprocess.PIPE, text=True,
                                                   check=False).stdout.strip()):
                subprocess.run([go, "build", "-o", os.path.join(folder, "go"),
                                *(os.path.join(here, "go", name) for name in os.listdir(os.path.join(here, "go")))],
                               check=True)
                commands.append([os.path.join(folder, "go")])
            if shutil.which("java") and shutil.which("javac"):
                subprocess.run(["javac", "-d", folder, *(os.path.join(here, "java", name)
                                                         for name in os.listdir(os.path.join(here, "java")))],
                               check=True)
                commands.append(["java", "-Xmx256m", "-cp", folder, "Peers"])
            for load in QUICK:
                sums = {command[0]: self.values(command + load.split()) for command in commands}
                self.assertEqual(len(set(sums.values())), 1, (load, sums))


if __name__ == "__main__":
    sys.exit(counted.main())
