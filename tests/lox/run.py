#!/usr/bin/env python3
"""Runs Lox scripts against the lox binary and compares what they print.

What a script should do stands in its comments, as in the suites written for the language:
    // expect: TEXT                   the next line of standard output
    // expect runtime error: TEXT     exit code 70, this message, and this line first in the stack trace
    // Error at 'x': TEXT             exit code 65 and this compile error, on this line
    // [line N] Error at 'x': TEXT    the same for line N; [c line N] is meant for us, [java line N] is not
    // nontest                        not a test
    // only: trigc, boehm             the collectors that it is for (ours)
    // trace: TEXT                    a line of the stack trace, in order (ours)
    var n = 40000; // stress: 600     the number to run a whole program with when every allocation collects (ours)

By default it runs tests/lox/cases, examples/lox/programs and checks of the command line and the REPL. A foreign suite
is run by naming its folder: `run.py --lox zig-out/bin/lox path/to/suite`.

With --stress each case runs a second time with a collection at every allocation. The programs, whose output stands in
NAME.expected, run so too: as they are where that takes a second, else with the smaller numbers that their `// stress:`
comments name; what they must print then is what the same text prints without any collection (--gc=none). At their full
size they run with a collection at every 100,003rd allocation.
"""
import argparse
import concurrent.futures
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = HERE.parent.parent / "examples" / "lox" / "programs"

EXPECT = re.compile(r"// expect: ?(.*)")
RUNTIME = re.compile(r"// expect runtime error: (.+)")
ERROR = re.compile(r"// (Error.*)")
ERROR_LINE = re.compile(r"// \[((java|c) )?line (\d+)\] (Error.*)")
TRACE = re.compile(r"// trace: (.+)")
ONLY = re.compile(r"^// only: (.+)$", re.MULTILINE)
SYNTAX = re.compile(r"\[line (\d+)\] (Error.+)")
STACK = re.compile(r"\[line (\d+)\]")
SCALED = re.compile(r"^(var \w+ = )\d+(; // stress: )(\d+)$", re.MULTILINE)
# Programs that store a lot while the collector marks: once more with the library's own checks of every mark.
CONCURRENT = ("moving", "linked_list", "lru_cache", "treap", "json")
# Suites for the language keep these apart: they are for partial interpreters, or they measure time.
FOREIGN_SKIP = ("scanning", "expressions", "benchmark")


class Expected:
    def __init__(self, text):
        self.output, self.errors, self.trace = [], set(), []
        self.runtime, self.runtime_line, self.nontest = None, 0, "// nontest" in text
        self.only = m[1].replace(" ", "").split(",") if (m := ONLY.search(text)) else None
        for number, line in enumerate(text.split("\n"), 1):
            if m := RUNTIME.search(line):
                self.runtime, self.runtime_line = m[1].strip(), number
            elif m := TRACE.search(line):
                self.trace.append(m[1].strip())
            elif m := ERROR_LINE.search(line):
                if m[2] != "java":
                    self.errors.add(f"[line {m[3]}] {m[4]}".strip())
            elif m := ERROR.search(line):
                self.errors.add(f"[line {number}] {m[1]}".strip())
            elif m := EXPECT.search(line):
                self.output.append(m[1].rstrip("\r"))

    def exit_code(self):
        return 65 if self.errors else 70 if self.runtime else 0


def run_lox(command, timeout, stdin="", options=""):
    """`options`: for the library, as TRI_OPTIONS; a release build refuses those that check, and says so."""
    environment = dict(os.environ, TRI_OPTIONS=options) if options else None
    try:
        done = subprocess.run(command, input=stdin.encode(), capture_output=True, timeout=timeout, check=False,
                              env=environment)
    except subprocess.TimeoutExpired:
        return None, "", f"no end after {timeout} s"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def check_stderr(expected, stderr):
    lines = [line for line in stderr.split("\n") if line and not line.startswith("trigc: TRI_OPTIONS:")]
    problems = []
    if expected.runtime:
        if not lines or lines[0] != expected.runtime:
            return [f"expected run-time error {expected.runtime!r}, got {lines[:1]}"]
        trace = [line for line in lines[1:] if STACK.match(line)]
        if not trace or STACK.match(trace[0])[1] != str(expected.runtime_line):
            problems.append(f"expected line {expected.runtime_line} first in the trace, got {trace[:1]}")
        if expected.trace and trace != expected.trace:
            problems.append(f"expected trace {expected.trace}, got {trace}")
        return problems
    found = {line for line in lines if SYNTAX.match(line)}
    problems += [f"missing: {line}" for line in sorted(expected.errors - found)]
    problems += [f"unexpected: {line}" for line in sorted(found - expected.errors)]
    problems += [f"unexpected on stderr: {line}" for line in lines if not SYNTAX.match(line)][:3]
    return problems


