#!/usr/bin/env python3
"""Draws the README's picture from the results of a demo run: one panel a scene, time between operations over
percentile, both axes logarithmic, a curve for each collector.

    pauses.py [zig-out/demo/results.json [docs/pauses.svg]] [--scenes=store,lru512]
"""

import html
import json
import math
import sys

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 480, 300, 58, 44, 30, 40
NINES = 6  # the percentile axis ends at 99.9999 %
COLOURS = {"trigc": "#0969da", "boehm": "#cf222e", "boehm incremental": "#bf8700", "boehm typed": "#8250df"}
MODES = ("stop", "stop-mark", "insertion", "concurrent", "incremental")  # of the scene "history"
COLOURS.update(zip(MODES, ("#cf222e", "#bf8700", "#8250df", "#0969da", "#1a7f37")))
WANTED = ("store", "lru512")


def x_of(quantile):
    """1 - 10^-n lies n units to the right."""
    n = -math.log10(max(1 - quantile, 10**-NINES))
    return LEFT + (WIDTH - LEFT - RIGHT) * n / NINES


def y_of(ns, low, high):
    part = (math.log10(max(ns, 10**low)) - low) / (high - low)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part


def time_text(exponent):
    units = ((9, "s"), (6, "ms"), (3, "us"), (0, "ns"))
    power, unit = next((p, u) for p, u in units if exponent >= p)
    return f"{10 ** (exponent - power)} {unit}"


def text(x, y, what, **attributes):
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{html.escape(what)}</text>'


def curve(row, low, high):
    points = []
    for quantile, ns in row["gaps"]["curve"]:
        points.append(f"{x_of(quantile):.1f},{y_of(ns, low, high):.1f}")
    points.append(f"{x_of(1):.1f},{y_of(row['gaps']['worst'], low, high):.1f}")
    return " ".join(points)


def panel(scene):
    rows = [row for row in scene["rows"] if row["ok"] and "gaps" in row and row["peer"] in COLOURS]
    low = 1
    high = math.ceil(math.log10(max(row["gaps"]["worst"] for row in rows)))
    out = [text(LEFT, 20, scene["title"], font_weight="bold")]
    for exponent in range(low, high + 1):
        y = y_of(10**exponent, low, high)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        out.append(text(LEFT - 6, y + 4, time_text(exponent), text_anchor="end"))
    for nines in range(NINES + 1):
        x = x_of(1 - 10**-nines)
        percent = f"{100 - 10 ** (2 - nines):.{max(nines - 2, 0)}f} %"
        label = "0" if nines == 0 else "worst" if nines == NINES else percent
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eaeef2"/>')
        out.append(text(x, HEIGHT - BOTTOM + 18, label, text_anchor="middle"))
    for i, row in enumerate(rows):
        colour = COLOURS[row["peer"]]
        out.append(f'<polyline points="{curve(row, low, high)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        worst = row["gaps"]["worst"] / 1e6
        out.append(text(LEFT + 10, TOP + 16 + 16 * i, f"{row['peer']}: worst {worst:.1f} ms", fill=colour))
    return "\n".join(out)


def draw(results, wanted):
    scenes = {scene["id"]: scene for scene in results["scenes"]}
    chosen = [scenes[name] for name in wanted if name in scenes]
    if not chosen:
        raise SystemExit(f"pauses: none of the scenes {', '.join(wanted)} is in the results")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(chosen)}" height="{HEIGHT + 20}" '
        f'viewBox="0 0 {WIDTH * len(chosen)} {HEIGHT + 20}" font-family="sans-serif" font-size="12" fill="#1f2328">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for i, scene in enumerate(chosen):
        out += [f'<g transform="translate({WIDTH * i} 0)">', panel(scene), "</g>"]
    machine = f"{results['cores']} cores, {results['cpu']}, {results['when']}"
    machine = f"time between two operations, by percentile; {machine}"
    out += [text(LEFT, HEIGHT + 10, machine, fill="#656d76"), "</svg>", ""]
    return "\n".join(out)


def main():
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    wanted = WANTED
    for argument in sys.argv[1:]:
        if argument.startswith("--scenes="):
            wanted = tuple(argument.split("=", 1)[1].split(","))
    source = names[0] if names else "zig-out/demo/results.json"
    target = names[1] if len(names) > 1 else "docs/pauses.svg"
    with open(source, encoding="utf-8") as file:
        picture = draw(json.load(file), wanted)
    with open(target, "w", encoding="utf-8") as file:
        file.write(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
