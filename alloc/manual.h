/* manual.h - manual memory: blocks that live until they are freed, in spans of their own kind (PAGE_MANUAL), which no
 * sweep, lookup or marker touches.
 *
 * Owns: those spans, each thread's cache of them in each heap, and the way of a block back from another thread.
 *
 *   manual.c         what a cache does with its spans: refill, frees from elsewhere, empty spans; large blocks
 *   manual_span.c    making and giving back spans, the pool of empty ones
 *   manual_thread.c  caches: finding the calling thread's, threads and heaps that end, adoption
 *   manual_record.c  history of each block (builds with checks)
 *
 * A span belongs to one cache. Its thread takes blocks from the span's free list and puts them back without an atomic
 * instruction. Any other thread pushes a block onto the span's `remote` list, one compare-and-swap; the first one there
 * pushes the span onto the owner's `returned` stack, whence the owner takes both over when it has run dry. A span that
 * has run dry itself is full: in no list, until a block of it comes back. When all blocks of a full span have come back
 * from other threads, nobody has a reason to touch it: any thread that trims the heap may give it back, with the owner
 * asleep.
 *
 * The page's entry leads from a block to its span: shape = PAGE_MANUAL | class << 8 | number of the owner << 16 |
 * slot_bytes << 32 (0 for large blocks, which have no owner), place = address of the struct manual_span.
 *
 * Invariants:
 *  I-MAN1 a span is in one place: current or in a list of its owner's, or full, or empty in the heap's pool, or a large
 *         block's. Besides, it is on one `returned` stack, or on its way there in one thread's hand, exactly while its
 *         `remote` is not zero: who takes it off the stack sets that to zero, or puts the span back.
 *  I-MAN2 `used` counts the blocks that are given out, those in `remote` included: a span with used == 0 has an empty
 *         `remote`, and nobody else can reach it.
 *  I-MAN3 the owner changes only under the manual lock, of spans in the pool or in an orphan's list; so a thread that
 *         compares the owner's number with its own is never wrong about a match. A span that comes by the stack of an
 *         owner before is sent on.
 *  I-MAN4 a cache's memory outlives its heap while a thread may still look at it; `mem` is NULL from the heap's end on.
 *  I-MAN5 of empty spans a cache keeps keep_bytes in its lists, and of current ones of 32 KiB and more the one that
 *         emptied last, and others up to keep_bytes with it.
 * Lock rank: RANK_MANUAL for the making and giving back of spans, and for orphans; RANK_REGISTRY around it where
 * threads and heaps end. The fast paths take none. */
#ifndef TRI_ALLOC_MANUAL_H
#define TRI_ALLOC_MANUAL_H

#include "alloc/arena.h"
#include "alloc/base/lock.h"
#include "alloc/fixalloc.h"

struct memory;

/* Beyond the size classes: multiples of a page up to 128 KiB, of two pages up to 256 KiB. Above: a run of pages
 * each. */
enum {
    MANUAL_MEDIUM_FIRST = SMALL_MAX_BYTES / PAGE_BYTES + 1, /* pages of the first class beyond */
    MANUAL_FINE_PAGES = 16,
    MANUAL_MEDIUM_PAGES = 32,
    MANUAL_MEDIUM_BYTES = MANUAL_MEDIUM_PAGES * PAGE_BYTES,
    MANUAL_COARSE_CLASS = NUM_SIZE_CLASSES + MANUAL_FINE_PAGES - MANUAL_MEDIUM_FIRST + 1,
    NUM_MANUAL_CLASSES = MANUAL_COARSE_CLASS + (MANUAL_MEDIUM_PAGES - MANUAL_FINE_PAGES) / 2,
    MANUAL_ALIGN = 16,
    MANUAL_IDLE_CLASSES = 12,
    MAX_MANUAL_CACHES = 65535
};
#define MANUAL_TAG_MASK 0xffff00ffull /* of a page's shape: kind and owner */
/* What lies in `remote`: the address of the list's first block, and above it the number of blocks. */
#define REMOTE_ONE (1ull << 48)
#define REMOTE_ADDRESS (REMOTE_ONE - 1)

