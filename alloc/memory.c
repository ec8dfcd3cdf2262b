/* memory.c - assembling one heap's memory; span objects, their pages, the limit; see memory.h. */
#include "alloc/memory.h"
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"

void tri__span_list_push(struct span_list *list, struct span *span) {
    span->prev = NULL;
    span->next = list->head;
    if (list->head)
        list->head->prev = span;
    else
        list->tail = span;
    list->head = span;
    list->nspans++;
}

void tri__span_list_remove(struct span_list *list, struct span *span) {
    if (span->prev)
        span->prev->next = span->next;
    else
        list->head = span->next;
    if (span->next)
        span->next->prev = span->prev;
    else
        list->tail = span->prev;
    span->next = span->prev = NULL;
    list->nspans--;
}

/* What the system has taken of this thread's time, since it asked last. */
static _Thread_local uint64_t system_ns;

uint64_t tri__memory_take_system_ns(void) {
    uint64_t ns = system_ns;
    if (TRI_UNLIKELY(ns != 0)) system_ns = 0;
    return ns;
}

/* pageheap_ops.commit. */
static bool commit(void *context, size_t first, size_t npages) {
    uint64_t start = tri__os_now_ns();
    bool done = tri__space_commit(context, first, npages);
    system_ns += tri__os_now_ns() - start;
    return done;
}

/* pageheap_ops.alarm: what was taken is made good on the spot, as far as that costs the caller little; the hook's
 * owner does the rest. */
static void make_room(void *context, size_t npages) {
    enum { LEAST_PAGES = 64, MOST_PAGES = 512 };
    struct memory *mem = (struct memory *)((char *)context - offsetof(struct memory, space));
    uint64_t start = tri__os_now_ns();
    tri__pageheap_scavenge(mem->pages, min_size(max_size(npages, LEAST_PAGES), MOST_PAGES));
    system_ns += tri__os_now_ns() - start;
    if (mem->hooks.limit_near) mem->hooks.limit_near(mem->hooks.context);
}

/* pageheap_ops.ahead. */
static void tell_growth(void *context) {
    struct memory *mem = (struct memory *)((char *)context - offsetof(struct memory, space));
    if (mem->hooks.grows) mem->hooks.grows(mem->hooks.context);
}

bool tri__memory_init(struct memory *mem, size_t reserve_bytes, const struct alloc_hooks *hooks) {
    memset(mem, 0, sizeof *mem);
    if (!tri__space_init(&mem->space, reserve_bytes)) return false;
    struct pageheap_ops ops = {commit,     tri__space_decommit,       &mem->space,
                               make_room,  tri__space_release_tables, tri__space_populate,
                               tell_growth};
    size_t grow = min_size(ARENA_PAGES, mem->space.npages);
    mem->pages = tri__pageheap_create(mem->space.npages, grow, &ops);
    mem->centrals = tri__os_map(MAX_LAYOUTS * sizeof(struct central *));
    if (!mem->pages || !mem->centrals) {
        if (mem->pages) tri__pageheap_destroy(mem->pages);
        if (mem->centrals) tri__os_release(mem->centrals, MAX_LAYOUTS * sizeof(struct central *));
        tri__space_fini(&mem->space);
        return false;
    }
    mem->hooks = *hooks;
    mem->limit_pages = mem->space.npages;
    mem->empty_limit_pages = EMPTY_FLOOR_PAGES;
    tri__fixalloc_init(&mem->fix_span, sizeof(struct span), "spans", NULL, NULL);
    tri__fixalloc_init(&mem->fix_central, sizeof(struct central), "central lists", NULL, NULL);
    tri__lock_init(&mem->gate, RANK_GATE, "gate");
    tri__lock_init(&mem->large_lock, RANK_LARGE, "large objects");
    tri__manual_init(mem);
    return true;
}

void tri__memory_fini(struct memory *mem) {
    tri__manual_fini(mem);
    for (struct central *c = mem->all_centrals; c; c = c->next) tri__lock_fini(&c->lock);
    tri__lock_fini(&mem->gate);
    tri__lock_fini(&mem->large_lock);
    tri__pageheap_destroy(mem->pages);
    tri__os_release(mem->centrals, MAX_LAYOUTS * sizeof(struct central *));
    tri__fixalloc_fini(&mem->fix_span);
    tri__fixalloc_fini(&mem->fix_central);
    tri__space_fini(&mem->space);
}

