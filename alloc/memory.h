/* memory.h - one heap's memory, assembled: space, page heap, central lists, large objects, metadata.
 *
 * The one object that the files of alloc/ share. Whose part is what:
 *   arena.c      space         page numbers and tables
 *   pageheap.c   pages         runs of pages
 *   memory.c     spans         span objects, pages for them and back, the limit
 *   central.c    centrals      one layout's spans: partial and full, by sweep generation
 *   large.c      large lists   objects above 32 KiB, a span each
 *   cache.c      struct cache  one thread's holes
 *
 * Invariants: I-MEM1 used_pages counts every page of a published or building span. I-MEM2 `gen` changes only in
 * memory_flip, when no span of the generation before it is left (I-CYC2: asserted at the begin of the cycle). */
#ifndef TRI_ALLOC_MEMORY_H
#define TRI_ALLOC_MEMORY_H

#include "alloc/arena.h"
#include "alloc/base/lock.h"
#include "alloc/fixalloc.h"
#include "alloc/hooks.h"
#include "alloc/manual.h"
#include "alloc/span.h"

enum {
    MAX_LAYOUTS = 65536,
    HOLE_TABLE_BYTES = MAX_LAYOUTS * 32, /* of sizeof(tri_hole) */
    HOLE_MAX_BYTES = 8192,
    LEAF_HOLE_MAX_BYTES = 64 << 10,
    NUM_FILLS = 4,          /* partial spans are filed by how full they are */
    BATCH_BYTES = 64 << 10, /* of spans that a cache takes at once */
    BATCH_SPANS = 8,
    EMPTY_FLOOR_PAGES = 512 /* this much may lie ready in empty spans whatever the heap's goal */
};

/* A doubly linked list of spans under somebody's lock. */
struct span_list {
    struct span *head, *tail;
    size_t nspans;
};
void tri__span_list_push(struct span_list *list, struct span *span);
void tri__span_list_remove(struct span_list *list, struct span *span);

/* What a layout number asks of its spans. */
struct span_class {
    uint32_t layout;
    uint8_t class_index;
    uint8_t flags; /* SPAN_* */
    bool mixed;
};

/* One layout's spans. Which of the two lists of a kind is the swept one is the parity of the heap's generation. */
struct central {
    struct lock lock;                       /* RANK_CENTRAL */
    struct span_class span_class;           /* [const] */
    struct span_list partial[2][NUM_FILLS]; /* with a free slot, as far as known; by gen & 1 and fill [lock] */
    struct span_list full[2];               /* without; by gen & 1 [lock] */
    struct span_list empty;                 /* swept, and nothing lives in them: of no generation [lock] */
    size_t empty_low;                       /* fewest empty spans since the last tri__memory_drop_empty [lock] */
    struct central *next;                   /* all centrals of the heap [const once linked] */
};

/* The list that a listed span of this many objects is in. */
static inline struct span_list *central_list(struct central *central, const struct span *span) {
    unsigned parity = atomic_load_relaxed(&span->gen) & 1; /* its lister's or its holder's own */
    if (span->nalloc == span->nslots) return &central->full[parity];
    return &central->partial[parity][span->nalloc * NUM_FILLS / span->nslots];
}

/* Pages of large objects of up to 128 KiB that died: they lie ready for the next ones, a list for each number of pages,
 * without entries in the page table. */
enum {
    READY_LEAST_PAGES = SMALL_MAX_BYTES / PAGE_BYTES + 1,
    READY_MOST_PAGES = 16,
    READY_LISTS = READY_MOST_PAGES - READY_LEAST_PAGES + 1
};
/* Where tri__memory_drop_some goes on: lists of ready runs first, then centrals; how many are to go of that list
 * (SIZE_MAX: to be counted). */
struct drop {
    size_t list;
    struct central *central;
    size_t left;
};

struct ready_runs {
    struct span_list lists[READY_LISTS];
    size_t low[READY_LISTS]; /* fewest since the last tri__large_drop_ready */
    size_t npages;
};