#if TRI_CHECKS >= 1
/* What happened to a block last. */
struct manual_record {
    uint64_t size_bytes;                /* asked for */
    uint64_t alloc_op, free_op;         /* number of the operation, of all on this heap; 0: never */
    uint64_t alloc_thread, free_thread; /* the system's numbers */
    uint32_t live;                      /* enum manual_life [atomic] */
};
enum manual_life { MANUAL_DEAD = 0, MANUAL_LIVE, MANUAL_ROOT_BLOCK };
#endif

struct manual_span {
    void *free;                      /* blocks to give out, linked through their first words [owner] */
    uint32_t used;                   /* I-MAN2 [owner] */
    uint32_t nslots, nlinked;        /* slots; those that have been given out or in `free` so far [const; owner] */
    uint32_t slot_bytes;             /* [const] */
    uint8_t class_index;             /* [const] */
    bool full;                       /* in no list [atomic; owner writes, with release when it is done with the span] */
    struct manual_span *next, *prev; /* in the owner's list [owner] */
    uintptr_t base;                  /* of the first slot; of a large block [const] */
    _Alignas(64) uint64_t remote;    /* blocks freed by other threads: REMOTE_* [atomic] */
    struct manual_span *returned;    /* next on the stack [whose hand it is in] */
    struct manual_cache *owner;      /* I-MAN3; NULL for large blocks [atomic] */
    struct span *span;               /* pages [const] */
    struct manual_record *records;   /* by slot, in builds with checks; may be NULL [const] */
};

/* One thread's cache in one heap. */
struct manual_cache {
    struct memory *mem;       /* of the heap; NULL when it has ended (I-MAN4) [atomic] */
    uint64_t tag;             /* PAGE_MANUAL | number << 16 [const] */
    uintptr_t base;           /* of the heap's reservation [const] */
    size_t size_bytes;        /* of it [const] */
    struct page_entry *pages; /* its page entries [const] */
    int64_t live_bytes;       /* given out less taken back by this thread [atomic; owner writes] */
    struct manual_span *current[NUM_MANUAL_CLASSES]; /* to allocate from; an empty one, never NULL [owner] */
    struct manual_span *lists[NUM_MANUAL_CLASSES];   /* others with a free slot, the next one to use first [owner] */
    struct manual_span *tails[NUM_MANUAL_CLASSES];   /* the last ones of these [owner] */
    uint32_t nspans[NUM_MANUAL_CLASSES];             /* of the class: decides the next one's length [atomic] */
    size_t empty_bytes;                              /* of spans in lists without a used slot [owner] */
    size_t keep_bytes;                               /* I-MAN5; 0 for an orphan [owner] */
    uint8_t idle[MANUAL_IDLE_CLASSES];               /* whose current span emptied, the last one first [owner] */
    uint8_t nidle;                                   /* [owner] */
    bool asked;                                      /* to give back what is empty, at the next refill [atomic] */
    struct manual_cache *next_of_thread;             /* [owner] */
    struct manual_cache *next_of_heap;               /* [const once linked] */
    struct manual_cache *next_orphan;                /* [manual lock] */
    bool held;                                       /* by a thread [registry lock] */
    _Alignas(64) struct manual_span *returned;       /* spans with blocks in `remote` [atomic] */
};

/* A heap's part. */
struct manual {
    struct lock lock; /* RANK_MANUAL */
    struct fixalloc fix_span;
    struct manual_cache *caches;  /* all that were ever made, newest first [manual lock to write, atomic] */
    struct manual_cache *orphans; /* of threads that ended [manual lock] */
    uint32_t norphans;            /* [manual lock to write, atomic] */
    uint32_t ncaches;             /* [manual lock] */
    size_t npages;                /* in manual spans [manual lock to write, atomic] */
    struct manual_span *pool[NUM_MANUAL_CLASSES]; /* empty spans for any thread [manual lock] */
    size_t pool_pages;                            /* in them [manual lock to write, atomic] */
    unsigned pool_victim;                         /* class from which the pool drops spans next [manual lock] */
    int64_t shared_bytes; /* live bytes that no cache counts: large blocks, threads without a cache [atomic] */
    uint64_t nops;        /* operations, in builds with checks [atomic] */
};