/* Counts npages as used if the limit allows it (I-MEM1). */
static bool reserve_pages(struct memory *mem, size_t npages) {
    size_t used = atomic_add_relaxed(&mem->used_pages, npages) + npages; /* a counter; no other memory depends on it */
    if (used > atomic_load_relaxed(&mem->limit_pages)) {
        atomic_sub_relaxed(&mem->used_pages, npages);
        return false;
    }
    return true;
}

/* The lowest run of npages in a block, as a mask; 0: none. */
static uint64_t run_in(uint64_t free, size_t npages) {
    uint64_t starts = free; /* bit i: pages i to i + n - 1 are free, for growing n */
    for (size_t n = 1; n < npages && starts; n++) starts &= free >> n;
    return starts ? (UINT64_MAX >> (64 - npages)) << bit_lowest(starts) : 0;
}

static bool take_from_block(struct page_block *block, size_t npages, size_t *first, bool *dirty) {
    uint64_t mask = run_in(block->free, npages);
    if (!mask) return false;
    *first = block->first + bit_lowest(mask);
    *dirty = (block->dirty & mask) != 0;
    block->free &= ~mask;
    block->dirty &= ~mask;
    return true;
}

/* Small runs come out of the thread's own block, which is filled anew when it is empty (SOURCES S8). */
static bool take_pages(struct memory *mem, size_t npages, struct page_block *block, size_t *first, bool *dirty) {
    if (block && npages <= BLOCK_RUN_PAGES) {
        if (take_from_block(block, npages, first, dirty)) return true;
        if (!block->free && tri__pageheap_take_block(mem->pages, block) && take_from_block(block, npages, first, dirty))
            return true;
    }
    return tri__pageheap_alloc(mem->pages, npages, first, dirty);
}

/* The span object, if its pages were had; else nothing is kept. */
static struct span *with_pages(struct memory *mem, struct span *span, size_t npages, bool had) {
    if (TRI_LIKELY(had)) {
        atomic_store_relaxed(&span->place, SPAN_BUILDING); /* nobody else has it */
        atomic_add_relaxed(&mem->nspans, 1);               /* a counter */
        return span;
    }
    if (span) tri__fixalloc_put(&mem->fix_span, span);
    atomic_sub_relaxed(&mem->used_pages, npages);
    return NULL;
}

struct span *tri__memory_try_new_span(struct memory *mem, size_t npages, struct page_block *block, bool *dirty,
                                      size_t *first_page) {
    if (!reserve_pages(mem, npages)) return NULL;
    struct span *span = tri__fixalloc_get(&mem->fix_span);
    return with_pages(mem, span, npages, span && take_pages(mem, npages, block, first_page, dirty));
}

struct span *tri__memory_new_span(struct memory *mem, size_t npages, struct page_block *block, bool *dirty,
                                  size_t *first_page) {
    struct span *span = tri__memory_try_new_span(mem, npages, block, dirty, first_page);
    if (TRI_LIKELY(span != NULL) || atomic_load_relaxed(&mem->empty_pages) == 0) return span; /* a hint */
    (void)tri__memory_drop_empty(mem, true);
    return tri__memory_try_new_span(mem, npages, block, dirty, first_page);
}

static struct span *try_new_large(struct memory *mem, size_t npages, struct page_part *dirty, size_t *first_page) {
    if (!reserve_pages(mem, npages)) return NULL;
    struct span *span = tri__fixalloc_get(&mem->fix_span);
    return with_pages(mem, span, npages, span && tri__pageheap_alloc_part(mem->pages, npages, first_page, dirty));
}

struct span *tri__memory_new_large(struct memory *mem, size_t npages, struct page_part *dirty, size_t *first_page) {
    struct span *span = try_new_large(mem, npages, dirty, first_page);
    if (TRI_LIKELY(span != NULL) || atomic_load_relaxed(&mem->empty_pages) == 0) return span; /* a hint */
    (void)tri__memory_drop_empty(mem, true);
    return try_new_large(mem, npages, dirty, first_page);
}

void tri__memory_drop_span(struct memory *mem, struct span *span, size_t first_page, size_t npages) {
    tri__pageheap_free(mem->pages, first_page, npages);
    tri__fixalloc_put(&mem->fix_span, span);
    atomic_sub_relaxed(&mem->nspans, 1);
    atomic_sub_relaxed(&mem->used_pages, npages);
}