def check_output(expected, stdout):
    got = stdout.split("\n")
    if got and got[-1] == "":
        got.pop()
    for number, (want, have) in enumerate(zip(expected, got), 1):
        if want.rstrip() != have.rstrip():
            return [f"output line {number}: expected {want!r}, got {have!r}"]
    if len(expected) != len(got):
        return [f"expected {len(expected)} lines of output, got {len(got)}"]
    return []


def run_case(job):
    name, path, command, timeout, *options = job
    text = path.read_bytes().decode(errors="replace")
    golden = path.with_suffix(".expected")
    expected = Expected(text)
    if golden.exists():
        expected.output = golden.read_text().rstrip("\n").split("\n")
    code, stdout, stderr = run_lox(command, timeout, "", *options)
    problems = check_output(expected.output, stdout) + check_stderr(expected, stderr)
    if code != expected.exit_code():
        problems.append(f"expected exit code {expected.exit_code()}, got {code}")
    return name, problems


def stress_case(job):
    """A program with a collection at every allocation, with its numbers for that."""
    name, path, lox, gc, timeout = job
    text = path.read_text()
    scaled, count = SCALED.subn(r"\g<1>\3\g<2>\3", text)
    if count != text.count("// stress:"):
        return name, ["a `// stress:` comment that does not follow `var name = number;`"]
    if count == 0:
        return run_case((name, path, [lox, f"--gc={gc}", "--stress", str(path)], timeout))
    with tempfile.TemporaryDirectory(prefix="lox-stress-") as folder:
        small = pathlib.Path(folder) / path.name
        small.write_text(scaled)
        wanted = run_lox([lox, "--gc=none", str(small)], timeout)
        got = run_lox([lox, f"--gc={gc}", "--stress", "--stats", str(small)], timeout)
    problems = check_output(wanted[1].rstrip("\n").split("\n"), got[1])
    if wanted[0] != 0 or got[0] != 0:
        problems.append(f"expected exit codes 0 and 0, got {wanted[0]} (no collection) and {got[0]}: {got[2][-300:]}")
    collections = re.search(r"\[stats\] cycles (\d+)", got[2])
    if not collections or int(collections[1]) < 500:
        problems.append(f"expected a collection at every allocation, got {collections and collections[1]}")
    return name, problems


# --- the command line and the REPL ---------------------------------------------------------------------------------

def nested(open_, middle, close, depth):
    return (open_ * depth + middle + close * depth + b";\n")


