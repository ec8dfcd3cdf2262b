#!/usr/bin/env python3
"""Sources are listed in build/*.zig, not globbed. Prints each C file of the tree that no list names, and fails if there
is one: a file that is never compiled is dead, and a test that is never run proves nothing.

    listed.py [ROOT]
"""

import glob
import os
import re
import sys


def listed_names(root):
    """Every string of the lists."""
    names = set()
    for path in glob.glob(os.path.join(root, "build", "*.zig")):
        with open(path, encoding="utf-8") as file:
            names.update(re.findall(r'"([^"\n]+)"', file.read()))
    return names


def is_listed(path, names):
    """A library source is named by its path, a program of one file by its name in the list of its folder."""
    if path in names:
        return True
    folder, _, name = path.rpartition("/")
    return folder in ("tests", "examples", "bench", "tools") and name[: -len(".c")] in names


def check(root):
    names = listed_names(root)
    unlisted = []
    for top in ("alloc", "gc", "tests", "examples", "bench", "tools"):
        for where, folders, files in os.walk(os.path.join(root, top)):
            folders[:] = sorted(name for name in folders if name not in ("fixtures", "model"))
            for name in sorted(files):
                path = os.path.relpath(os.path.join(where, name), root)
                if name.endswith(".c") and not is_listed(path, names):
                    unlisted.append(path)
    return unlisted


def main():
    unlisted = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    for path in unlisted:
        print(f"listed: no list in build/ names {path}", file=sys.stderr)
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main())
