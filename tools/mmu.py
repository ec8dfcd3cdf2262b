#!/usr/bin/env python3
"""Minimum mutator utilisation (Cheng and Blelloch 2001): for a window of time, the least share of any such window
that a thread had for itself. From what `bench-trigc ... --events=FILE` records.

    mmu.py stop=stop.txt concurrent=concurrent.txt [--svg=docs/mmu.svg]

Prints a table, a column for each file, and draws the curves. Waits that the program asked for do not count.
"""

import bisect
import html
import math
import sys

WINDOWS_NS = [int(10 ** (exponent / 4)) for exponent in range(16, 38)]  # 10 us to 1.8 s
COLOURS = ("#cf222e", "#bf8700", "#8250df", "#0969da", "#1a7f37", "#57606a")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 560, 320, 58, 44, 30, 40


def read(path):
    """The run's two ends, and each thread's pauses as disjoint (start, end), in order."""
    run, threads = None, {}
    with open(path, encoding="ascii") as file:
        for line in file:
            word = line.split()
            if word[0] == "run":
                run = (int(word[1]), int(word[2]))
            elif word[0] == "lost":
                raise SystemExit(f"mmu: {path} has no room for {word[1]} events of its run")
            elif word[0] == "pause" and word[4] != "wait":
                threads.setdefault(word[1], []).append((int(word[2]), int(word[3])))
    if run is None:
        raise SystemExit(f"mmu: {path} has no line of the run's ends")
    return run, [merge(pauses, run) for pauses in threads.values()]


def merge(pauses, run):
    """Pauses within each other (a scan within a handshake) are one."""
    out = []
    for start, end in sorted((max(s, run[0]), min(e, run[1])) for s, e in pauses):
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([start, end])
    return out


class Thread:
    def __init__(self, pauses):
        self.starts = [p[0] for p in pauses]
        self.ends = [p[1] for p in pauses]
        self.sums = [0]
        for start, end in pauses:
            self.sums.append(self.sums[-1] + end - start)

    def before(self, time):
        """Pause time up to `time`."""
        n = bisect.bisect_right(self.starts, time)
        return self.sums[n] - (max(0, self.ends[n - 1] - time) if n else 0)

    def paused(self, start, window):
        return self.before(start + window) - self.before(start)


def mmu(run, threads, window):
    """A worst window begins with a pause or ends with one."""
    worst = 0
    for pauses in threads:
        thread = Thread(pauses)
        for start, end in pauses:
            for at in (start, end - window):
                at = min(max(at, run[0]), run[1] - window)
                worst = max(worst, thread.paused(at, window))
    return 1 - worst / window


def span_text(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"


def x_of(ns):
    low, high = math.log10(WINDOWS_NS[0]), math.log10(WINDOWS_NS[-1])
    return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(ns) - low) / (high - low)


def y_of(share):
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def draw(curves):
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#1f2328">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">Least share of a window that each thread had for itself</text>',
    ]
    for percent in range(0, 101, 25):
        y = y_of(percent / 100)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for exponent in range(4, 10):
        x, label = x_of(10**exponent), span_text(10**exponent)
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>')
    for i, (name, curve) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(f"{x_of(ns):.1f},{y_of(share):.1f}" for ns, share in curve)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{LEFT + 10}" y="{TOP + 14 + 16 * i}" fill="{colour}">{html.escape(name)}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    svg, curves = None, []
    for argument in sys.argv[1:]:
        if argument.startswith("--svg="):
            svg = argument.split("=", 1)[1]
            continue
        name, found, path = argument.partition("=")
        run, threads = read(path if found else name)
        windows = [ns for ns in WINDOWS_NS if ns < run[1] - run[0]]
        curves.append((name, [(ns, mmu(run, threads, ns)) for ns in windows]))
    if not curves:
        raise SystemExit(__doc__)
    print("window".rjust(10), *(name.rjust(12) for name, _ in curves))
    for i, ns in enumerate(WINDOWS_NS):
        shares = [f"{curve[i][1] * 100:.1f} %" if i < len(curve) else "" for _, curve in curves]
        print(span_text(ns).rjust(10), *(share.rjust(12) for share in shares))
    if svg:
        with open(svg, "w", encoding="utf-8") as file:
            file.write(draw(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
