#!/usr/bin/env python3
"""Names what the library has and nobody uses: internal functions that only their own file calls, inline helpers,
macros, enumerators and fields that no code names a second time.

    unused.py     (from the root)

A use is the name as a word in alloc/, gc/ or include/, comments and strings aside, besides declarations and the
definition. What is there for tests alone is listed here, with its reason.
"""

import os
import re
import sys

FOR_TESTS = {
    "FAULT_NONE": "what switches a planted fault off",
    "tri__os_fail_at": "refuses system calls, as the system might",
    "tri__os_ncalls": "how many there are to refuse",
    "tri__pacer_learn": "the half of tri__pacer_end after which the simulation guesses otherwise",
    "tri__pressure_set_root": "the system's files, in a tree of the test's own",
    "UNITS_A_LOOK": "the bound that I-STEP4 names",
    "tri__units_take_most": "what a slice did between two looks at the clock",
    "tri__units_take_sum": "and in all",
    "tri__summary_pack": "the other half of tri__summary_unpack",
}
ATOMICS = "alloc/base/atomic.h"
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
FUNCTION = re.compile(r"^[\w][^;{}()=#]*?\b(\w+)\([^;{}]*\)\s*(?:__attribute__\(\(.*?\)\)\s*)?([;{])", re.M)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.M)
ENUM = re.compile(r"\benum\b[^;{}()]*\{([^}]*)\}")
STRUCT = re.compile(r"\b(?:struct|union)\b\s*\w*\s*\{([^{}]*)\}")
FIELD = re.compile(r"\b(\w+)\s*(?:\[[^\]]*\])*\s*(?:,|;|:\s*\d+\s*;)")
WORD = re.compile(r"\b\w+\b")


def read_all(root):
    files = {}
    for top in ("alloc", "gc", "include"):
        for where, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    path = os.path.join(where, name)
                    with open(path, encoding="utf-8") as file:
                        files[os.path.relpath(path, root)] = STRING.sub('""', COMMENT.sub(" ", file.read()))
    return files


def counts(files):
    where = {}
    for path, text in files.items():
        for word in WORD.findall(text):
            where.setdefault(word, {}).setdefault(path, 0)
            where[word][path] += 1
    return where


def check(root):
    """A row for each name without a use."""
    files = read_all(root)
    where = counts(files)
    wrong = []
    for path, text in sorted(files.items()):
        public = path.startswith("include")
        for match in FUNCTION.finditer(text):
            name, end = match.groups()
            if name.startswith("tri_") and not name.startswith("tri__"):
                continue
            head = match.group(0)
            if name.startswith("tri__") and path.endswith(".h") and end == ";":
                users = [p for p in where[name] if p != path and not defines(files[p], name)]
                inline = where[name][path] > 1  # an inline function of the header's, which has its own row
                if not users and not inline and name not in FOR_TESTS:
                    wrong.append(f"{path}: {name} has no user outside the file that defines it")
            elif "static" in head and "inline" in head and sum(where[name].values()) == 1 and not public:
                wrong.append(f"{path}: {name} has no user")
        for name in MACRO.findall(text):
            used = sum(where[name].values()) > 1 or path == ATOMICS  # the whole family is there
            if not used and not public and not name.endswith("_H"):
                wrong.append(f"{path}: macro {name} has no user")
        if public:
            continue
        for body in ENUM.findall(text):
            for name in re.findall(r"\b([A-Z]\w+)\b\s*(?:=|,|$)", body):
                if sum(where[name].values()) == 1 and name not in FOR_TESTS:
                    wrong.append(f"{path}: enumerator {name} has no user")
        for body in STRUCT.findall(text):
            for name in FIELD.findall(body):
                if sum(where.get(name, {}).values()) == 1:
                    wrong.append(f"{path}: field {name} has no user")
    return wrong


def defines(text, name):
    return re.search(r"^[\w][^;{}()=#]*?\b" + name + r"\([^;{}]*\)\s*(?:__attribute__\(\(.*?\)\)\s*)?\{", text, re.M)


def main():
    wrong = check(".")
    for row in wrong:
        print(f"unused: {row}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