static bool free_span(struct memory *mem, struct span *span, bool is_sweeper) {
    size_t first = span->first_page, npages = span->npages;
    tri__lock_acquire(&mem->gate); /* R13: outside cycles a lookup holds this */
    bool goes = !mem->pages_stay;
    check_cheap(goes || !is_sweeper, "R13: no page leaves a span from H1 on until H5 is answered");
    if (goes) tri__span_unpublish(&mem->space, span);
    tri__lock_release(&mem->gate);
    if (!goes) return false;
    if (tri__large_keep_ready(mem, span)) return true;
    atomic_store_relaxed(&span->place, SPAN_DEAD);
    tri__memory_drop_span(mem, span, first, npages);
    return true;
}

void tri__memory_free_span(struct memory *mem, struct span *span) {
    (void)free_span(mem, span, true);
}

bool tri__memory_try_free_span(struct memory *mem, struct span *span) {
    return free_span(mem, span, false);
}

void tri__memory_flip(struct memory *mem) {
    atomic_store_release(&mem->gen,
                         atomic_load_relaxed(&mem->gen) + 1); /* pairs with acquire loads of gen by sweepers */
}

bool tri__memory_is_swept(struct memory *mem) {
    uint32_t gen = atomic_load_acquire(&mem->gen);
    unsigned old = (gen + 1) & 1; /* parity of the generation before */
    for (struct central *c = atomic_load_acquire(&mem->all_centrals); c; c = c->next) { /* pairs with central_get */
        if (!tri__central_is_swept(c, gen)) return false;
    }
    tri__lock_acquire(&mem->large_lock);
    bool left = mem->large[old].head != NULL;
    tri__lock_release(&mem->large_lock);
    return !left && atomic_load_acquire(&mem->nsweeping) == 0; /* pairs with the release at each sweep's end */
}

bool tri__memory_is_settled(struct memory *mem) {
    return tri__memory_is_swept(mem) && atomic_load_acquire(&mem->nclaimed) == 0; /* pairs with give_back in inside.c */
}

/* Words that are zero are not written: their pages may be shared with another process. Requires the gate lock, under
 * which no span leaves its pages. */
static void clear_marks_of_page(struct space *space, size_t page) {
    enum page_kind kind = shape_kind(atomic_load_acquire(&space->pages[page].shape)); /* pairs with span_publish */
    bool tiny = kind == PAGE_TINY;
    if (!shape_has_objects(atomic_load_relaxed(&space->pages[page].shape))) return; /* as above */
    uint64_t *marks = tiny ? (uint64_t *)(space_page_addr(space, page) + PAGE_BYTES - 2 * TINY_BITS_BYTES)
                           : &space->marks[page * PAGE_BIT_WORDS];
    size_t nwords = tiny ? TINY_BITS_BYTES / 8 : PAGE_BIT_WORDS;
    for (size_t i = 0; i < nwords; i++)
        if (atomic_load_relaxed(&marks[i])) atomic_store_relaxed(&marks[i], 0); /* nobody marks */
    struct span *span = atomic_load_relaxed(&space->spans[page]);               /* ordered by the shape */
    if (atomic_load_relaxed(&span->rescan)) atomic_store_relaxed(&span->rescan, 0);
}

void tri__memory_clear_marks(struct memory *mem) {
    enum { PAGES_A_LOCK = 512 };
    size_t npages = atomic_load_acquire(&mem->space.committed_pages); /* pairs with space_commit */
    for (size_t from = 0; from < npages; from += PAGES_A_LOCK) {
        tri__lock_acquire(&mem->gate); /* R13 */
        for (size_t page = from; page < npages && page < from + PAGES_A_LOCK; page++)
            clear_marks_of_page(&mem->space, page);
        tri__lock_release(&mem->gate);
    }
}

size_t tri__memory_scavenge(struct memory *mem, size_t max_pages) {
    size_t n = tri__pageheap_scavenge(mem->pages, max_pages);
    check_whole(tri__pageheap_verify(mem->pages, NULL, NULL) == 0, "I-PAGE: bits, summaries and counters agree");
    return n;
}

size_t tri__memory_metadata_bytes(struct memory *mem) {
    return tri__space_metadata_bytes(&mem->space) + tri__pageheap_metadata_bytes(mem->pages) +
           tri__fixalloc_in_use_bytes(&mem->fix_span) + tri__fixalloc_in_use_bytes(&mem->manual.fix_span) +
           tri__fixalloc_in_use_bytes(&mem->fix_central);
}
