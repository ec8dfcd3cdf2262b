/*
 * The page heap's bitmaps and summaries, bit by bit, against a byte a page: the first fit in a chunk, the start, the
 * longest and the end run of a chunk, and of several together.
 */
#include "tests/random.h"

#include "alloc/base/bits.h"
#include "alloc/pageheap_summary.h"

static bool bit_at(const struct page_chunk *c, size_t i) {
    return c->free[i / 64] >> i % 64 & 1;
}

static void random_chunk(struct page_chunk *c) {
    static const size_t lengths[] = {1, 3, 20, 64, 130, 512};
    size_t longest = lengths[below(TRI_COUNT(lengths))];
    bool value = below(2) == 0;
    memset(c, 0, sizeof *c);
    for (size_t at = 0; at < 512; value = !value) {
        size_t end = at + 1 + below(longest);
        for (; at < end && at < 512; at++) {
            c->free[at / 64] |= (uint64_t)value << at % 64;
        }
    }
}

/* Start, longest and end run of n flags. */
static struct page_runs naive_runs(const uint8_t *flags, size_t n) {
    struct page_runs r = {0, 0, 0};
    size_t run = 0;
    for (size_t i = 0; i < n; i++) {
        run = flags[i] ? run + 1 : 0;
        r.start = run == i + 1 ? run : r.start;
        r.max = run > r.max ? run : r.max;
    }
    r.end = run;
    return r;
}

static void check_runs(page_summary summary, struct page_runs expected) {
    struct page_runs got = tri__summary_unpack(summary);
    AGREE(got.start == expected.start && got.max == expected.max && got.end == expected.end);
}

static int naive_find(const uint8_t *flags, size_t npages) {
    size_t run = 0;
    for (size_t i = 0; i < 512; i++) {
        run = flags[i] ? run + 1 : 0;
        if (run == npages) {
            return (int)(i + 1 - npages);
        }
    }
    return -1;
}

TEST(pageheap_summary, chunk_agrees_with_a_count) {
    begin_random(18);
    struct page_chunk chunk;
    uint8_t flags[512];
    for (int round = 0; round < 2000; round++) {
        random_chunk(&chunk);
        for (size_t i = 0; i < 512; i++) {
            flags[i] = bit_at(&chunk, i);
        }
        check_runs(tri__summary_of_chunk(&chunk), naive_runs(flags, 512));
        for (size_t npages = 1; npages <= 512; npages += 1 + below(9)) {
            AGREE(tri__chunk_find(&chunk, npages) == naive_find(flags, npages));
        }
    }
}

TEST(pageheap_summary, merge_agrees_with_a_count) {
    begin_random(19);
    for (int round = 0; round < 2000; round++) {
        static uint8_t flags[8 * 512];
        page_summary parts[SUMMARY_FANOUT];
        for (size_t p = 0; p < SUMMARY_FANOUT; p++) {
            struct page_chunk chunk;
            random_chunk(&chunk);
            if (below(3) == 0) {
                memset(chunk.free, below(2) ? 0xff : 0, sizeof chunk.free);
            }
            for (size_t i = 0; i < 512; i++) {
                flags[p * 512 + i] = bit_at(&chunk, i);
            }
            parts[p] = tri__summary_of_chunk(&chunk);
        }
        check_runs(tri__summary_merge(parts, 512), naive_runs(flags, sizeof flags));
    }
}

TEST(pageheap_summary, the_widest_range_that_is_all_free_packs) {
    size_t all = (size_t)1 << SUMMARY_BITS;
    page_summary parts[SUMMARY_FANOUT];
    for (size_t p = 0; p < SUMMARY_FANOUT; p++) {
        parts[p] = tri__summary_pack((struct page_runs){all / 8, all / 8, all / 8});
    }
    random_seed = 0;
    check_runs(tri__summary_merge(parts, all / 8), (struct page_runs){all, all, all});
    parts[7] = tri__summary_pack((struct page_runs){all / 8 - 1, all / 8 - 1, 0});
    check_runs(tri__summary_merge(parts, all / 8), (struct page_runs){all - 1, all - 1, 0});
    CHECK_EQ(tri__summary_pack((struct page_runs){0, 0, 0}), 0);
}
