#!/usr/bin/env python3
"""Prints the first ```c block of a Markdown file: the README's first complete program, for the tests to compile and
run. Fails when there is none.

    readme_program.py README.md
"""

import re
import sys

BLOCK = re.compile(r"^```c[ \t]*\n(.*?)^```[ \t]*$", re.S | re.M)


def first_program(text):
    found = BLOCK.search(text)
    return found.group(1) if found else None


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        program = first_program(file.read())
    if program is None:
        print(f"readme_program: {sys.argv[1]} has no ```c block", file=sys.stderr)
        return 1
    sys.stdout.write(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
