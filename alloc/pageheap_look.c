/* pageheap_look.c - what a page heap says of itself: figures, the state of single pages and chunks, and whether its
 * bits, summaries and counts agree (I-PAGE2, I-PAGE3, I-PAGE5 to I-PAGE7, I-PAGE9). Changes nothing but the peak that
 * it is asked to take.
 *
 * Lock rank: RANK_PAGEHEAP. */
#include <stdio.h>
#include <string.h>
#include "alloc/pageheap_parts.h"

void tri__pageheap_get_stats(struct pageheap *ph, struct pageheap_stats *out) {
    tri__lock_acquire(&ph->lock);
    *out = (struct pageheap_stats){.committed_pages = ph->frontier,
                                   .used_pages = ph->used_pages,
                                   .free_pages = ph->frontier - ph->used_pages,
                                   .dirty_free_pages = ph->dirty_free_pages + populated_pages(ph),
                                   .peak_pages = ph->peak_pages,
                                   .returned_pages = ph->returned_pages};
    tri__lock_release(&ph->lock);
}

size_t tri__pageheap_take_peak(struct pageheap *ph) {
    tri__lock_acquire(&ph->lock);
    size_t peak = ph->peak_pages;
    ph->peak_pages = ph->used_pages;
    tri__lock_release(&ph->lock);
    return peak;
}

bool tri__pageheap_in_use(struct pageheap *ph, size_t page) {
    tri__lock_acquire(&ph->lock);
    bool used = page < ph->frontier && !page_is_free(ph, page);
    tri__lock_release(&ph->lock);
    return used;
}

void tri__pageheap_get_chunk(struct pageheap *ph, size_t chunk, uint64_t free[CHUNK_PAGES / 64],
                             uint64_t dirty[CHUNK_PAGES / 64]) {
    tri__lock_acquire(&ph->lock);
    memcpy(free, chunk_at(ph, chunk)->free, CHUNK_PAGES / 8);
    memcpy(dirty, chunk_at(ph, chunk)->dirty, CHUNK_PAGES / 8);
    tri__lock_release(&ph->lock);
}

size_t tri__pageheap_metadata_bytes(struct pageheap *ph) {
    tri__lock_acquire(&ph->lock);
    size_t total = sizeof *ph + ph->chunks.committed_bytes + ph->touched.committed_bytes;
    for (unsigned level = 0; level < LEVELS; level++) {
        total += ph->levels[level].committed_bytes;
    }
    tri__lock_release(&ph->lock);
    return total;
}

/* ---- Verification ---- */

/* Where contradictions go. */
struct verdict {
    void (*say)(void *context, const char *text);
    void *context;
    int count;
};

static void contradict(struct verdict *v, const char *what, size_t at, uint64_t is, uint64_t should_be) {
    char text[192];
    v->count++;
    if (v->say != NULL) {
        snprintf(text, sizeof text, "%s at %zu: is %llx, should be %llx (hexadecimal)", what, at,
                 (unsigned long long)is, (unsigned long long)should_be);
        v->say(v->context, text);
    }
}

static void expect(struct verdict *v, const char *what, size_t at, uint64_t is, uint64_t should_be) {
    if (is != should_be) {
        contradict(v, what, at, is, should_be);
    }
}

/* I-PAGE2, with every summary computed anew from the ones below, and those from the bits. */
static void verify_summaries(const struct pageheap *ph, struct verdict *v) {
    static const char *const names[LEVELS] = {
        "I-PAGE2 summary of level 0", "I-PAGE2 summary of level 1", "I-PAGE2 summary of level 2",
        "I-PAGE2 summary of level 3", "I-PAGE2 summary of level 4",
    };
    for (unsigned level = 0; level < LEVELS; level++) {
        for (size_t i = 0; i < level_entries(level, ph->frontier); i++) {
            page_summary should_be = 0;
            if (level == 0) {
                should_be = tri__summary_of_chunk(chunk_at(ph, i));
            } else if (i < ceil_div(ph->frontier, (size_t)1 << level_shift(level))) {
                should_be = tri__summary_merge(level_at(ph, level - 1, i << FANOUT_SHIFT),
                                               (size_t)1 << level_shift(level - 1));
            }
            expect(v, names[level], i, *level_at(ph, level, i), should_be);
        }
    }
}

/* I-PAGE3 and I-PAGE5 to I-PAGE7. */
static void verify_bits(const struct pageheap *ph, struct verdict *v) {
    size_t nfree = 0, ndirty = 0, lowest_free = ph->frontier, dirty_end = 0;
    for (size_t word = 0; word < level_entries(0, ph->frontier) * CHUNK_WORDS; word++) {
        const struct page_chunk *chunk = chunk_at(ph, word / CHUNK_WORDS);
        uint64_t free = chunk->free[word % CHUNK_WORDS];
        uint64_t dirty = chunk->dirty[word % CHUNK_WORDS];
        if (free != 0) {
            lowest_free = min_size(lowest_free, word * 64 + bit_lowest(free));
            expect(v, "I-PAGE6 a page above the frontier is free, by word", word,
                   word * 64 + bit_highest(free) >= ph->frontier, 0);
        }
        expect(v, "I-PAGE6 dirty pages that are not free, by word", word, dirty & ~free, 0);
        dirty_end = dirty != 0 ? word * 64 + bit_highest(dirty) + 1 : dirty_end;
        nfree += bit_count(free);
        ndirty += bit_count(dirty);
    }
    expect(v, "I-PAGE5 used pages, below frontier", ph->frontier, ph->used_pages, ph->frontier - nfree);
    expect(v, "I-PAGE5 dirty free pages, below frontier", ph->frontier, ph->dirty_free_pages, ndirty);
    if (lowest_free < ph->search) {
        contradict(v, "I-PAGE3 search address above a free page", lowest_free, ph->search, lowest_free);
    }
    for (size_t page = ph->high; page < ph->frontier; page++) {
        const struct page_chunk *chunk = chunk_at(ph, page >> CHUNK_SHIFT);
        uint64_t clean = chunk->free[page / 64 % CHUNK_WORDS] & ~chunk->dirty[page / 64 % CHUNK_WORDS];
        if (!(clean >> page % 64 & 1)) {
            contradict(v, "I-PAGE9 a page above the highest one is in use or dirty", page, ph->high, page + 1);
            break;
        }
    }
    if (dirty_end > ph->dirty_limit) {
        contradict(v, "I-PAGE7 dirty limit below a dirty page", dirty_end - 1, ph->dirty_limit, dirty_end);
    }
}

int tri__pageheap_verify(struct pageheap *ph, void (*say)(void *context, const char *text), void *context) {
    struct verdict v = {.say = say, .context = context};
    tri__lock_acquire(&ph->lock);
    verify_summaries(ph, &v);
    verify_bits(ph, &v);
    expect(&v, "I-PAGE5 frontier beyond the reservation", ph->max_pages, ph->frontier > ph->max_pages, 0);
    tri__lock_release(&ph->lock);
    return v.count;
}
