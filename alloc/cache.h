/* cache.h - one thread's holes: the slow half of allocation.
 *
 * Owns: the holes of one attachment, a chain of spans behind each, and a block of free pages. Used by its thread, or by
 * a collector thread while the owner is blocked (under its state word). The table of holes is the public one, so that
 * the inline bump finds it. A hole's span stands in its chain: the ones before it (prev) are used up, the ones after it
 * (next) are untouched; when there is none after it, the whole chain is exchanged for another.
 *
 * Invariants: I-CACHE1 a hole's free part [cursor, limit) is a whole number of slots of its span. I-CACHE2 the colour
 * of a hole is decided when it is taken: black if the thread allocates black and the span is of the thread's generation
 * (R10). I-CACHE3 after cache_flush no hole and no span is left. */
#ifndef TRI_ALLOC_CACHE_H
#define TRI_ALLOC_CACHE_H

#include <trigc.h>
#include "alloc/memory.h"

struct cache {
    struct memory *mem;      /* [const] */
    tri_hole **holes;        /* where the public head keeps the table [owner] */
    uint32_t *nholes;        /* and its length [owner] */
    struct lock *table_lock; /* [const] */
    size_t table_bytes;      /* mapped for the table [owner] */
    uint32_t gen;            /* the generation that this thread knows: that of the last posted H6 (R9) [owner] */
    bool black;              /* allocates black [owner] */
    bool single;             /* closed fast path: holes of one slot (stress.slow) [owner] */
    int64_t taken_bytes;     /* bytes of holes and large objects taken, less what came back, since last asked [owner] */
    int64_t black_bytes;     /* of those, marked at once [owner] */
    struct page_block block; /* pages for fresh spans [owner] */
};

/* `table_lock`: taken while the table is replaced, so that others may look at the holes under it. */
void tri__cache_init(struct cache *cache, struct memory *mem, tri_hole **holes, uint32_t *nholes,
                     struct lock *table_lock);
void tri__cache_fini(struct cache *cache);

/* Finds a hole for the layout (refilling from the central list) and allocates one slot of it. NULL: no memory. */
void *tri__cache_alloc(struct cache *cache, const struct span_class *span_class);

/* The same out of the chain that the hole has, without a lock; NULL: the layout has no hole or its chain is used up. */
void *tri__cache_next(struct cache *cache, uint32_t layout);

/* Marks the free part of every hole (H3), from now on allocates black. Bytes that it marked are added to
 * black_bytes. */
void tri__cache_blacken(struct cache *cache);

/* Gives every hole, span and page back (H6, detach). */
void tri__cache_flush(struct cache *cache);

#endif
