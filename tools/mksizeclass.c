/* mksizeclass.c - writes alloc/sizeclass_table.h from the rule below; `mksizeclass FILE` compares with a file instead.
 *
 * Owns: the rule of the size classes. Does not own: their use (alloc/sizeclass.h), nor the check that the committed
 * table follows the rule (tests/test_sizeclass.c, which derives it in another way).
 *
 * The rule:
 * 1. The 8-byte class comes first, with one page of 992 slots: the last 256 bytes of its span are its own bits.
 * 2. From a class of size p the next candidate is p + step, where step is an eighth of the power of two at or below p,
 *    and at least 16. So rounding up wastes at most an eighth of a slot from 128 bytes up.
 * 3. Of spans of 1 to 10 pages, those that waste at most an eighth at their end and hold 16 slots, or have 56 KiB, are
 *    allowed; the smallest is tried. (With a slot a span, as 8 KiB would have in one page, an object costs what a span
 *    costs: 63 ns measured, 21 with six; of 1 KiB 9 ns with sixteen, 12 with eight.)
 * 4. The class is widened, by 16 bytes (by 128 above 1024, the resolution of the maps), as long as that span holds as
 *    many slots and rounding still wastes at most an eighth. That merges neighbours of equal pages and slots.
 * 5. From the top down, each class gets the smallest allowed span that holds more slots per page than the span of the
 *    class above; where rounding forbade a merge, the lower of two neighbours would otherwise save nothing. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAGE = 8192,
    MAX_PAGES = 10,
    WANTED_SLOTS = 16,
    ENOUGH_PAGES = 7, /* whatever the number of slots */
    MAX_SMALL = 32768,
    FINE_LIMIT = 1024, /* up to here the map has a step of 8 */
    FINE_STEP = 8,
    COARSE_STEP = 128,
    MAX_SLOTS = 992,
    MAX_CLASSES = 128
};

struct class {
    unsigned slot, npages, nslots;
    uint32_t reciprocal;
};

static struct class classes[MAX_CLASSES + 1];
static unsigned nclasses = 1; /* class 0 is "large" */

static _Noreturn void fail(const char *what, unsigned slot) {
    fprintf(stderr, "mksizeclass: %s (slot of %u bytes)\n", what, slot);
    exit(1);
}

static unsigned power_of_two_below(unsigned n) {
    unsigned p = 1;
    while (p * 2 <= n) {
        p *= 2;
    }
    return p;
}

static unsigned step_after(unsigned previous) {
    unsigned step = power_of_two_below(previous) / 8;
    return step < 16 ? 16 : step;
}

/* The largest request that `slot` wastes on is the one just above the previous class. */
static bool rounding_allowed(unsigned slot, unsigned previous) {
    return slot < 128 || (slot - previous - 1) * 8 <= slot;
}

static bool span_allowed(unsigned slot, unsigned npages) {
    unsigned span = npages * PAGE;
    if (span / slot < WANTED_SLOTS && npages < ENOUGH_PAGES) {
        return false;
    }
    return slot <= span && span % slot * 8 <= span && span / slot <= MAX_SLOTS;
}

static unsigned least_pages(unsigned slot) {
    for (unsigned n = 1; n <= MAX_PAGES; n++) {
        if (span_allowed(slot, n)) {
            return n;
        }
    }
    fail("no span of at most 10 pages keeps its tail within an eighth", slot);
}

static unsigned widen(unsigned slot, unsigned npages, unsigned previous) {
    unsigned nslots = npages * PAGE / slot;
    for (;;) {
        unsigned wider = slot + (slot >= FINE_LIMIT ? COARSE_STEP : 16);
        if (wider > MAX_SMALL || npages * PAGE / wider != nslots || !rounding_allowed(wider, previous)) {
            return slot;
        }
        slot = wider;
    }
}

static void add_class(unsigned slot) {
    if (nclasses == MAX_CLASSES) {
        fail("more classes than a byte of the maps should hold", slot);
    }
    classes[nclasses++] = (struct class){.slot = slot};
}

static void derive(void) {
    add_class(8);
    classes[1].npages = 1;
    classes[1].nslots = MAX_SLOTS;
    unsigned previous = 0;
    while (previous < MAX_SMALL) {
        unsigned slot = previous + step_after(previous);
        if (slot > MAX_SMALL) {
            slot = MAX_SMALL;
        }
        previous = widen(slot, least_pages(slot), previous);
        add_class(previous);
    }
}