def command_line_checks(lox):
    """(name, arguments, standard input, exit code, standard output or None, part of standard error)."""
    usage = "Usage: lox [options] [path]\n"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lox-test-"))
    files = {
        "empty.lox": b"",
        "comment.lox": b"// nothing, and no newline",
        "nul.lox": b'print "before";\n\0print "after";\n',
        "crlf.lox": b'print 1;\r\nprint 2;\r\n',
        "parens.lox": nested(b"(", b"1", b")", 500000),
        "bangs.lox": nested(b"!", b"true", b"", 500000),
        "blocks.lox": nested(b"{", b"print 1;", b"}", 500000),
        "funs.lox": nested(b"fun f() {", b"", b"}", 100000),
        "ifs.lox": nested(b"if (true) ", b"print 1", b"", 300000),
        "operands.lox": b"print " + b"1 == (" * 5000 + b"1" + b")" * 5000 + b";",
        "deep_stack.lox": b"print " + b"nil == (" * 2000 + b"nil" + b")" * 2000 + b";",
        "high.lox": "var a = \"\u00e4\u20ac\"; print a; // \u00fc\n".encode(),
        "binary.lox": bytes(range(128, 256)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = lambda name: str(folder / name)
    return [
        ("two paths", ["a.lox", "b.lox"], "", 64, "", usage),
        ("unknown option", ["--frobnicate"], "", 64, "", "unknown option --frobnicate\n" + usage),
        ("unknown collector", ["--gc=lisp"], "", 64, "", "the collectors are trigc, boehm and none"),
        ("bad stress", ["--stress=0"], "", 64, "", "expected a count from 1 up"),
        ("help", ["--help"], "", 0, None, ""),
        ("missing file", [path("none.lox")], "", 74, "", f'Could not open file "{path("none.lox")}".\n'),
        ("folder", [str(folder)], "", 74, "", f'Could not read file "{folder}".\n'),
        ("empty file", [path("empty.lox")], "", 0, "", ""),
        ("only a comment", [path("comment.lox")], "", 0, "", ""),
        ("a NUL ends the source", [path("nul.lox")], "", 0, "before\n", ""),
        ("carriage returns", [path("crlf.lox")], "", 0, "1\n2\n", ""),
        ("nested parentheses", [path("parens.lox")], "", 65, "", "[line 1] Error at '(': Nested too deeply.\n"),
        ("nested operators", [path("bangs.lox")], "", 65, "", "Nested too deeply.\n"),
        ("nested blocks", [path("blocks.lox")], "", 65, "", "Nested too deeply.\n"),
        ("nested functions", [path("funs.lox")], "", 65, "", "Nested too deeply.\n"),
        ("nested statements", [path("ifs.lox")], "", 65, "", "Nested too deeply.\n"),
        ("too many operands", [path("operands.lox")], "", 65, "", "Too many constants in one chunk."),
        ("operands on the stack", [path("deep_stack.lox")], "", 0, "false\n", ""),
        ("UTF-8 in strings and comments", [path("high.lox")], "", 0, "\u00e4\u20ac\n", ""),
        ("high bytes", [path("binary.lox")], "", 65, "", "[line 1] Error: Unexpected character.\n"),
        ("REPL keeps globals", [], "var a = 1;\na = a + 1;\nprint a;\n", 0, "> > > 2\n> \n", ""),
        ("REPL goes on after errors", [], "print ;\nnope();\nprint 3;\n", 0, "> > > 3\n> \n",
         "[line 1] Error at ';': Expect expression.\nUndefined variable 'nope'.\n[line 1] in script\n"),
        ("REPL closes upvalues after an error", [],
         "var f; { var x = \"kept\"; fun g() { return x; } f = g; nil(); }\nprint f();\n", 0, "> > kept\n> \n",
         "Can only call functions and classes.\n"),
        ("REPL without input", [], "", 0, "> \n", ""),
    ]


def run_check(job):
    name, lox, gc, (_, arguments, stdin, code, stdout, stderr) = job
    got_code, got_out, got_err = run_lox([lox, f"--gc={gc}", *arguments], 60, stdin)
    problems = []
    if got_code != code:
        problems.append(f"expected exit code {code}, got {got_code}")
    if stdout is not None and got_out != stdout:
        problems.append(f"expected output {stdout!r}, got {got_out[:200]!r}")
    if stderr not in got_err or (stderr == "" and got_err):
        problems.append(f"expected {stderr!r} on stderr, got {got_err[:300]!r}")
    return name, problems


def trace_check(job):
    """--trace-gc prints a line a collection, --stats and --gaps one at the end."""
    name, lox, gc = job
    script = PROGRAMS / "binary_trees.lox"
    _, _, stderr = run_lox([lox, f"--gc={gc}", "--trace-gc", "--stats", "--gaps", str(script)], 120)
    lines = stderr.split("\n")
    problems = []
    if gc != "none" and not any(line.startswith("[gc 1]") for line in lines):
        problems.append("no line for the first collection")
    if gc == "none" and any(line.startswith("[gc ") for line in lines):
        problems.append("a collection, with cycles off")
    if not any(line.startswith("[stats] cycles ") for line in lines):
        problems.append("no [stats] line")
    gaps = [line.split() for line in lines if line.startswith("gaps ")]
    counted = sum(int(bucket.split(":")[1]) for bucket in gaps[0][4:]) if len(gaps) == 1 else 0
    if counted < 1000000:
        problems.append(f"--gaps counted {counted} steps, expected millions")
    return name, problems


class Terminal:
    """lox on a terminal of its own."""

    def __init__(self, lox, home):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(lox, [lox], {"HOME": home, "TERM": "xterm", "PATH": os.defpath})
        self.seen = ""

    def send(self, keys):
        os.write(self.fd, keys.encode())

    def wait_for_prompt(self, seconds=10):
        """Whether the prompt comes and the terminal gives each key as it is typed: one that is sent between the two
        is the line discipline's, which makes a NUL of ^D, and the editor then has a line that is not empty."""
        if not self.wait_for("> ", seconds):
            return False
        end = time.monotonic() + seconds
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def wait_for(self, text, seconds=10):
        """Whether `text` comes; what was seen up to it is dropped."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            try:
                chunk = os.read(self.fd, 4096) if ready else b""
            except OSError:
                chunk = b""
            if not chunk:
                return False
            self.seen += chunk.decode(errors="replace")
        self.seen = self.seen.split(text, 1)[1]
        return True

    def close(self):
        """Ends the input; the exit code."""
        self.send("\x04")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self.wait_for("never", 0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)  # a terminal that is closed is read at once; lox may still be on its way out
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def edit_check(job):
    """Editing, history, and history from one session to the next."""
    name, lox = job
    problems = []
    with tempfile.TemporaryDirectory(prefix="lox-home-") as home:
        first = Terminal(lox, home)
        first.wait_for_prompt()
        first.send("print 10 + 3x\x7f2;\r")  # a mistake, and the backspace over it
        if not first.wait_for("\n42\r"):
            problems.append(f"no 42 after an edited line, but {first.seen!r}")
        first.wait_for_prompt()
        first.send("\x1b[A\r")  # the line before
        if not first.wait_for("\n42\r"):
            problems.append(f"no 42 after the line was recalled, but {first.seen!r}")
        first.wait_for_prompt()
        if first.close() != 0:
            problems.append("the first session did not end well")
        second = Terminal(lox, home)
        second.wait_for_prompt()
        second.send("\x1b[A\r")
        if not second.wait_for("\n42\r"):
            problems.append(f"no history in the second session, but {second.seen!r}")
        second.wait_for_prompt()
        second.close()
    return name, problems


# --- jobs ----------------------------------------------------------------------------------------------------------

def find_scripts(folder, foreign):
    for path in sorted(pathlib.Path(folder).rglob("*.lox")):
        relative = path.relative_to(folder)
        if foreign and relative.parts[0] in FOREIGN_SKIP:
            continue
        expected = Expected(path.read_bytes().decode(errors="replace"))
        if not expected.nontest:
            yield path, str(relative), expected.only


def make_jobs(arguments):
    jobs = []
    modes = [(gc, stress) for gc in arguments.gc.split(",") for stress in ([0, 1] if arguments.stress else [0])]
    folders = arguments.folders or [HERE / "cases"]
    for folder in folders:
        foreign = bool(arguments.folders)
        for path, name, only in find_scripts(folder, foreign):
            for gc, stress in modes:
                if (gc == "none" and stress) or (only and gc not in only):
                    continue
                command = [arguments.lox, f"--gc={gc}"] + (["--stress"] if stress else []) + [str(path)]
                label = f"{name} ({gc}{', stress' if stress else ''})"
                jobs.append((run_case, (label, path, command, arguments.timeout)))
    if arguments.folders:
        return jobs
    for path, name, _ in find_scripts(PROGRAMS, False):
        for gc, stress in modes:
            if gc == "none" and stress:
                continue
            command = [arguments.lox, f"--gc={gc}"] + (["--stress=100003"] if stress else []) + [str(path)]
            label = f"programs/{name} ({gc}{', stress' if stress else ''})"
            jobs.append((run_case, (label, path, command, arguments.timeout)))
            if stress:
                label = f"programs/{name} ({gc}, every allocation)"
                jobs.append((stress_case, (label, path, arguments.lox, gc, arguments.timeout)))
    if "trigc" in arguments.gc.split(","):
        for name in CONCURRENT:
            command = [arguments.lox, "--gc=trigc", str(PROGRAMS / f"{name}.lox")]
            jobs.append((run_case, (f"programs/{name}.lox (trigc, checked)", PROGRAMS / f"{name}.lox", command,
                                    arguments.timeout, "checkmark=1,poison=1")))
    if "with line editing" in run_lox([arguments.lox, "--help"], 10)[1]:
        jobs.append((edit_check, ("line editing", arguments.lox)))
    for gc in arguments.gc.split(","):
        jobs += [(run_check, (f"{check[0]} ({gc})", arguments.lox, gc, check)) for check in
                 command_line_checks(arguments.lox)]
        jobs.append((trace_check, (f"collector's lines ({gc})", arguments.lox, gc)))
    return jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", help="folders of foreign tests; none: our own")
    parser.add_argument("--lox", default="zig-out/bin/lox", help="the binary")
    parser.add_argument("--gc", default="trigc,boehm,none", help="collectors, with commas between")
    parser.add_argument("--stress", action="store_true", help="each case a second time, collecting at every allocation")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one script")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("-v", action="store_true", help="names what passed as well")
    arguments = parser.parse_args()
    if not os.access(arguments.lox, os.X_OK):
        sys.exit(f"run.py: {arguments.lox} is not there: build it first, or name it with --lox")
    arguments.lox = os.path.abspath(arguments.lox)
    if "without Boehm" in run_lox([arguments.lox, "--help"], 10)[1]:
        print("run.py: lox was built without Boehm's collector: its runs are left out")
        arguments.gc = ",".join(gc for gc in arguments.gc.split(",") if gc != "boehm")

    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for name, problems in pool.map(lambda job: job[0](job[1]), make_jobs(arguments)):
            if problems:
                failed += 1
                print(f"FAIL {name}")
                for problem in problems:
                    print(f"     {problem}")
            else:
                passed += 1
                if arguments.v:
                    print(f"ok   {name}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
