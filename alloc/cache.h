/* cache.h - one thread's holes: the slow half of allocation.
 *
 * Owns: the holes of one attachment, a chain of spans behind each, and a block of free pages. Used by its thread, or by
 * a collector thread while the owner is blocked (under its state word). The table of holes is the public one, so that
 * the inline bump finds it. A hole's span stands in its chain: the ones before it (prev) are used up, the ones after it
 * (next) are untouched; when there is none after it, the whole chain is exchanged for another.
 *
 * Invariants: I-CACHE1 a hole's free part [cursor, limit) is a whole number of slots of its span. I-CACHE2 the colour
 * of a hole is decided when it is taken: black if the thread allocates black and the span is of the thread's generation
 * (R10). I-CACHE3 after cache_flush no hole and no span is left. I-CACHE4 a slot that is being shared was taken since
 * the thread's last H3: what a black thread puts into it lives. I-CACHE5 a page of the table that is not in `backed`
 * reads as zero, which is holes in no list: it was never used, or was given back. */
#ifndef TRI_ALLOC_CACHE_H
#define TRI_ALLOC_CACHE_H

#include <trigc.h>
#include "alloc/memory.h"

enum {
    HOLE_PAGE_BYTES = 4096, /* what the table's memory is counted in; a system's own pages may be larger */
    HOLE_PAGE_WORDS = HOLE_TABLE_BYTES / HOLE_PAGE_BYTES / 64,
    HOLE_PAGES_KEPT = 8 /* by a thread that uses few layouts now: a thousand of them */
};

struct cache {
    struct memory *mem;      /* [const] */
    tri_hole *holes;         /* by layout number, as far as there are numbers; untouched memory mostly [const] */
    uint32_t open;           /* the holes that have a span, a list through `next` [atomic; owner writes] */
    struct lock *table_lock; /* [const] */
    uint32_t gen;            /* the generation that this thread knows: that of the last posted H6 (R9) [owner] */
    bool black;              /* allocates black [owner] */
    bool notes_black;        /* spans of black holes get SPAN_RESCAN_FRESH [owner] */
    bool single;             /* closed fast path: holes of one slot (stress.slow) [owner] */
    int64_t taken_bytes;     /* bytes of holes and large objects taken, less what came back, since last asked [owner] */
    int64_t black_bytes;     /* of those, marked at once [owner] */
    char *tiny;              /* the slot that small pointer-free objects share now, or NULL [owner] */
    uint32_t tiny_used_bytes;         /* of it [owner] */
    struct page_block block;          /* pages for fresh spans [owner] */
    uint64_t backed[HOLE_PAGE_WORDS]; /* pages of the table that have memory, one bit each [owner] */
    uint64_t recent[HOLE_PAGE_WORDS]; /* of those, where holes were opened since the last trim [owner] */
};

/* `next` of a hole that is in no list, and of the last one in it: numbers that no layout has. */
enum { HOLE_UNLISTED = 0, HOLE_LAST = MAX_LAYOUTS };

enum { TINY_SLOT_BYTES = 16 };

/* `table_lock`: taken while the list of open holes is emptied, so that others may follow it under the lock. False
 * without address space for the table. */
bool tri__cache_init(struct cache *cache, struct memory *mem, struct lock *table_lock);
void tri__cache_fini(struct cache *cache);

/* The first of the open holes and the one after it, for whoever looks through them; NULL: no more. */
static inline tri_hole *cache_hole(const struct cache *cache, uint32_t number) {
    return number == HOLE_UNLISTED || number == HOLE_LAST ? NULL : &cache->holes[number];
}
static inline tri_hole *cache_first(const struct cache *cache) {
    return cache_hole(cache, atomic_load_acquire(&cache->open)); /* pairs with open_hole */
}
static inline tri_hole *cache_after(const struct cache *cache, const tri_hole *hole) {
    return cache_hole(cache, atomic_load_acquire(&hole->next)); /* as cache_first */
}

/* Finds a hole for the layout (refilling from the central list) and allocates one slot of it. NULL: no memory. */
void *tri__cache_alloc(struct cache *cache, const struct span_class *span_class);

/* The same out of the chain that the hole has, without a lock; NULL: the layout has no hole or its chain is used up. */
void *tri__cache_next(struct cache *cache, uint32_t layout);

/* Marks the free part of every hole (H3), from now on allocates black. Bytes that it marked are added to
 * black_bytes. */
void tri__cache_blacken(struct cache *cache);

/* Gives every hole, span and page back (H6, detach). */
void tri__cache_flush(struct cache *cache);

/* After a flush: gives the table's memory back if most of it has been left alone since the flush before. */
void tri__cache_trim(struct cache *cache);

#endif
