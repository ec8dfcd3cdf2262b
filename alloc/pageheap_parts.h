/* pageheap_parts.h - the page heap's own structure, for pageheap.c, which changes it, and pageheap_look.c, which reads
 * it. Everything but the constant fields is under its lock. */
#ifndef TRI_ALLOC_PAGEHEAP_PARTS_H
#define TRI_ALLOC_PAGEHEAP_PARTS_H

#include "alloc/base/bits.h"
#include "alloc/pageheap.h"
#include "alloc/pageheap_summary.h"

enum { LEVELS = 5, TOP = LEVELS - 1, CHUNK_SHIFT = 9, FANOUT_SHIFT = 3, SCAVENGE_RUN = 64 };

_Static_assert(CHUNK_PAGES == 1 << CHUNK_SHIFT && SUMMARY_FANOUT == 1 << FANOUT_SHIFT, "shifts match");
_Static_assert(CHUNK_SHIFT + TOP * FANOUT_SHIFT == SUMMARY_BITS, "an entry of the top level is what a summary can say");

/* An array that is reserved whole and committed from its beginning as far as it is in use. */
struct growing {
    char *base;             /* [const] */
    size_t reserved_bytes;  /* [const] */
    size_t committed_bytes; /* [lock] */
};

struct pageheap {
    struct lock lock;
    struct pageheap_ops ops;       /* [const] */
    size_t max_pages, grow_pages;  /* [const] */
    struct growing chunks;         /* of struct page_chunk */
    struct growing levels[LEVELS]; /* of page_summary */
    struct growing touched;        /* a byte for each chunk: its side tables may take memory */
    size_t frontier;               /* pages below were committed; rises only */
    size_t search;                 /* no free page below (I-PAGE3) */
    size_t dirty_limit;            /* no dirty page from here on (I-PAGE7) */
    size_t used_pages, dirty_free_pages;
    size_t peak_pages;  /* most used_pages since take_peak */
    size_t alarm_pages; /* see ops.alarm */
    size_t high;        /* no page in use or dirty from here on; may be higher than it must */
    size_t
        populated_end; /* the pages [high, populated_end) have memory and are clean; none where it is not above high */
    size_t populated_top; /* the highest populated_end since they were last settled */
    size_t ahead_low;     /* see tri__pageheap_set_ahead; 0: nobody is to be told */
    uint64_t settled;     /* how often */
    uint64_t returned_pages;
};

static inline unsigned level_shift(unsigned level) {
    return CHUNK_SHIFT + level * FANOUT_SHIFT;
}

/* Entries of a level that cover pages [0, npages), in whole groups of SUMMARY_FANOUT. */
static inline size_t level_entries(unsigned level, size_t npages) {
    return align_up(ceil_div(npages, (size_t)1 << level_shift(level)), SUMMARY_FANOUT);
}

static inline struct page_chunk *chunk_at(const struct pageheap *ph, size_t index) {
    return (struct page_chunk *)(void *)ph->chunks.base + index;
}

static inline page_summary *level_at(const struct pageheap *ph, unsigned level, size_t index) {
    return (page_summary *)(void *)ph->levels[level].base + index;
}

static inline bool page_is_free(const struct pageheap *ph, size_t page) {
    return chunk_at(ph, page >> CHUNK_SHIFT)->free[page / 64 % CHUNK_WORDS] >> page % 64 & 1;
}

static inline size_t populated_pages(const struct pageheap *ph) {
    return ph->populated_end > ph->high ? ph->populated_end - ph->high : 0;
}

#endif