struct memory {
    struct space space;
    struct pageheap *pages;
    struct fixalloc fix_span, fix_central;
    struct alloc_hooks hooks;       /* [const] */
    uint32_t gen;                   /* sweep generation [atomic; written in memory_flip, under RANK_THREADS] */
    uint32_t nsweeping;             /* spans taken off an unswept list and not filed yet [atomic] */
    uint32_t nclaimed;              /* batches of swept ones whose free pages are being returned (inside.c) [atomic] */
    uint32_t hold_claims;           /* no such batch begins: the world is stopped [atomic] */
    uint64_t returned_inside_bytes; /* of pages inside spans, ever [atomic] */
    uint32_t poison;                /* fill freed slots [atomic] */
    struct central **centrals;      /* by layout number [atomic entries] */
    struct drop drop;               /* [who runs cycles] */
    struct central *sweep_next;     /* where the sweep goes on; NULL: with the newest layout [who runs cycles] */
    struct central *all_centrals;   /* newest first [atomic] */
    struct lock gate;               /* RANK_GATE: lookups outside a cycle against pages leaving; the close (R5) */
    bool pages_stay;                /* from before H1 to the flip no page leaves a span (R13) [gate] */
    struct lock large_lock;         /* RANK_LARGE */
    struct span_list large[2];      /* by gen & 1 [large_lock] */
    struct ready_runs ready;        /* pages of medium objects that died (large.c) [large_lock] */
    struct manual manual;
    size_t limit_pages;       /* hard limit [atomic] */
    size_t used_pages;        /* in spans [atomic] */
    size_t building_pages;    /* of those, in large objects under construction (R12) [atomic] */
    uint32_t nspans;          /* of any kind [atomic] */
    size_t empty_pages;       /* of those, in empty spans that lie ready [atomic] */
    size_t empty_limit_pages; /* how many may (a hint) [atomic] */
    uint64_t swept_spans;     /* [atomic] */
};

/* False without memory or address space. */
bool tri__memory_init(struct memory *mem, size_t reserve_bytes, const struct alloc_hooks *hooks);
void tri__memory_fini(struct memory *mem);

/* Pages for a span within the limit, out of the thread's own `block` if there is one, and a span object; unformatted.
 * NULL when they cannot be had. */
struct span *tri__memory_new_span(struct memory *mem, size_t npages, struct page_block *block, bool *dirty,
                                  size_t *first_page);
/* The same for a large object: of its pages only those in *dirty may hold old bytes. */
struct span *tri__memory_new_large(struct memory *mem, size_t npages, struct page_part *dirty, size_t *first_page);
/* tri__memory_new_span without letting empty spans go when there is no memory: takes no lock but the page heap's and
 * fixalloc's. */
struct span *tri__memory_try_new_span(struct memory *mem, size_t npages, struct page_block *block, bool *dirty,
                                      size_t *first_page);
/* An emptied span: its entries go, its pages return to the page heap (gate lock taken inside). Sweepers only: between
 * the flip and the next H1. The other one may be called at any time; false: a cycle marks, nothing was done (R13). */
void tri__memory_free_span(struct memory *mem, struct span *span);
bool tri__memory_try_free_span(struct memory *mem, struct span *span);
/* A span that is not published, or no longer. */
void tri__memory_drop_span(struct memory *mem, struct span *span, size_t first_page, size_t npages);

/* large.c: keeps the pages of a dead large object ready, if there is room for them; its entries are gone. */
bool tri__large_keep_ready(struct memory *mem, struct span *span);
/* Lets such pages of one list go: half of those that lay unused since the last time, or all; up to max runs at a time.
 * *left: SIZE_MAX at first; 0 when it is through. */
void tri__large_drop_ready(struct memory *mem, size_t list, bool all, size_t max, size_t *left);

/* The central list of a layout, made at its first use. NULL without memory. */
struct central *tri__central_get(struct memory *mem, const struct span_class *span_class);
/* A chain (by next) of spans with free slots, at most BATCH_SPANS, for a thread that knows generation `gen` (R10):
 * swept partial ones, fullest first, so that sparse ones drain; else unswept ones, swept here; else empty ones; else a
 * fresh one. They are cached by the caller from now on. `done` is a chain to give back first, under the same lock.
 * `block`: the thread's own pages, or NULL. NULL when memory cannot be had. */