/* The calling thread's cache that was used last; one that fits no heap when there is none. */
extern _Thread_local struct manual_cache *tri__manual_self __attribute__((tls_model("initial-exec")));

static inline unsigned manual_class_of(size_t size_bytes) {
    if (TRI_LIKELY(size_bytes <= SMALL_MAX_BYTES)) return size_class_of_scan(size_bytes);
    unsigned npages = (unsigned)((size_bytes + PAGE_BYTES - 1) >> PAGE_SHIFT);
    if (npages <= MANUAL_FINE_PAGES) return NUM_SIZE_CLASSES + npages - MANUAL_MEDIUM_FIRST;
    return MANUAL_COARSE_CLASS + (npages - MANUAL_FINE_PAGES - 1) / 2;
}
static inline uint32_t manual_class_bytes(unsigned class_index) {
    if (class_index < NUM_SIZE_CLASSES) return tri__size_classes[class_index].slot_bytes;
    unsigned npages = class_index < MANUAL_COARSE_CLASS
                          ? class_index - NUM_SIZE_CLASSES + MANUAL_MEDIUM_FIRST
                          : MANUAL_FINE_PAGES + 2 * (class_index - MANUAL_COARSE_CLASS + 1);
    return npages << PAGE_SHIFT;
}

/* Counts for the calling thread; others read. */
static inline void manual_count(struct manual_cache *c, int64_t delta_bytes) {
    atomic_store_relaxed(&c->live_bytes, atomic_load_relaxed(&c->live_bytes) + delta_bytes); /* a counter, one writer */
}

/* A block of the class out of the current span; NULL: the slow path has to look. */
static inline void *manual_take(struct manual_cache *c, unsigned class_index) {
    struct manual_span *ms = c->current[class_index];
    void **block = ms->free;
    if (TRI_UNLIKELY(block == NULL)) return NULL;
    ms->free = *block;
    ms->used++;
    manual_count(c, ms->slot_bytes);
    return block;
}

/* The fast path of an allocation: NULL when there is more to do than to take a block off a list. */
static inline void *manual_alloc_fast(const struct memory *mem, size_t size_bytes) {
    struct manual_cache *c = tri__manual_self;
    if (TRI_UNLIKELY(atomic_load_relaxed(&c->mem) != mem || size_bytes > MANUAL_MEDIUM_BYTES)) return NULL; /* I-MAN4 */
    return manual_take(c, manual_class_of(size_bytes));
}

void tri__manual_noted(struct manual_cache *c, struct manual_span *ms);

/* The fast path of a free: false when the block is not one of the calling thread's own spans. */
static inline bool manual_free_fast(const struct memory *mem, void *block) {
    struct manual_cache *c = tri__manual_self;
    uintptr_t offset = (uintptr_t)block - c->base;
    if (TRI_UNLIKELY(atomic_load_relaxed(&c->mem) != mem || offset >= c->size_bytes)) return false; /* I-MAN4 */
    struct page_entry *entry = &c->pages[offset >> PAGE_SHIFT];
    uint64_t shape = atomic_load_relaxed(&entry->shape); /* whoever gave the block to this thread saw it published */
    if (TRI_UNLIKELY((shape & MANUAL_TAG_MASK) != c->tag)) return false; /* I-MAN3 */
    struct manual_span *ms = (struct manual_span *)(uintptr_t)atomic_load_relaxed(&entry->place);
    manual_count(c, -(int64_t)shape_slot_bytes(shape));
    void *next = ms->free;
    *(void **)block = next;
    ms->free = block;
    uint32_t used = --ms->used;
    if (TRI_UNLIKELY(next == NULL || used == 0)) tri__manual_noted(c, ms);
    return true;
}

void tri__manual_init(struct memory *mem);
/* The heap ends: caches that threads still hold are told so, all else goes with the heap. */
void tri__manual_fini(struct memory *mem);

/* The calling thread's cache, made or adopted when there is none. NULL without memory. */
struct manual_cache *tri__manual_cache(struct memory *mem);

