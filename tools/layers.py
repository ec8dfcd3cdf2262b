#!/usr/bin/env python3
"""Includes go one way. Prints each #include that points up, and fails if there is one.

    layers.py [ROOT]

The layers, from the bottom, and what each may include besides the system's headers:

    include/      public; nothing internal at all
    alloc/base/   knows nothing of heaps: itself and the public headers
    alloc/        pages and slots: alloc/base and itself, never gc/
    gc/           liveness: everything above
    tests, examples, bench: examples only the public headers and their own folder; the others everything

Internal headers are included by their path from the root ("alloc/span.h"), so that the layer shows in every include;
that too is checked.
"""

import os
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"/\*.*?\*/", re.S)

# folder -> what its files may name in an #include with a path from the root
LAYERS = [
    ("include", ()),
    ("alloc/base", ("alloc/base",)),
    ("alloc", ("alloc/base", "alloc")),
    ("gc", ("alloc/base", "alloc", "gc")),
    ("examples", ("examples",)),
    ("bench", ("alloc/base", "alloc", "gc", "bench", "examples")),
    ("tests", ("alloc/base", "alloc", "gc", "bench", "examples", "tests")),
]
INTERNAL = ("alloc", "gc", "tests", "examples", "bench")


def layer_of(path):
    """The innermost folder of LAYERS that holds a path from the root, or None."""
    best = None
    for folder, _ in LAYERS:
        if path.startswith(folder + "/") and (best is None or len(folder) > len(best)):
            best = folder
    return best


def complaint(root, path, style, name):
    """What is wrong with one include, or None."""
    folder = layer_of(path)
    allowed = dict(LAYERS)[folder]
    if name.startswith("trigc") or name.split("/")[0] == "trigc":
        if style == '"':
            return f'includes "{name}"; the public headers are included as <{name}>'
        return None
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    if ".." in name.split("/"):
        return f'includes "{name}"; write the path from the root'
    if style == "<" and not os.path.exists(os.path.join(root, name)):
        return None  # the system's; Boehm's own headers are <gc/...> too
    if name.split("/")[0] in INTERNAL:
        target = layer_of(name)
        if style == "<":
            return f'includes <{name}>; internal headers go in quotes'
        if target is None or not any(target == one or target.startswith(one + "/") for one in allowed):
            return f'includes "{name}": {folder}/ may not include {target}/'
        if target == folder == "alloc" or target in allowed:
            return None
        return f'includes "{name}": {folder}/ may not include {target}/'
    ours = folder in ("alloc", "alloc/base", "gc", "include")
    if style == '"' and ours and os.path.exists(os.path.join(root, beside)):
        return f'includes "{name}"; write "{beside}"'
    return None


def check(root):
    wrong = []
    nfiles = 0
    for top in sorted({folder.split("/")[0] for folder, _ in LAYERS}):
        for where, folders, files in os.walk(os.path.join(root, top)):
            folders[:] = sorted(name for name in folders if name not in ("fixtures", "__pycache__"))
            for name in sorted(files):
                if not name.endswith((".c", ".h")):
                    continue
                nfiles += 1
                path = os.path.relpath(os.path.join(where, name), root)
                with open(os.path.join(root, path), encoding="utf-8") as file:
                    text = COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), file.read())
                for found in INCLUDE.finditer(text):
                    sentence = complaint(root, path, found.group(1), found.group(2))
                    if sentence:
                        line = text.count("\n", 0, found.start()) + 1
                        wrong.append(f"{path}:{line}: {sentence}")
    return wrong, nfiles


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    wrong, nfiles = check(root)
    for sentence in wrong:
        print(f"layers: {sentence}", file=sys.stderr)
    if nfiles == 0:
        print(f"layers: no C files under {root}", file=sys.stderr)
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
