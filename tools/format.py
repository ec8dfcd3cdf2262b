#!/usr/bin/env python3
"""Formats the C sources by .clang-format and wraps their comments, or says what is not formatted; and says which lines
of any source are longer than 120 columns.

    format.py --write|--check [CLANG_FORMAT]     (from the root)

Comments are wrapped word by word: what does not fit goes to the front of the comment's next line. Code, strings and
other languages are left to whoever wrote them, and named.
"""

import os
import re
import subprocess
import sys

COLUMNS = 120
FOLDERS = ("include", "alloc", "gc", "tests", "examples", "bench", "tools", "build")
ALSO = ("build.zig",)
FIRST = re.compile(r"^(\s*)/\*+ (?!-)")
NEXT = re.compile(r"^(\s*)\*( +)(?=[^\s/])")
ITEM = re.compile(r"- |\d+\. |\w+ {2,}|[A-Z]+-?[A-Z]*\d+[ .:]")
BANNER = re.compile(r"-{9,}")


def files(endings):
    found = []
    for top in FOLDERS:
        for where, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if name not in ("fixtures", "third_party", "__pycache__"))
            found += [os.path.join(where, name) for name in sorted(names) if name.endswith(endings)]
    return found


def sources():
    return files((".c", ".h"))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")


def too_long():
    """path:line of each line that is too long."""
    paths = [*files((".c", ".h", ".cc", ".zig", ".py")), *(path for path in ALSO if os.path.exists(path))]
    return [f"{path}:{n}" for path in paths for n, line in enumerate(read(path), 1) if len(line) > COLUMNS]


def wrap(lines):
    """The lines with their block comments wrapped."""
    lines, i = list(lines), 0
    while i < len(lines):
        line, first, more = lines[i], FIRST.match(lines[i]), NEXT.match(lines[i])
        if len(line) <= COLUMNS:
            i += 1
            continue
        banner = BANNER.search(line)
        if banner and line.lstrip().startswith("/*"):
            least = max(3, len(banner.group()) - (len(line) - COLUMNS))
            line = lines[i] = line[: banner.start()] + "-" * least + line[banner.end() :]
        at = line.rfind(" ", 0, COLUMNS + 1)
        if at == -1 or not (first or more) or at <= (first or more).end() or "*/" in line[:at]:
            i += 1
            continue
        lines[i], rest = line[:at].rstrip(), line[at:].strip()
        if rest == "*/":  # not alone on its line
            before = lines[i].rfind(" ")
            lines[i], rest = lines[i][:before], lines[i][before + 1 :] + " */"
        prefix = first.group(1) + " * " if first else more.group()
        if more and ITEM.match(line[more.end() :]):
            prefix += "  "
        following = NEXT.match(lines[i + 1]) if i + 1 < len(lines) else None
        text = lines[i + 1][following.end() :] if following else ""
        if following and not rest.endswith("*/") and not ITEM.match(text):
            lines[i + 1] = following.group() + rest + " " + text
        else:
            lines.insert(i + 1, prefix + rest)
        i += 1
    return lines


def write(command):
    for path in sources():
        before = read(path)
        after = wrap(before)
        if after != before:
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(after))
    return subprocess.run([command, "-i", *sources()], check=False).returncode


def check(command):
    done = subprocess.run([command, "--dry-run", "--Werror", *sources()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        names = sorted({row.split(":")[0] for row in done.stderr.splitlines() if ": error:" in row})
        print(f"format: not formatted (./zigw build fmt does it): {' '.join(names) or done.stderr}", file=sys.stderr)
    return done.returncode


def main():
    mode = sys.argv[1]
    command = sys.argv[2] if len(sys.argv) > 2 else "clang-format-14"
    try:
        status = write(command) if mode == "--write" else check(command)
    except FileNotFoundError:
        print(f"format: no {command}; ./zigw build fmt installs it", file=sys.stderr)
        return 1
    long_ones = too_long()
    if long_ones:
        print(f"format: longer than {COLUMNS} columns: {' '.join(long_ones)}", file=sys.stderr)
    return 1 if status or long_ones else 0


if __name__ == "__main__":
    sys.exit(main())