/* Point 5. */
static void choose_spans(void) {
    for (unsigned i = nclasses - 1; i > 1; i--) {
        struct class *c = &classes[i];
        const struct class *above = &classes[i + 1]; /* all zero above the last */
        c->npages = 0;
        do {
            c->npages++;
            if (c->npages > MAX_PAGES) {
                fail("saves nothing over the next class with any span", c->slot);
            }
            c->nslots = c->npages * PAGE / c->slot;
        } while (!span_allowed(c->slot, c->npages) ||
                 (i + 1 < nclasses && c->nslots * above->npages <= above->nslots * c->npages));
    }
}

/* Division by multiplication, proved for every offset within the span, its tail included. */
static void prove_reciprocal(struct class *c) {
    uint64_t r = ((uint64_t)1 << 32) / c->slot + 1;
    for (uint64_t offset = 0; offset < (uint64_t)c->npages * PAGE; offset++) {
        if ((offset * r) >> 32 != offset / c->slot) {
            fail("the reciprocal is wrong at some offset", c->slot);
        }
    }
    c->reciprocal = (uint32_t)r;
}

static unsigned class_of(unsigned size) {
    unsigned c = 1;
    while (classes[c].slot < size) {
        c++;
    }
    return c;
}

static void print_map(FILE *out, const char *name, unsigned from, unsigned step, unsigned count) {
    fprintf(out, "\n#define %s \\\n    {", name);
    for (unsigned i = 0; i < count; i++) {
        const char *lead = i == 0 ? "" : i % 24 == 0 ? ", \\\n     " : ", ";
        fprintf(out, "%s%u", lead, class_of(from + i * step));
    }
    fprintf(out, "}\n");
}

static void print_table(FILE *out) {
    unsigned nfine = FINE_LIMIT / FINE_STEP + 1;
    unsigned ncoarse = (MAX_SMALL - FINE_LIMIT) / COARSE_STEP + 1;
    fprintf(out, "/* sizeclass_table.h - written by tools/mksizeclass.c, which states the rule; never edited. */\n"
                 "/* clang-format off */\n"
                 "#ifndef TRI_ALLOC_SIZECLASS_TABLE_H\n#define TRI_ALLOC_SIZECLASS_TABLE_H\n\n#include <stdint.h>\n\n");
    fprintf(out, "enum { NUM_SIZE_CLASSES = %u };\n\n", nclasses);
    fprintf(out, "/* By (size + %u) / %u, up to %u. */\nextern const uint8_t tri__class_by_8[%u];\n", FINE_STEP - 1,
            FINE_STEP, FINE_LIMIT, nfine);
    fprintf(out, "/* By (size - %u + %u) / %u, from %u to %u. */\nextern const uint8_t tri__class_by_128[%u];\n\n",
            FINE_LIMIT, COARSE_STEP - 1, COARSE_STEP, FINE_LIMIT, MAX_SMALL, ncoarse);
    fprintf(out, "/* SLOT(class, slot_bytes, npages, nslots, reciprocal) */\n#define TRI__SIZE_CLASS_TABLE(SLOT)");
    for (unsigned i = 1; i < nclasses; i++) {
        const struct class *c = &classes[i];
        fprintf(out, " \\\n    SLOT(%u, %u, %u, %u, %uu)", i, c->slot, c->npages, c->nslots, c->reciprocal);
    }
    fprintf(out, "\n");
    print_map(out, "TRI__CLASS_BY_8", 0, FINE_STEP, nfine);
    print_map(out, "TRI__CLASS_BY_128", FINE_LIMIT, COARSE_STEP, ncoarse);
    fprintf(out, "\n#endif\n");
}

/* 0 if the file is what print_table writes. */
static int compare(const char *path) {
    FILE *ours = tmpfile();
    FILE *theirs = fopen(path, "r");
    if (ours == NULL || theirs == NULL) {
        perror(path);
        return 2;
    }
    print_table(ours);
    rewind(ours);
    long offset = 0;
    int a, b;
    do {
        a = getc(ours);
        b = getc(theirs);
        offset++;
    } while (a == b && a != EOF);
    fclose(ours);
    fclose(theirs);
    if (a != b) {
        fprintf(stderr, "mksizeclass: %s differs from the rule at byte %ld: write it anew\n", path, offset);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    derive();
    choose_spans();
    for (unsigned i = 1; i < nclasses; i++) {
        prove_reciprocal(&classes[i]);
    }
    if (argc > 1) {
        return compare(argv[1]);
    }
    print_table(stdout);
    return fflush(stdout) == 0 ? 0 : 2;
}
