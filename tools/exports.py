#!/usr/bin/env python3
"""The public symbols, read from the public headers: what is declared with TRI_API is exported, and nothing else is.

    exports.py list HEADER...                 the names, one on a line
    exports.py script OUT HEADER...           a linker version script
    exports.py check --shared=SO --static=A HEADER...   do the built libraries agree?

What `check` holds (S1..S3):
  S1  every dynamic symbol that the shared library defines begins with tri_ and is declared with TRI_API;
  S2  every declared one is defined;
  S3  every global symbol that the static library defines begins with tri_ (tri__ for the internal ones), except the
      sanitizers' and the compiler's own, which begin with two underscores or belong to their run-time objects.
"""

import re
import subprocess
import sys

NODE = "TRIGC_0"
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.M)
FUNCTION = re.compile(r"\b(tri_\w+)\s*\(")
OBJECT = re.compile(r"\b(tri_\w+)\s*(?:\[[^\]]*\]\s*)*$")


def declared(text):
    """The names that TRI_API declares in a header's text."""
    text = DIRECTIVE.sub(" ", COMMENT.sub(" ", text))
    names = set()
    for statement in re.findall(r"\bTRI_API\b([^;{]*)[;{]", text):
        found = FUNCTION.search(statement) or OBJECT.search(statement.strip())
        if not found:
            raise SystemExit(f"exports: a TRI_API declaration without a tri_ name: {' '.join(statement.split())}")
        names.add(found.group(1))
    return names


def declared_in(headers):
    names = set()
    for header in headers:
        with open(header, encoding="utf-8") as file:
            names |= declared(file.read())
    return names


def version_script(names):
    rows = "".join(f"        {name};\n" for name in sorted(names))
    return f"{NODE} {{\n    global:\n{rows}    local:\n        *;\n}};\n"


def defined_symbols(path, dynamic):
    """(object, name) of each symbol with external linkage that a library defines."""
    command = ["nm", "--defined-only", "--extern-only", "--format=posix", "-A", path]
    if dynamic:
        command.insert(1, "--dynamic")
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    symbols = []
    for row in output.splitlines():
        place, _, rest = row.partition(": ")
        fields = rest.split()
        if len(fields) >= 2 and fields[1] != "U":
            symbols.append((place, fields[0].split("@")[0]))
    return symbols


def problems(names, shared, static):
    """What is wrong, in sentences."""
    wrong = []
    exported = {name for _, name in shared if name != NODE}
    for name in sorted(exported):
        if not name.startswith("tri_"):
            wrong.append(f"the shared library exports {name}, which does not begin with tri_")
        elif name not in names:
            wrong.append(f"the shared library exports {name}, which no public header declares with TRI_API")
    missing = sorted(names - exported)
    if missing:
        wrong.append(f"declared with TRI_API but not exported: {', '.join(missing)}")
    for place, name in static:
        own_runtime = re.search(r"(ubsan_rt|compiler_rt|tsan)\S*\.o", place)
        if not name.startswith("tri_") and not name.startswith("__") and not own_runtime:
            wrong.append(f"{place} defines the global symbol {name}, which does not begin with tri_")
    return wrong


def check(arguments):
    shared = static = None
    headers = []
    for argument in arguments:
        if argument.startswith("--shared="):
            shared = argument.partition("=")[2]
        elif argument.startswith("--static="):
            static = argument.partition("=")[2]
        else:
            headers.append(argument)
    names = declared_in(headers)
    wrong = problems(
        names,
        defined_symbols(shared, True) if shared else [],
        defined_symbols(static, False) if static else [],
    )
    for sentence in wrong:
        print(f"exports: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    mode, arguments = sys.argv[1], sys.argv[2:]
    if mode == "list":
        print("\n".join(sorted(declared_in(arguments))))
    elif mode == "script":
        with open(arguments[0], "w", encoding="utf-8") as file:
            file.write(version_script(declared_in(arguments[1:])))
    elif mode == "check":
        return check(arguments)
    else:
        raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
