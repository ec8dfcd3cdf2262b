/* pageheap_summary.c - runs of free pages: within a chunk by bit tricks, over wider ranges by merging.
 *
 * Owns no state. The tests compare both with a count page by page. */
#include "alloc/pageheap_summary.h"

#include "alloc/base/bits.h"

#define WHOLE ((page_summary)1 << 63)
#define FIELD_MASK (((page_summary)1 << SUMMARY_BITS) - 1)

page_summary tri__summary_pack(struct page_runs runs) {
    if (runs.max == (size_t)1 << SUMMARY_BITS) {
        return WHOLE;
    }
    return (page_summary)runs.start | (page_summary)runs.max << SUMMARY_BITS |
           (page_summary)runs.end << 2 * SUMMARY_BITS;
}

struct page_runs tri__summary_unpack(page_summary summary) {
    if (summary & WHOLE) {
        size_t all = (size_t)1 << SUMMARY_BITS;
        return (struct page_runs){all, all, all};
    }
    return (struct page_runs){.start = summary & FIELD_MASK,
                              .max = summary >> SUMMARY_BITS & FIELD_MASK,
                              .end = summary >> 2 * SUMMARY_BITS & FIELD_MASK};
}

page_summary tri__summary_merge(const page_summary *parts, size_t part_pages) {
    struct page_runs all = {0, 0, 0};
    bool unbroken = true; /* every part so far is wholly free */
    for (unsigned i = 0; i < SUMMARY_FANOUT; i++) {
        struct page_runs part = tri__summary_unpack(parts[i]);
        if (unbroken) {
            all.start += part.start;
        }
        all.max = max_size(all.max, max_size(part.max, all.end + part.start));
        if (part.start == part_pages) {
            all.end += part_pages;
        } else {
            all.end = part.end;
            unbroken = false;
        }
    }
    return tri__summary_pack(all);
}

/* The bits from which a run of `length` ones (1 to 64) rises: `length` - 1 shifts done in logarithmic number. */
static uint64_t run_starts(uint64_t w, size_t length) {
    size_t have = 1;
    while (w != 0 && have < length) {
        size_t by = min_size(have, length - have);
        w &= w >> by;
        have += by;
    }
    return w;
}

/* The length of the longest run of ones in w, if it is above `best`; else `best`. */
static size_t longest_run(uint64_t w, size_t best) {
    if (best >= 64) {
        return best;
    }
    for (uint64_t starts = run_starts(w, best + 1); starts != 0; starts &= w >> best) {
        best++;
    }
    return best;
}

static size_t ones_low(uint64_t w) {
    return ~w == 0 ? 64 : bit_lowest(~w);
}

static size_t ones_high(uint64_t w) {
    return ~w == 0 ? 64 : 63 - bit_highest(~w);
}

page_summary tri__summary_of_chunk(const struct page_chunk *chunk) {
    struct page_runs all = {0, 0, 0};
    bool unbroken = true;
    for (unsigned i = 0; i < CHUNK_WORDS; i++) {
        uint64_t w = chunk->free[i];
        size_t low = ones_low(w);
        if (unbroken) {
            all.start += low;
        }
        all.max = max_size(all.max, all.end + low);
        if (low == 64) {
            all.end += 64;
        } else {
            all.max = longest_run(w, all.max);
            all.end = ones_high(w);
            unbroken = false;
        }
    }
    return tri__summary_pack(all);
}

int tri__chunk_find(const struct page_chunk *chunk, size_t npages) {
    size_t run = 0; /* free pages that end where word i begins */
    for (unsigned i = 0; i < CHUNK_WORDS; i++) {
        uint64_t w = chunk->free[i];
        size_t low = ones_low(w);
        if (run + low >= npages) {
            return (int)(i * 64 - run);
        }
        if (low == 64) {
            run += 64;
            continue;
        }
        uint64_t starts = npages <= 64 ? run_starts(w, npages) : 0;
        if (starts != 0) {
            return (int)(i * 64 + bit_lowest(starts));
        }
        run = ones_high(w);
    }
    return -1;
}
