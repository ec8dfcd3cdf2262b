#!/usr/bin/env python3
"""Compiles each header alone: the public ones as C and as C++, the internal ones as C, by each compiler, without a
warning. A header that needs another before it, or that is not C++-clean, fails here and not at a user's.

    headers.py --zig=PATH --clang=NAME PUBLIC_HEADER...     (from the root)
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]


def compilers(zig, clang):
    clangxx = clang.replace("clang", "clang++", 1)
    return {
        "c": [[zig, "cc", "-std=c11"], ["gcc", "-std=c11"], [clang, "-std=c11"]],
        "c++": [
            [zig, "c++", "-std=c++17"],
            ["g++", "-std=c++17"],
            ["g++", "-std=c++20"],
            [clangxx, "-std=c++17"],
            [clangxx, "-std=c++20"],
        ],
    }


def internal_headers():
    found = []
    for top in ("alloc", "gc", "tests"):
        for where, _, files in os.walk(top):
            found += [os.path.join(where, name) for name in sorted(files) if name.endswith(".h")]
    return found


def compile_alone(job):
    command, language, include, extra = job
    suffix = ".c" if language == "c" else ".cc"
    with tempfile.NamedTemporaryFile("w", suffix=suffix) as source:
        # Twice: the guard has to hold too.
        source.write(f"#include {include}\n#include {include}\n")
        source.flush()
        flags = [*WARNINGS, *extra, "-c", source.name, "-o", source.name + ".o"]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
        if os.path.exists(source.name + ".o"):
            os.unlink(source.name + ".o")
    if done.returncode == 0:
        return None
    return f"{include} alone, by {os.path.basename(command[0])} {' '.join(command[1:])}:\n{done.stderr.rstrip()}"


def main():
    zig, clang, public = "zig", "clang-14", []
    for argument in sys.argv[1:]:
        if argument.startswith("--zig="):
            zig = argument.partition("=")[2]
        elif argument.startswith("--clang="):
            clang = argument.partition("=")[2]
        else:
            public.append(argument)
    by_language = compilers(zig, clang)
    jobs = []
    for header in public:
        for language, commands in by_language.items():
            jobs += [(command, language, f"<{header}>", ["-Iinclude"]) for command in commands]
    internal = ["-Iinclude", "-I.", "-D_GNU_SOURCE", "-DTRI_CHECKS=3"]
    for header in internal_headers():
        jobs += [(command, "c", f'"{header}"', internal) for command in by_language["c"][1:]]
    try:
        with ThreadPoolExecutor(2) as pool:
            wrong = [text for text in pool.map(compile_alone, jobs) if text]
    except FileNotFoundError as error:
        print(f"headers: no {error.filename}; ./zigw build check installs the compilers", file=sys.stderr)
        return 1
    for text in wrong:
        print(f"headers: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
