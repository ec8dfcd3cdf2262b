#!/usr/bin/env python3
"""Runs test programs, a few at a time, and ends with one line: "N passed, N failed".

Each argument names one program and says how to read it:

    criterion:NAME=PATH     a Criterion executable; counted from its "Synthesis" line
    plain:NAME=PATH         a program whose last line of that form is "N passed, N failed" (tests/plain.h)
    script:NAME=PATH.py     the same, a Python script
    command:NAME=PATH|ARG   any executable; counts as one test, by its exit code, unless it prints such a line
    optional:NAME=PATH|ARG  the same, but left out when the file does not exist
    emulated:NAME=PATH      as plain, an ARMv8 program: left out when there is no qemu-aarch64 to run it
    --define=KEY=VALUE      set in the environment of all of them
    --jobs N, --timeout S   how many at once, and how long each may take
    anything else           a filter: only programs whose NAME contains one of these run

A program that crashes, hangs, or ends badly without saying how many tests failed counts as one failure. Its whole
output is shown, and the end of it once more behind all programs; of a program that passes only one line is.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SYNTHESIS = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
HEARTBEAT_S = 30
REPEATED_LINES = 60
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
STACK_BYTES = 8 << 20
KINDS = ("criterion", "plain", "script", "command", "optional", "emulated")


class Program:
    def __init__(self, kind, name, path, arguments):
        self.kind = kind
        self.name = name
        self.path = path
        self.arguments = arguments

    def command(self):
        if self.kind == "criterion":
            # One test at a time in each program: how much runs at once is decided here, once, for all of them.
            # No --timeout: it would cut the longer ones that tests set themselves (plain.h has the others').
            return [self.path, "--jobs=1", "--color=never"]
        if self.kind == "emulated":
            return [EMULATOR, self.path]
        if self.kind == "script":
            return [sys.executable, self.path, *self.arguments]
        return [self.path, *self.arguments]


def counts(program, output, code):
    """How many tests passed and failed, by the program's own words, or by its exit code where it has none."""
    text = ANSI.sub("", output)
    passed = failed = 0
    said = False
    if program.kind == "criterion":
        for found in SYNTHESIS.finditer(text):
            said = True
            tested, passing = int(found.group(1)), int(found.group(2))
            passed += passing
            failed += tested - passing  # the failing ones, of which the crashing ones are a part
    else:
        every = PLAIN.findall(text)
        if every:
            said = True
            passed, failed = int(every[-1][0]), int(every[-1][1])
    if not said and program.kind in ("command", "optional") and code == 0:
        return 1, 0
    if failed == 0 and (code != 0 or not said or passed == 0):
        failed = 1  # a program without a single test is no success either
    return passed, failed


class Runner:
    def __init__(self, programs, jobs, timeout_s):
        self.waiting = list(programs)
        self.total = len(programs)
        self.jobs = jobs
        self.timeout_s = timeout_s
        self.lock = threading.Lock()  # guards everything below, and stdout
        self.running = {}
        self.finished = 0
        self.passed = 0
        self.failed = 0
        self.bad = []
        self.children = set()

    def run_one(self, program):
        start = time.monotonic()
        with tempfile.TemporaryFile() as output:
            try:
                child = subprocess.Popen(
                    program.command(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                return 0, 1, f"could not start: {error}", "", time.monotonic() - start
            with self.lock:
                self.children.add(child)
            note = ""
            try:
                code = child.wait(self.timeout_s)
                if code < 0:
                    note = f"died of {signal.Signals(-code).name}"
                elif code > 0:
                    note = f"exit code {code}"
            except subprocess.TimeoutExpired:
                note = f"still running after {self.timeout_s} s"
                kill_group(child)
                code = child.wait()
            finally:
                with self.lock:
                    self.children.discard(child)
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        passed, failed = counts(program, text, code)
        if failed and not note:
            note = "by its own count" if passed else "it ran no test"
        return passed, failed, note, text, time.monotonic() - start

    def work(self):
        while True:
            with self.lock:
                if not self.waiting:
                    return
                program = self.waiting.pop(0)
                self.running[program.name] = time.monotonic()
            passed, failed, note, text, took_s = self.run_one(program)
            with self.lock:
                del self.running[program.name]
                self.finished += 1
                self.passed += passed
                self.failed += failed
                width = len(str(self.total))
                line = f"[{self.finished:{width}}/{self.total}] {program.name}: {passed} passed, {failed} failed"
                print(f"{line} ({took_s:.1f} s)" + (f": {note}" if failed else ""))
                if failed:
                    rows = ["    " + row for row in text.rstrip().splitlines()]
                    self.bad.append((program.name, f"{line}: {note}", rows[-REPEATED_LINES:]))
                    print("\n".join(rows))
                sys.stdout.flush()

    def heartbeat(self, stop):
        while not stop.wait(HEARTBEAT_S):
            with self.lock:
                now = time.monotonic()
                running = [(name, now - since) for name, since in self.running.items()]
                slow = [f"{name} ({seconds:.0f} s)" for name, seconds in running if seconds > HEARTBEAT_S]
                if slow:
                    print(f"        still running: {', '.join(slow)}", flush=True)

    def run(self):
        stop = threading.Event()
        threading.Thread(target=self.heartbeat, args=(stop,), daemon=True).start()
        workers = [threading.Thread(target=self.work) for _ in range(self.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        stop.set()

    def stop_all(self, *_):
        for child in list(self.children):
            kill_group(child)
        os._exit(130)


def kill_group(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def parse(arguments):
    programs, filters, missing, emulated = [], [], [], False
    jobs, timeout_s = 2, 1200
    rest = iter(arguments)
    for argument in rest:
        kind, _, spec = argument.partition(":")
        if argument == "--jobs":
            jobs = int(next(rest))
        elif argument == "--timeout":
            timeout_s = int(next(rest))
        elif argument.startswith("--define="):
            key, _, value = argument[len("--define=") :].partition("=")
            os.environ[key] = value
        elif kind in KINDS and "=" in spec:
            name, _, command = spec.partition("=")
            path, *extra = command.split("|")
            if kind == "optional" and not os.path.exists(path):
                missing.append(f"not there, left out: {name} ({path})")
                continue
            if kind == "emulated" and not EMULATOR:
                emulated = True
                continue
            programs.append(Program(kind, name, os.path.abspath(path), extra))
        else:
            filters.append(argument)
    if emulated:
        missing.append("skipped: there is no qemu-aarch64 to run ARMv8 programs; sudo apt-get install -y qemu-user")
    if filters:
        programs = [program for program in programs if any(word in program.name for word in filters)]
    return programs, filters, missing, min(jobs, os.cpu_count() or 1), timeout_s


def plain_limits():
    """The stack limit that a shell gives: zig raises its own, and what it starts inherits that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY or soft > STACK_BYTES:
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, hard))


def main():
    plain_limits()
    programs, filters, missing, jobs, timeout_s = parse(sys.argv[1:])
    for name in missing:
        print(name)
    if filters and not programs:
        print(f"no test program's name contains {' or '.join(filters)}")
        print("0 passed, 0 failed")
        return 1
    runner = Runner(programs, jobs, timeout_s)
    signal.signal(signal.SIGINT, runner.stop_all)
    signal.signal(signal.SIGTERM, runner.stop_all)
    runner.run()
    for _, line, rows in sorted(runner.bad):
        print("\n".join(["", line, *rows]))
    if runner.bad:
        print(f"failed in: {', '.join(sorted(name for name, _, _ in runner.bad))}")
    print(f"{runner.passed} passed, {runner.failed} failed", flush=True)
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
