#!/usr/bin/env python3
"""What tables of size classes waste over sizes that real programs asked for.

    sizewaste.py SIZES...            a table in Markdown: ours, Go's, and eight classes to each power of two
    sizewaste.py --classes SIZES...  our classes one by one

SIZES are files that bench/field/record.c wrote: rows of size, lifetime, number of blocks. Waste is what is taken beyond
what was asked for, as a share of what is taken: by rounding a size up to its slot, and by what is left at the end of
a span (each slot pays its part). Blocks above 32 KiB are left out: no table has them.

Go's table has the slots and spans of Go's runtime since 1.16. The third table has the classes of jemalloc and many
others, a power of two and seven steps to the next (16 bytes apart below 128), in the shortest spans of at most 10
pages that keep an eighth or less for their ends.
"""

import re
import sys

PAGE = 8192
SMALL_MAX = 32768
MAX_PAGES = 10
TABLE = "alloc/sizeclass_table.h"
ROW = re.compile(r"SLOT\((\d+), (\d+), (\d+), (\d+), \d+u\)")

GO_SLOTS = (
    8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448,
    480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456,
    4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432,
    19072, 20480, 21760, 24576, 27264, 28672, 32768,
)
GO_PAGES = {
    1408: 2, 1792: 2, 2304: 2, 3072: 3, 3200: 2, 3456: 3, 4864: 3, 5376: 2, 6144: 3, 6528: 4, 6784: 5, 6912: 6,
    9472: 7, 9728: 6, 10240: 5, 10880: 4, 12288: 3, 13568: 5, 14336: 7, 16384: 2, 18432: 9, 19072: 7, 20480: 5,
    21760: 8, 24576: 3, 27264: 10, 28672: 7, 32768: 4,
}


class Class:
    def __init__(self, slot, npages, nslots):
        self.slot = slot
        self.taken = npages * PAGE / nslots  # with its part of the span's end


def ours(path):
    with open(path, encoding="utf-8") as file:
        return [Class(int(slot), int(npages), int(nslots)) for _, slot, npages, nslots in ROW.findall(file.read())]


def go():
    return [Class(slot, GO_PAGES.get(slot, 1), GO_PAGES.get(slot, 1) * PAGE // slot) for slot in GO_SLOTS]


def shortest(slot):
    """The shortest span whose end is at most an eighth; else the one with the smallest end."""
    best = None
    for npages in range(-(-slot // PAGE), MAX_PAGES + 1):
        nslots = npages * PAGE // slot
        share = 1 - nslots * slot / (npages * PAGE)
        if share <= 1 / 8:
            return Class(slot, npages, nslots)
        if best is None or share < best[0]:
            best = (share, Class(slot, npages, nslots))
    return best[1]


def eighths():
    slots = [8] + list(range(16, 129, 16))
    power = 128
    while power < SMALL_MAX:
        slots += [power + power // 8 * i for i in range(1, 9)]
        power *= 2
    return [shortest(slot) for slot in slots]


def read_sizes(path):
    """Blocks by size, the small ones."""
    blocks = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            fields = line.split()
            if len(fields) == 3 and fields[0].isdigit() and 0 < int(fields[0]) <= SMALL_MAX:
                blocks[int(fields[0])] = blocks.get(int(fields[0]), 0) + int(fields[2])
    return blocks


class Sum:
    def __init__(self):
        self.blocks = self.asked = self.slots = self.taken = 0

    def add(self, size, count, found):
        self.blocks += count
        self.asked += size * count
        self.slots += found.slot * count
        self.taken += found.taken * count

    def percent(self):
        """Lost by rounding, and at the ends of spans."""
        if not self.taken:
            return 0.0, 0.0
        return 100 * (self.slots - self.asked) / self.taken, 100 * (self.taken - self.slots) / self.taken


def measure(table, blocks, low=1, high=SMALL_MAX):
    total = Sum()
    for size, count in blocks.items():
        if low <= size <= high:
            total.add(size, count, next(c for c in table if c.slot >= size))
    return total


RANGES = ((1, 128), (129, 1024), (1025, 8192), (8193, SMALL_MAX), (1, SMALL_MAX))


def print_tables(names):
    tables = (("ours", ours(TABLE)), ("Go's", go()), ("eighths", eighths()))
    print("| sizes | blocks | KB | " + " | ".join(f"{name}, {len(table)} classes" for name, table in tables) + " |")
    print("|---|---|---|" + "---|" * len(tables))
    for name in names:
        blocks = read_sizes(name)
        for low, high in RANGES:
            sums = [measure(table, blocks, low, high) for _, table in tables]
            cells = [f"{a + b:.1f} % ({a:.1f} + {b:.1f})" for a, b in (s.percent() for s in sums)]
            label = name.rsplit("/", 1)[-1].removesuffix(".txt").removeprefix("sizes_")
            cells[:0] = [f"{label}, {low} to {high}", f"{sums[0].blocks}", f"{sums[0].asked // 1024}"]
            print("| " + " | ".join(cells) + " |")


def print_classes(names):
    table = ours(TABLE)
    blocks = {}
    for name in names:
        for size, count in read_sizes(name).items():
            blocks[size] = blocks.get(size, 0) + count
    below = 0
    print("| slot | blocks | lost by rounding | at ends | of all that is lost |")
    print("|---|---|---|---|---|")
    total = measure(table, blocks)
    for c in table:
        s = measure(table, blocks, below + 1, c.slot)
        below = c.slot
        if s.blocks:
            a, b = s.percent()
            part = 100 * (s.taken - s.asked) / (total.taken - total.asked)
            print(f"| {c.slot} | {s.blocks} | {a:.1f} % | {b:.1f} % | {part:.1f} % |")


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    if not names:
        raise SystemExit(__doc__)
    (print_classes if "--classes" in sys.argv else print_tables)(names)


if __name__ == "__main__":
    main()
