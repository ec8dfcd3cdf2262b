/* span.h - a run of pages cut into equal slots: formatting, holes, sweeping, counting.
 *
 * Owns: the life of one span. Who may touch it is decided by who has it: a list (under its lock), one thread's cache,
 * or the one thread that took it off a list to sweep it. Knows bits, not liveness: a sweep copies marks to allocation
 * bits.
 *
 * Generations: a heap has a sweep generation g. A span of generation g is swept (idle) or being marked (cycle); after
 * the flip to g+1 it is unswept until somebody sweeps it, which makes it g+1. Before the next H1 no span of g is left.
 *
 * Invariants:
 *  I-SPAN1 a span is in exactly one place: a central list, a cache, a sweeper's hand, or being built (large). One that
 *          is empty lies in its list of empty spans, which is of no generation: it gets its taker's, like a fresh one.
 *  I-SPAN2 every page of a span has an entry whose distance leads to its first page, and none other has.
 *  I-SPAN3 a span is swept once in each generation, by the thread that took it off its list (I-SPAN1 is the claim).
 *  I-SPAN4 nalloc == number of allocation bits when the span is in a list; holes taken are counted at once.
 *  I-SPAN5 (R15) the free part of a hole is zero (but for pointer-free spans) and has its allocation bits set; its mark
 *          bits are set if its thread allocates black and the span is of the generation being marked (R10).
 * Lock rank: none; see central.h and large.h. */
#ifndef TRI_ALLOC_SPAN_H
#define TRI_ALLOC_SPAN_H

#include "alloc/arena.h"

enum span_place { SPAN_BUILDING = 0, SPAN_LISTED, SPAN_CACHED, SPAN_CLAIMED, SPAN_EMPTY, SPAN_DEAD };

/* ZEROED: a leaf whose slots are zeroed all the same. SHARED: a slot may hold several of the host's objects. WEAK: they
 * have weak slots, which others look at once the allocation bit is set, in a hole too (gc/weak.c). */
enum { SPAN_LEAF = 1, SPAN_ZEROED = 2, SPAN_SHARED = 4, SPAN_WEAK = 8 };

/* The marker ran out of memory here (R19); objects were allocated black here, in a mode that scans them again. */
enum { SPAN_RESCAN_LOST = 1, SPAN_RESCAN_FRESH = 2 };

struct span {
    struct span *next, *prev;  /* in its list [list's lock], or in a cache's chain [holder] */
    uint32_t gen;              /* sweep generation of its bits [atomic; written by its holder] */
    uint8_t place;             /* enum span_place [atomic; written by its holder] */
    uint8_t kind;              /* enum page_kind [const while formatted] */
    uint8_t class_index;       /* [const while formatted] */
    uint8_t flags;             /* SPAN_* [const while formatted] */
    uint32_t layout;           /* its layout, or its class's mixed number [const while formatted] */
    uint32_t returned;         /* the system's pages in it that were given back, by bit (inside.c) [holder] */
    uint8_t dirty;             /* free slots may hold old bytes [holder] */
    uint8_t rescan;            /* SPAN_RESCAN_*: why every marked object is to be scanned again [atomic] */
    uint16_t nslots;           /* [const while formatted] */
    uint16_t nalloc;           /* slots allocated or in a hole [holder] */
    uint16_t next_slot;        /* no free slot below this one [holder] */
    size_t slot_bytes;         /* [const while formatted] */
    size_t first_page, npages; /* [const while formatted] */
};

_Static_assert(sizeof(struct span) <= 64, "a span is one cache line: allocation walks over them");

static inline uintptr_t span_base(const struct space *space, const struct span *span) {
    return space_page_addr(space, span->first_page);
}
static inline uintptr_t span_slot_addr(const struct space *space, const struct span *span, uint32_t index) {
    return span_base(space, span) + (uintptr_t)index * span->slot_bytes;
}
static inline struct slot span_slot(const struct space *space, const struct span *span, uint32_t index) {
    struct slot slot = {span_slot_addr(space, span, index),
                        shape_make((enum page_kind)span->kind, span->class_index, span->layout,
                                   span->kind == PAGE_LARGE ? 0 : (uint32_t)span->slot_bytes),
                        index};
    return slot;
}

/* Its free slots are zero when they are given out. */
static inline bool span_is_zeroed(const struct span *span) {
    return !(span->flags & SPAN_LEAF) || (span->flags & SPAN_ZEROED);
}

/* Fills in a small span over pages that its caller owns. Not visible to lookups before span_publish. */
void tri__span_format_small(struct span *span, size_t first_page, unsigned class_index, uint32_t layout, uint8_t flags,
                            bool mixed, bool dirty);
void tri__span_format_large(struct span *span, size_t first_page, size_t npages, uint32_t layout, uint8_t flags,
                            bool dirty);
/* Writes the page entries, the shape last with release (I-ARENA2). */
void tri__span_publish(struct space *space, struct span *span);
/* Takes the page entries back (gate lock held, between flip and H1), and clears the bits. */
void tri__span_unpublish(struct space *space, struct span *span);

/* The next run of free slots from next_slot on, at most max_slots of them: [*first, *first + n); 0: none. */
uint32_t tri__span_find_free(const struct space *space, const struct span *span, uint32_t max_slots, uint32_t *first);

/* Takes a found run as a hole: marks if black (R10 is the caller's), zeroes, layouts to 0, allocation bits (R15). */
void tri__span_take_hole(struct space *space, struct span *span, uint32_t first, uint32_t nslots, bool black);
/* Gives the unused rest of a hole back. Both kinds of bit are cleared, at a retirement too (R15). */
void tri__span_return_hole(struct space *space, struct span *span, uint32_t first, uint32_t nslots);
/* The slots' pages are no longer returned ones (inside.c). */
void tri__span_note_taken(const struct space *space, struct span *span, uint32_t first, uint32_t nslots);
/* Marks the rest of a hole (H3). */
void tri__span_mark_slots(struct space *space, struct span *span, uint32_t first, uint32_t nslots);

/* allocation bits := marks, marks := 0, generation := gen. Returns the number of slots freed. With `poison`, freed
 * slots are filled with a pattern that names their layout. */
uint32_t tri__span_sweep(struct space *space, struct span *span, uint32_t gen, bool poison);

/* Number of allocation bits (marks: number of mark bits). */
uint32_t tri__span_count_alloc(const struct space *space, const struct span *span);
uint32_t tri__span_count_marks(const struct space *space, const struct span *span);

/* The poison word of a layout, and the layout that a word is poison of (0: it is not poison). */
static inline uint64_t poison_word(uint32_t layout) {
    return 0x7ea5ed0000000000ull | (uint64_t)layout << 16 | 0xdead;
}
static inline uint32_t poison_layout(uint64_t word) {
    return (word & 0xffffffff0000ffffull) == 0x7ea5ed000000deadull ? (uint32_t)(word >> 16) & 0xffff : 0;
}
/* The first word of a poisoned free slot that is no longer poison, or SIZE_MAX: written after it was freed. */
size_t tri__span_poison_damage(const struct space *space, const struct span *span, uint32_t index);

#endif
