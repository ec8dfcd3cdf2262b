#!/usr/bin/env python3
"""Draws the resident memory of examples/proxy over time, a curve for each run; the idle part of the time is shaded.

    resident.py OUT.svg [NAME=]FILE.csv ...

The files are those that `proxy --csv=FILE` writes. A curve is named after its file where no name is given.
"""

import csv
import html
import math
import os
import sys

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 380, 62, 66, 24, 44
COLOURS = {"collected": "#0969da", "cleanup": "#1a7f37", "manual": "#8250df", "malloc": "#57606a", "boehm": "#cf222e"}
OTHERS = ("#bf8700", "#bc4c00", "#0550ae")
COLUMNS = ["ms", "phase", "resident_bytes", "heap_bytes", "beside_bytes", "cycles", "requests"]


def read(argument):
    name, _, path = argument.rpartition("=")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or list(rows[0]) != COLUMNS:
        raise SystemExit(f"resident: {path} is no file of proxy --csv")
    samples = [(int(row["ms"]) / 1000, int(row["resident_bytes"]) / 2**20, row["phase"]) for row in rows]
    return name or os.path.splitext(os.path.basename(path))[0], samples


def step(most):
    """A round distance between lines, for at most eight of them."""
    power = 10 ** math.floor(math.log10(max(most, 1) / 8))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if most / (power * factor) <= 8)


def text(x, y, what, **attributes):
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{html.escape(what)}</text>'


def draw(runs):
    seconds = max(samples[-1][0] for _, samples in runs)
    most = max(mb for _, samples in runs for _, mb, _ in samples) * 1.05
    idle = min(next((s for s, _, phase in samples if phase == "idle"), seconds) for _, samples in runs)

    def x_of(s):
        return LEFT + (WIDTH - LEFT - RIGHT) * s / seconds

    def y_of(mb):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * mb / most

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#1f2328">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(LEFT, 20, "Resident memory of the proxy: load, then none", font_weight="bold"),
        f'<rect x="{x_of(idle):.1f}" y="{TOP}" width="{x_of(seconds) - x_of(idle):.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}" fill="#f6f8fa"/>',
    ]
    mb = 0.0
    while mb <= most:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(mb):.1f}" y2="{y_of(mb):.1f}" stroke="#d0d7de"/>')
        out.append(text(LEFT - 6, y_of(mb) + 4, f"{mb:.0f} MB", text_anchor="end"))
        mb += step(most)
    s = 0.0
    while s <= seconds:
        out.append(text(x_of(s), HEIGHT - BOTTOM + 18, f"{s:g} s", text_anchor="middle"))
        s += step(seconds)
    for i, (name, samples) in enumerate(runs):
        colour = COLOURS.get(name, OTHERS[i % len(OTHERS)])
        points = " ".join(f"{x_of(s):.1f},{y_of(mb):.1f}" for s, mb, _ in samples)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        top, last = max(mb for _, mb, _ in samples), samples[-1][1]
        label = f"{name}: {top:.0f} MB at most, {last:.0f} MB at the end"
        out.append(text(LEFT + 10 + 240 * (i % 3), TOP - 28 + 16 * (i // 3), label, fill=colour))
    return "\n".join(out + ["</svg>"]) + "\n"


def main(arguments):
    if len(arguments) < 2:
        raise SystemExit(__doc__.strip())
    picture = draw([read(argument) for argument in arguments[1:]])
    with open(arguments[0], "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main(sys.argv[1:])
