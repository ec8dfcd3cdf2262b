/* arena.h - one heap's address space: the reservation, its 64 MiB arenas, and the flat side tables by page number.
 *
 * Owns: the range of addresses and every table from which an address is understood. From any address (interior ones
 * too) the slot, its layout number and its bits are found by arithmetic and one load of the page's entry, without
 * touching a span object (docs/design.md, "From an address to an object").
 *
 *   pages[]    entry of a page: kind, size class, layout, slot size; reciprocal, slots, distance to the first page
 *   spans[]    the span that a page belongs to (slow paths only)
 *   marks[]    a bit for each 16-byte granule: the object that starts here is marked in the running cycle
 *   allocs[]   a bit for each granule: an object (or a slot of somebody's hole) starts here
 *   layouts[]  16 bits for each 64 bytes: layout of the slot that starts here, in mixed spans (slots of 64 bytes up)
 *
 * The 8-byte class keeps its own mark and allocation bits in the last 256 bytes of its span.
 *
 * Invariants:
 *  I-ARENA1 (R13) every table is readable over the whole reservation from creation to the end; zero means "no span".
 *  I-ARENA2 (R13) a page's entry is formatted by one release store of its shape word; readers load it first, with
 *           acquire. It is unformatted only between the flip and the next H1, under the gate lock.
 *  I-ARENA3 a mark or allocation bit is set only at the first granule of a slot of a formatted span.
 * Lock rank: none of its own; commits run under the page heap's lock. */
#ifndef TRI_ALLOC_ARENA_H
#define TRI_ALLOC_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/pageheap.h"
#include "alloc/sizeclass.h"

enum {
    ARENA_BYTES = 64 << 20,
    ARENA_PAGES = ARENA_BYTES / PAGE_BYTES,
    GRANULE_SHIFT = 4,
    PAGE_BIT_WORDS = PAGE_BYTES / 16 / 64, /* words of bits a page: one cache line */
    LAYOUT_SHIFT = 6,                      /* layouts[] has an entry for each 64 bytes */
    TINY_BITS_BYTES = 128                  /* each of the two bit sets at the end of a span of the 8-byte class */
};

/* The first two hold no objects: pages without a span, and manual memory (manual.h), which every lookup refuses. */
enum page_kind { PAGE_NONE = 0, PAGE_MANUAL, PAGE_SMALL, PAGE_TINY, PAGE_MIXED, PAGE_LARGE };

struct span;

struct page_entry {
    uint64_t shape; /* kind | class << 8 | layout << 16 | slot_bytes << 32 (0 for large) [atomic] */
    /* small: reciprocal | distance to the span's first page << 32 | nslots << 48; large: distance << 32; manual:
     * address of its struct manual_span [atomic] */
    uint64_t place;
};

struct space {
    uintptr_t base;           /* of the reservation, 64 MiB aligned [const] */
    size_t size_bytes;        /* [const] */
    size_t npages;            /* [const] */
    size_t system_page_bytes; /* [const] */
    struct page_entry *pages; /* [const pointer, atomic entries] */
    struct span **spans;      /* [const pointer, atomic entries] */
    uint64_t *marks;          /* [const pointer, atomic words] */
    uint64_t *allocs;         /* [const pointer, atomic words] */
    uint16_t *layouts;        /* [const pointer, atomic entries] */
    uint8_t huge_tables;      /* huge pages are wanted for the tables [atomic] */
    size_t committed_pages;   /* from the start on [atomic; written under the pageheap lock] */
};

/* A slot found from an address. */
struct slot {
    uintptr_t addr; /* its first byte */
    uint64_t shape; /* of its page */
    uint32_t index; /* in its span */
};

static inline enum page_kind shape_kind(uint64_t shape) {
    return (enum page_kind)(shape & 0xff);
}
/* Whether the page belongs to a span of collected objects. */
static inline bool shape_has_objects(uint64_t shape) {
    return shape_kind(shape) > PAGE_MANUAL;
}
static inline unsigned shape_class(uint64_t shape) {
    return (unsigned)(shape >> 8) & 0xff;
}
static inline uint32_t shape_layout(uint64_t shape) {
    return (uint32_t)(shape >> 16) & 0xffff;
}
static inline uint32_t shape_slot_bytes(uint64_t shape) {
    return (uint32_t)(shape >> 32);
}
static inline uint64_t shape_make(enum page_kind kind, unsigned class_index, uint32_t layout, uint32_t slot_bytes) {
    return (uint64_t)kind | (uint64_t)class_index << 8 | (uint64_t)layout << 16 | (uint64_t)slot_bytes << 32;
}

/* Reserves `size_bytes` (a multiple of 4 MiB) and the side tables. False when the system refuses. */
bool tri__space_init(struct space *space, size_t size_bytes);
void tri__space_fini(struct space *space);
/* pageheap_ops.commit and .decommit; `context` is the space. */
bool tri__space_commit(void *context, size_t first, size_t npages);
bool tri__space_decommit(void *context, size_t first, size_t npages);
/* pageheap_ops.populate: puts memory behind free pages and their tables. */
bool tri__space_populate(void *context, size_t first, size_t npages);
/* pageheap_ops.release: the side tables' memory for whole chunks without a span. They stay readable (I-ARENA1). */
void tri__space_release_tables(void *context, size_t first, size_t npages);
/* Asks for huge pages behind the side tables, or for none; never behind the objects. False when the system refuses. */
bool tri__space_huge_tables(struct space *space, bool huge);
/* Bytes of side tables that committed arenas need (virtual; touched as the heap's pages are). */
size_t tri__space_metadata_bytes(const struct space *space);