struct span *tri__central_exchange(struct memory *mem, struct central *central, uint32_t gen, struct span *done,
                                   struct page_block *block);
/* A chain back from a cache, each filed by its own generation (R10). */
void tri__central_put(struct memory *mem, struct central *central, struct span *chain);
/* True when no unswept span of the generation before `gen` is listed. */
bool tri__central_is_swept(struct central *central, uint32_t gen);
/* Lets empty spans go to the page heap: half of those that lay unused since the last call, or all. Nothing goes while
 * a cycle marks (R13). False: it was refused in the middle, because the world is stopped. */
bool tri__memory_drop_empty(struct memory *mem, bool all);
/* The same in pieces of about max_spans, after drop_begin, by who runs cycles. True: there is more. */
void tri__memory_drop_begin(struct memory *mem);
bool tri__memory_drop_some(struct memory *mem, bool all, size_t max_spans);
/* Sweeps up to max_spans unswept spans of all layouts and large objects, and goes on there at the next call, by who
 * runs cycles. True: it came to the end of the lists. */
bool tri__memory_sweep_some(struct memory *mem, size_t max_spans, size_t *nswept);
/* True when no unswept span is left, in a list or in somebody's hand. Needs every thread to know the generation. */
bool tri__memory_is_swept(struct memory *mem);
/* The same, and no span is out of its list for its free pages to be returned. Before H1 and at a world stop. */
bool tri__memory_is_settled(struct memory *mem);
/* How long the calling thread has been in the system for pages of any heap, since it asked last. */
uint64_t tri__memory_take_system_ns(void);
/* The flip: heap's generation advances. Requires RANK_THREADS and tri__memory_is_swept before the cycle began. */
void tri__memory_flip(struct memory *mem);

/* A large object under construction, as long as `span` is set: its pages are in no other's books. */
struct large_build {
    struct span *span;
    size_t first, npages;
};

/* Large objects. `mutator` goes to the zeroing hook; *gen and *black are read after the last safepoint (R12). *build is
 * the caller's, for whoever has to give back what a thread left that is no more (fork). */
void *tri__large_alloc(struct memory *mem, void *mutator, size_t size_bytes, uint32_t layout, uint8_t flags,
                       const uint32_t *gen, const bool *black, struct large_build *build);
void tri__large_abandon(struct memory *mem, struct large_build *build);

/* No mark is left in any span (fork). Between two cycles, all spans swept. */
void tri__memory_clear_marks(struct memory *mem);

/* What became of a slot that was to be freed by hand. LATER: its span is in another thread's cache, a sweep frees
 * it. */
enum free_outcome { FREE_DONE, FREE_LATER, FREE_BUSY, FREE_REFUSED };
struct cache;
/* Frees the object that starts at the address (free.c). `own`: the calling thread's cache. BUSY: a cycle marks (R13),
 * or the span is being swept. *freed_bytes: of the slot. */
enum free_outcome tri__memory_free_slot(struct memory *mem, const struct cache *own, uintptr_t addr, bool poison,
                                        size_t *freed_bytes);

/* From true on, once it returns, to false every span is in its list or in a cache. For who stops the world. */
void tri__memory_hold_claims(struct memory *mem, bool hold);
/* Around what takes spans out of their lists on a thread that a stopped world does not stop. False: it is stopped, or
 * about to be. */
bool tri__memory_begin_claims(struct memory *mem);
void tri__memory_end_claims(struct memory *mem);
/* Returns the free pages inside spans that are half full or less; bytes. Any thread, at any time. */
size_t tri__memory_return_inside(struct memory *mem);
/* Returns free pages to the system; the number returned. */
size_t tri__memory_scavenge(struct memory *mem, size_t max_pages);
size_t tri__memory_metadata_bytes(struct memory *mem);

#endif
