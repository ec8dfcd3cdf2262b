#!/usr/bin/env python3
"""Formats the C sources by .clang-format, or says which are not formatted.

    format.py --write|--check [CLANG_FORMAT]     (from the root)
"""

import os
import subprocess
import sys


def sources():
    found = []
    for top in ("include", "alloc", "gc", "tests", "examples", "bench", "tools"):
        for where, folders, files in os.walk(top):
            folders[:] = sorted(name for name in folders if name not in ("fixtures", "__pycache__"))
            found += [os.path.join(where, name) for name in sorted(files) if name.endswith((".c", ".h"))]
    return found


def main():
    mode = sys.argv[1]
    command = sys.argv[2] if len(sys.argv) > 2 else "clang-format-14"
    try:
        if mode == "--write":
            return subprocess.run([command, "-i", *sources()], check=False).returncode
        done = subprocess.run(
            [command, "--dry-run", "--Werror", *sources()], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        print(f"format: no {command}; ./zigw build fmt installs it", file=sys.stderr)
        return 1
    if done.returncode != 0:
        files = sorted({row.split(":")[0] for row in done.stderr.splitlines() if ": error:" in row})
        print(f"format: not formatted (./zigw build fmt does it): {' '.join(files) or done.stderr}", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
