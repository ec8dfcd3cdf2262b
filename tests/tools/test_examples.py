#!/usr/bin/env python3
"""The examples, run: what examples/coroutines.c and examples/offheap_list.c print, and examples/zbuf as a server that a
client of another kind talks to; and examples/zbuf built as a stranger would. Takes the prefix from TRI_TEST_PREFIX.
"""

import glob
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tools")]

import counted
import test_package

BIN = os.path.join(test_package.PREFIX, "bin")
SIZES = re.compile(r"^(collected|manual): (.*?) +heap +([\d.]+) MiB +off-heap +([\d.]+) MiB$", re.M)
NODES = 2000001
PRINT_EVERY = 100000


class Coroutines(unittest.TestCase):
    def run_with(self, number, rounds):
        program = os.path.join(BIN, "coroutines")
        done = subprocess.run([program, str(number), str(rounds)], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        total = sum(rounds * i + rounds * (rounds - 1) // 2 for i in range(number))
        first, second = done.stdout.splitlines()
        self.assertEqual(first, f"{number} coroutines on 2 threads, {rounds} rounds: sum {total}, as it should be")
        return int(re.match(r"(\d+) collections in", second).group(1))

    def test_a_hundred_thousand_live_through_collections_on_two_threads(self):
        self.assertGreater(self.run_with(100000, 10), 0)

    def test_a_few_live_long(self):
        self.assertGreater(self.run_with(1000, 300), 0)


class OffheapList(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        program = os.path.join(BIN, "offheap_list")
        cls.done = subprocess.run([program], capture_output=True, text=True, timeout=120)
        cls.sizes = {(way, when): (float(heap), float(off)) for way, when, heap, off in SIZES.findall(cls.done.stdout)}

    def check_sizes(self, way, when, heap, off):
        """Both sizes in MiB, each within a range."""
        self.assertIn((way, when), self.sizes, self.done.stdout)
        for found, (least, most) in zip(self.sizes[way, when], (heap, off)):
            self.assertGreaterEqual(found, least, (way, when))
            self.assertLessEqual(found, most, (way, when))

    def test_it_ends_well(self):
        self.assertEqual(self.done.returncode, 0, self.done.stdout + self.done.stderr)
        self.assertEqual(self.done.stderr, "")

    def test_the_collected_list_is_31_mib_of_heap_and_then_nothing(self):
        nothing, about_31 = (0.0, 0.3), (30.0, 32.0)
        self.check_sizes("collected", "before", nothing, (0.0, 0.0))
        self.check_sizes("collected", "built", about_31, (0.0, 0.0))
        self.check_sizes("collected", "dropped and collected", nothing, (0.0, 0.0))

    def test_the_manual_list_is_30_mib_beside_the_heap_and_then_nothing(self):
        nothing, about_30 = (0.0, 0.3), (30.0, 31.0)
        self.check_sizes("manual", "before", nothing, (0.0, 0.0))
        self.check_sizes("manual", "built", nothing, about_30)
        self.check_sizes("manual", "freed", nothing, (0.0, 0.0))

    def test_each_list_prints_every_hundred_thousandth_value(self):
        values = [int(value) for value in re.findall(r"^node: (\d+)$", self.done.stdout, re.M)]
        self.assertEqual(values, 2 * list(range(0, NODES, PRINT_EVERY)))
        self.assertEqual(len(self.done.stdout.splitlines()), 2 * 21 + 6)


class Proxy(unittest.TestCase):
    """A second of load from eight connections, and then none: every reply as it should be, and the samples tell it."""

    COLUMNS = "ms,phase,resident_bytes,heap_bytes,beside_bytes,cycles,requests"
    SUMMARY = re.compile(
        r"^(\w+) +(\d+) requests, .* resident: +(\d+) MB at most, +(\d+) MB after the load, +(\d+) MB at the end$"
    )

    def run_with(self, program, name, idle_ms=300):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"{name}.csv")
            command = [os.path.join(BIN, program), f"--buffers={name}", "--connections=8", "--load-ms=700"]
            done = subprocess.run(command + [f"--idle-ms={idle_ms}", f"--csv={path}"], capture_output=True, text=True,
                                  timeout=120)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
            picture = os.path.join(folder, "proxy.svg")
            subprocess.run([sys.executable, os.path.join(ROOT, "tools", "resident.py"), picture, path], check=True)
            with open(picture, encoding="utf-8") as file:
                self.assertIn(f">{name}: ", file.read())
        found = self.SUMMARY.match(done.stdout.strip())
        self.assertTrue(found, done.stdout)
        self.assertEqual(lines[0], self.COLUMNS)
        rows = [line.split(",") for line in lines[1:]]
        self.assertEqual([row[1] for row in rows], sorted((row[1] for row in rows), reverse=True))
        self.assertEqual({row[1] for row in rows}, {"load", "idle"})
        self.assertEqual(int(rows[-1][6]), int(found.group(2)))
        return rows

    def test_collected(self):
        rows = self.run_with("proxy", "collected", idle_ms=4000)
        self.assertGreater(int(rows[-1][5]), 0)
        self.assertLess(int(rows[-1][3]), 1 << 20, "an idle heap has been collected")

    def test_cleanup(self):
        rows = self.run_with("proxy", "cleanup", idle_ms=4000)
        self.assertGreater(int(rows[-1][5]), 0)
        self.assertLess(int(rows[-1][4]), 1 << 20, "the cleanups of an idle heap have run")

    def test_manual_and_malloc(self):
        self.run_with("proxy", "manual")
        self.run_with("proxy", "malloc")

    def test_boehm(self):
        self.run_with("proxy_boehm", "boehm")


class ZbufEcho(unittest.TestCase):
    def start(self, *arguments):
        program = os.path.join(BIN, "zbuf_echo")
        server = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(server.communicate)
        self.addCleanup(server.kill)
        found = re.match(r"listening on 127\.0\.0\.1:(\d+), \d+ threads$", server.stdout.readline())
        self.assertTrue(found)
        return server, int(found.group(1))

    def stop(self, server, number):
        """Ends it by a signal; what it printed."""
        server.send_signal(number)
        out, err = server.communicate(timeout=30)
        self.assertEqual((server.returncode, err), (0, ""), out)
        return out

    def echo(self, connection, data):
        connection.sendall(data)
        got = bytearray()
        while len(got) < len(data):
            part = connection.recv(1 << 16)
            self.assertTrue(part, "the server closed the connection")
            got += part
        self.assertEqual(bytes(got), data)

    def test_echoes_to_many_and_stops_when_told(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server, port = self.start("--threads=2")
            connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(50)]
            total = 0
            for connection in connections:
                data = random.Random(total).randbytes(1 + total % 20011)
                self.echo(connection, data)
                total += len(data)
            for connection in connections[::2]:
                connection.close()
            out = self.stop(server, number)
            self.assertIn(f"50 connections, 50 closed, 0 refused, {total} bytes echoed\n", out)
            self.assertIn(" 0 of them out, 0 manual bytes left\n", out)
            for connection in connections[1::2]:
                self.assertEqual(connection.recv(1), b"")
                connection.close()

    def test_a_limit_below_what_is_preallocated_is_refused(self):
        program = os.path.join(BIN, "zbuf_echo")
        done = subprocess.run([program, "--limit-mb=1"], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn("raise the limit", done.stderr)

    def test_bad_arguments_and_a_port_in_use_are_refused(self):
        program = os.path.join(BIN, "zbuf_echo")
        server, port = self.start()
        for argument, code in (("--port=x", 64), ("--threads=0", 64), ("what", 64), (f"--port={port}", 1)):
            done = subprocess.run([program, argument], capture_output=True, text=True, timeout=30)
            self.assertEqual(done.returncode, code, done.stderr)
        self.stop(server, signal.SIGTERM)

    def test_builds_as_strangers_would(self):
        sources = sorted(glob.glob(os.path.join(ROOT, "examples", "zbuf", "*.c")))
        archive = os.path.join(test_package.LIB, "libtrigc.a")
        for compiler in test_package.COMPILERS:
            with self.subTest(compiler=compiler), tempfile.TemporaryDirectory() as folder:
                flags = [*test_package.WARNINGS, "-O2", *test_package.pkg_config("--cflags")]
                command = [compiler, *flags, *sources, "-o", os.path.join(folder, "zbuf_echo"), archive, "-lpthread"]
                built = subprocess.run([*command, "-lm"], capture_output=True, text=True)
                self.assertEqual(built.returncode, 0, built.stderr)


if __name__ == "__main__":
    sys.exit(counted.main())
