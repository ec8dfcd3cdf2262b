/*
 * The size classes: the committed table against the rule derived in another way, each column of the printed table
 * against a count over slots and requests, and the properties that the heap relies on for every size from 1 to 32768.
 *
 * The generator and the print tool are part of this program, with their main functions renamed.
 */
#include "tests/plain.h"

#include "alloc/base/bits.h"
#include "alloc/sizeclass.h"

#define main mksizeclass_main
#include "tools/mksizeclass.c"
#undef main
#define main sizeclasses_main
#include "tools/sizeclasses.c"
#undef main

static const struct size_class *class_at(unsigned c) {
    return &tri__size_classes[c];
}

static unsigned span_bytes(const struct size_class *c) {
    return c->npages * 8192u;
}

/* ---- The rule again, by search instead of by steps ---- */

/* What a span of npages pages offers a slot size; 0 slots where the rule forbids it. */
static unsigned slots_in(unsigned slot, unsigned npages) {
    unsigned n = 0, at = 0;
    while (at + slot <= npages * 8192) {
        at += slot;
        n++;
    }
    unsigned tail = npages * 8192 - at;
    if (n < 16 && npages < 7) return 0; /* so few only where the span is long */
    return n <= 992 && 8 * tail <= npages * 8192 ? n : 0;
}

static unsigned fewest_pages(unsigned slot) {
    unsigned npages = 1;
    while (slots_in(slot, npages) == 0) {
        npages++;
    }
    return npages;
}

/* The slot size that follows `below`: of all sizes on the grid with as many slots in as many pages as the first
 * candidate, an eighth of the octave away, the widest that keeps rounding within an eighth. */
static unsigned next_slot(unsigned below) {
    unsigned octave = 128;
    while (octave * 2 <= below) {
        octave *= 2;
    }
    unsigned candidate = below + octave / 8 < 32768 ? below + octave / 8 : 32768;
    unsigned npages = fewest_pages(candidate);
    unsigned widest = candidate;
    for (unsigned s = candidate; s <= 32768; s += s < 1024 ? 16 : 128) {
        bool rounding_kept = s < 128 || 8 * (s - (below + 1)) <= s;
        if (rounding_kept && npages * 8192 / s == npages * 8192 / candidate) {
            widest = s;
        }
    }
    return widest;
}

TEST(sizeclass, table_follows_the_rule) {
    unsigned slots[256] = {0, 8};
    unsigned n = 2;
    for (unsigned slot = 0; slot < 32768; n++) {
        slot = next_slot(slot);
        slots[n] = slot;
    }
    CHECK_EQ(n, NUM_SIZE_CLASSES);
    for (unsigned c = 1; c < n; c++) {
        CHECK_EQ(class_at(c)->slot_bytes, slots[c]);
    }
    for (unsigned c = n - 1; c >= 2; c--) {
        unsigned npages = fewest_pages(slots[c]);
        if (c < n - 1) { /* a span that gives more slots for its pages than the next class's */
            const struct size_class *upper = class_at(c + 1);
            while (slots_in(slots[c], npages) * upper->npages <= (unsigned)upper->nslots * npages) {
                npages++;
            }
        }
        CHECK_EQ(class_at(c)->npages, npages);
        CHECK_EQ(class_at(c)->nslots, slots_in(slots[c], npages));
    }
}

TEST(sizeclass, committed_table_is_what_the_generator_writes) {
    char path[4096];
    char *argv[] = {(char[]){"mksizeclass"}, path, NULL};
    snprintf(path, sizeof path, "%s", __FILE__);
    char *slash = strrchr(path, '/');
    snprintf(slash ? slash : path, sizeof path - (size_t)((slash ? slash : path) - path), "%s",
             "/../alloc/sizeclass_table.h");
    CHECK_EQ(mksizeclass_main(2, argv), 0);
}

/* ---- Properties ---- */

TEST(sizeclass, classes_rise_and_are_aligned) {
    CHECK_EQ(class_at(0)->slot_bytes, 0);
    CHECK_EQ(class_at(1)->slot_bytes, 8);
    CHECK_EQ(class_at(2)->slot_bytes, 16);
    CHECK_EQ(class_at(NUM_SIZE_CLASSES - 1)->slot_bytes, SMALL_MAX_BYTES);
    for (unsigned c = 2; c < NUM_SIZE_CLASSES; c++) {
        CHECK(class_at(c)->slot_bytes > class_at(c - 1)->slot_bytes);
        for (unsigned i = 0; i < class_at(c)->nslots; i++) {
            CHECK_EQ(i * class_at(c)->slot_bytes % 16, 0);
        }
    }
}