static inline bool space_contains(const struct space *space, uintptr_t addr) {
    return addr - space->base < space->size_bytes;
}
static inline size_t space_page_of(const struct space *space, uintptr_t addr) {
    return (addr - space->base) >> PAGE_SHIFT;
}
static inline uintptr_t space_page_addr(const struct space *space, size_t page) {
    return space->base + (page << PAGE_SHIFT);
}
static inline struct span *space_span_of(const struct space *space, uintptr_t addr) {
    /* Relaxed: the reader has loaded the page's shape with acquire, which the formatter stored after this. */
    return atomic_load_relaxed(&space->spans[space_page_of(space, addr)]);
}

/* The slot that an address inside the reservation lies in; false for no span, tail waste, or the bits of a tiny span.
 * Says nothing about whether an object lives there. */
static inline bool space_find_slot(const struct space *space, uintptr_t addr, struct slot *slot) {
    uintptr_t offset = addr - space->base;
    if (offset >= space->size_bytes) return false;
    size_t page = offset >> PAGE_SHIFT;
    uint64_t shape = atomic_load_acquire(&space->pages[page].shape); /* pairs with span_publish's release (I-ARENA2) */
    if (TRI_UNLIKELY(!shape_has_objects(shape))) return false;
    uint64_t place = atomic_load_relaxed(&space->pages[page].place); /* ordered by the acquire above */
    slot->shape = shape;
    if (TRI_UNLIKELY(shape_kind(shape) == PAGE_LARGE)) {
        slot->addr = space->base + ((page - (size_t)(place >> 32)) << PAGE_SHIFT);
        slot->index = 0;
        return true;
    }
    uintptr_t start = (page - (size_t)(place >> 32 & 0xffff)) << PAGE_SHIFT;
    uint32_t index = (uint32_t)(((offset - start) * (uint32_t)place) >> 32); /* I-CLASS2 */
    if (TRI_UNLIKELY(index >= place >> 48)) return false;
    slot->index = index;
    slot->addr = space->base + start + (uintptr_t)index * shape_slot_bytes(shape);
    return true;
}

/* The word and bit of a slot's mark; the same for its allocation bit. */
static inline uint64_t *space_mark_word(const struct space *space, const struct slot *slot, uint64_t *bit) {
    if (TRI_UNLIKELY(shape_kind(slot->shape) == PAGE_TINY)) {
        *bit = 1ull << (slot->index & 63);
        uintptr_t end = align_down(slot->addr, PAGE_BYTES) + PAGE_BYTES;
        return (uint64_t *)(end - 2 * TINY_BITS_BYTES) + (slot->index >> 6);
    }
    size_t granule = (slot->addr - space->base) >> GRANULE_SHIFT;
    *bit = 1ull << (granule & 63);
    return &space->marks[granule >> 6];
}
static inline uint64_t *space_alloc_word(const struct space *space, const struct slot *slot, uint64_t *bit) {
    if (TRI_UNLIKELY(shape_kind(slot->shape) == PAGE_TINY)) {
        *bit = 1ull << (slot->index & 63);
        uintptr_t end = align_down(slot->addr, PAGE_BYTES) + PAGE_BYTES;
        return (uint64_t *)(end - TINY_BITS_BYTES) + (slot->index >> 6);
    }
    size_t granule = (slot->addr - space->base) >> GRANULE_SHIFT;
    *bit = 1ull << (granule & 63);
    return &space->allocs[granule >> 6];
}
static inline bool space_is_marked(const struct space *space, const struct slot *slot) {
    uint64_t bit;
    uint64_t *word = space_mark_word(space, slot, &bit);
    return (atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit (R15); pairs with mark setting */
}
static inline bool space_is_allocated(const struct space *space, const struct slot *slot) {
    uint64_t bit;
    uint64_t *word = space_alloc_word(space, slot, &bit);
    return (atomic_load_acquire(word) & bit) != 0; /* pairs with the release in span_take_hole (R15) */
}
/* Sets a mark; true if it was not set before. */
static inline bool space_set_mark(const struct space *space, const struct slot *slot) {
    uint64_t bit;
    uint64_t *word = space_mark_word(space, slot, &bit);
    if (atomic_load_relaxed(word) & bit)
        return false; /* a mark is never taken back while marking: a stale 0 is caught below */
    return (atomic_or_acqrel(word, bit) & bit) ==
           0; /* release: heap->found before it (R2); pairs with space_is_marked */
}
/* Layout number of a slot: its page's, or its own in a mixed span (0: nothing is allocated there yet). */
static inline uint32_t space_layout_of(const struct space *space, const struct slot *slot) {
    if (TRI_UNLIKELY(shape_kind(slot->shape) == PAGE_MIXED)) /* acquire pairs with the release in try_small (R15) */
        return atomic_load_acquire(&space->layouts[(slot->addr - space->base) >> LAYOUT_SHIFT]);
    return shape_layout(slot->shape);
}

#endif