/* A block; NULL without memory. *clean: the whole of it reads as zero. */
void *tri__manual_alloc(struct memory *mem, size_t size_bytes, bool *clean);
/* The same with an alignment, a power of two. */
void *tri__manual_alloc_aligned(struct memory *mem, size_t align_bytes, size_t size_bytes);
/* Frees a block of this heap, whoever owns its span. False: it is none (nothing done). */
bool tri__manual_free(struct memory *mem, void *block);
/* Bytes from an address in manual memory to the end of its block; 0: there is none. *start: the block's first byte. */
size_t tri__manual_usable(const struct memory *mem, uintptr_t addr, uintptr_t *start);
/* Bytes in live blocks. */
size_t tri__manual_live_bytes(const struct memory *mem);
/* Gives back what the caches of ended threads and the calling one keep empty, and of other threads' what those that
 * freed it returned whole. Any thread. */
void tri__manual_trim(struct memory *mem);
size_t tri__manual_pages(const struct memory *mem);
/* Whether the address lies in another heap in which the calling thread has used manual memory. For messages. */
bool tri__manual_in_other_heap(const struct memory *mem, uintptr_t addr);

/* The span of an address, NULL if it is not in manual memory. */
static inline struct manual_span *manual_span_of(const struct space *space, uintptr_t addr) {
    if (!space_contains(space, addr)) return NULL;
    const struct page_entry *entry = &space->pages[space_page_of(space, addr)];
    if (shape_kind(atomic_load_acquire(&entry->shape)) != PAGE_MANUAL) return NULL; /* pairs with publish */
    return (struct manual_span *)(uintptr_t)atomic_load_relaxed(&entry->place);
}

/* For fork (gc/fork.c): the lock of who holds which cache; and in the child the caches of threads that it has not
 * become orphans, all lists made anew from the spans. */
struct lock *tri__manual_registry_lock(void);
void tri__manual_after_fork(struct memory *mem);

/* manual_span.c: spans, and the heap's pool of empty ones; the manual lock is held but where something else is said. */
/* Pages and records for a span, `like` this one. NULL: they cannot be had. *dirty: the pages may not read as zero. */
struct manual_span *tri__manual_span_new(struct memory *mem, size_t npages, const struct manual_span *like,
                                         size_t align_bytes, bool *dirty);
/* Gives back a span that nobody else can reach (I-MAN2). */
void tri__manual_span_drop(struct memory *mem, struct manual_span *ms);
/* The span changes hands: nobody has a block of it, or its owner has ended. */
void tri__manual_give_to(struct memory *mem, struct manual_cache *c, struct manual_span *ms);
/* Into the pool, at the cost of others there, the classes in turn. */
void tri__manual_pool_put(struct memory *mem, struct manual_span *ms);
/* A span of the class out of the pool, NULL if there is none. Takes the manual lock itself. */
struct manual_span *tri__manual_pool_take(struct manual_cache *c, unsigned class_index);
/* Gives the pool back. */
void tri__manual_pool_drop(struct memory *mem);
/* Whoever gives memory back to the system sees a heap of manual memory alone by this. No lock is needed. */
void tri__manual_tell(const struct memory *mem);

/* For manual.c and manual_thread.c. */
extern struct manual_span tri__manual_no_span;
/* Gives every empty span back, the current ones too; the rest is listed. Requires the manual lock. */
void tri__manual_settle(struct manual_cache *c);
/* Makes the lists of every cache that no thread holds anew from the spans, and the stacks of those that one does.
 * Requires the manual lock, and that no other thread runs. */
void tri__manual_refile_all(struct memory *mem);

#if TRI_CHECKS >= 1
enum manual_verdict { MANUAL_FINE, MANUAL_FOREIGN, MANUAL_INTERIOR, MANUAL_FREED, MANUAL_ROOT };
/* The records that a span keeps of its slots; NULL without memory. */
struct manual_record *tri__manual_records_new(uint32_t nslots);
void tri__manual_records_drop(struct manual_record *records);
void tri__manual_note_alloc(struct memory *mem, void *block, size_t size_bytes, bool root);
/* Whether the block may be freed, and then that it is; else what is wrong with it, and its history as far as known. */
enum manual_verdict tri__manual_note_free(struct memory *mem, void *block, bool root, struct manual_record *history);
#endif

#endif