TEST(sizeclass, spans_are_small_and_waste_at_most_an_eighth) {
    for (unsigned c = 1; c < NUM_SIZE_CLASSES; c++) {
        const struct size_class *k = class_at(c);
        unsigned tail = span_bytes(k) - k->nslots * k->slot_bytes;
        CHECK(k->npages >= 1 && k->npages <= 10);
        CHECK(k->nslots >= 1 && k->nslots <= 992);
        CHECK(k->nslots * k->slot_bytes <= span_bytes(k));
        CHECK(8 * tail <= span_bytes(k));
        CHECK(c == 1 || tail < k->slot_bytes);
    }
    CHECK_EQ(span_bytes(class_at(1)) - class_at(1)->nslots * 8, 2 * 128); /* the 8-byte class's own bits */
}

TEST(sizeclass, every_size_gets_the_smallest_class_that_holds_it) {
    for (unsigned size = 1; size <= SMALL_MAX_BYTES; size++) {
        unsigned c = size_class_of(size), scan = size_class_of_scan(size);
        CHECK(c >= 1 && c < NUM_SIZE_CLASSES);
        CHECK(class_at(c)->slot_bytes >= size);
        CHECK(c == 1 || class_at(c - 1)->slot_bytes < size);
        CHECK_EQ(scan, c == 1 ? 2 : c);
        if (size >= 128) {
            CHECK_MSG(8 * (class_at(c)->slot_bytes - size) <= class_at(c)->slot_bytes, "size %u in class %u", size, c);
        }
    }
}

TEST(sizeclass, reciprocal_divides_every_offset) {
    for (unsigned c = 1; c < NUM_SIZE_CLASSES; c++) {
        const struct size_class *k = class_at(c);
        for (uint64_t offset = 0; offset < span_bytes(k); offset++) {
            CHECK_MSG((offset * k->reciprocal) >> 32 == offset / k->slot_bytes, "class %u, offset %" PRIu64, c, offset);
        }
    }
}

/* No class is useless: a full span of it holds more objects for its pages than one of the class above. */
TEST(sizeclass, each_class_saves_memory_over_the_next) {
    for (unsigned c = 1; c + 1 < NUM_SIZE_CLASSES; c++) {
        const struct size_class *lower = class_at(c), *upper = class_at(c + 1);
        CHECK(lower->nslots * upper->npages > upper->nslots * lower->npages);
    }
}

/* ---- The printed columns ---- */

struct row {
    unsigned number, slot, span, nslots, tail, align;
    double max_waste;
};

/* Waste of a span whose slots all hold the worst request of the class, found by trying them all, in per cent. */
static double worst_waste(unsigned c) {
    unsigned worst = 0;
    for (unsigned size = 1; size <= SMALL_MAX_BYTES; size++) {
        if (size_class_of(size) == c) {
            unsigned used = size * class_at(c)->nslots;
            worst = span_bytes(class_at(c)) - used > worst ? span_bytes(class_at(c)) - used : worst;
        }
    }
    return 100.0 * worst / span_bytes(class_at(c));
}

/* The alignment, at most a page, of a slot that begins where another of the class ends. */
static unsigned common_align(unsigned c) {
    unsigned align = 8192;
    for (unsigned i = 0; i <= class_at(c)->nslots; i++) {
        while (i * class_at(c)->slot_bytes % align != 0) {
            align /= 2;
        }
    }
    return align;
}

static void check_row(const struct row *r, unsigned c) {
    CHECK_EQ(r->number, c);
    CHECK_EQ(r->slot, class_at(c)->slot_bytes);
    CHECK_EQ(r->span, span_bytes(class_at(c)));
    CHECK_EQ(r->nslots, class_at(c)->nslots);
    CHECK_EQ(r->tail, span_bytes(class_at(c)) - class_at(c)->nslots * class_at(c)->slot_bytes);
    CHECK(r->max_waste > worst_waste(c) - 0.006 && r->max_waste < worst_waste(c) + 0.006);
    CHECK_EQ(r->align, common_align(c));
}

TEST(sizeclass, printed_columns_are_true) {
    char line[256];
    FILE *out = tmpfile();
    CHECK(out != NULL);
    CHECK_EQ(print_size_classes(out), 0);
    rewind(out);
    CHECK(fgets(line, sizeof line, out) != NULL);
    CHECK_STR_EQ(line, "class  bytes/obj  bytes/span  objects  tail waste  max waste  min align\n");
    for (unsigned c = 1; c < NUM_SIZE_CLASSES; c++) {
        struct row r;
        CHECK(fgets(line, sizeof line, out) != NULL);
        CHECK_EQ(sscanf(line, "%u %u %u %u %u %lf%% %u", &r.number, &r.slot, &r.span, &r.nslots, &r.tail, &r.max_waste,
                        &r.align),
                 7);
        check_row(&r, c);
    }
    CHECK(fgets(line, sizeof line, out) == NULL);
    fclose(out);
}
