/* large.c - objects above 32 KiB: a span each; see memory.h.
 *
 * Only pages that may hold old bytes are zeroed: from the first such page of the run to the last. Fresh ones are zero,
 * and stay unwritten. While its memory is zeroed in pieces, with a safepoint between two, a large object is "being
 * built" (R12): it has pages, but no page entries, so lookups refuse it, and it is in no list, so nobody sweeps it.
 * Generation, colour, list and entries are set in one step without a safepoint, at publication.
 *
 * The pages of those up to 128 KiB (buffers above all) lie ready for the next object of as many pages when they die, as
 * empty spans of small ones do, within the same bound: the page heap's summaries took half of the time of a 64 KiB
 * object. Nothing else knows them meanwhile. Invariant: I-LARGE1 a ready run has no page entry and is in one list. Lock
 * rank: large (55). */
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/memory.h"

enum { ZERO_PIECE_BYTES = 256 << 10, TABLE_PIECE_PAGES = 4096, TABLE_STEP_PAGES = 256 /* at most a page of a table */ };

static void zero_in_pieces(struct memory *mem, void *mutator, uintptr_t addr, size_t size_bytes) {
    for (size_t done = 0; done < size_bytes;) {
        size_t piece = min_size(ZERO_PIECE_BYTES, size_bytes - done);
        memset((void *)(addr + done), 0, piece);
        done += piece;
        if (done < size_bytes && mem->hooks.zeroing) mem->hooks.zeroing(mem->hooks.context, mutator, done);
    }
}

/* Takes the memory of the tables behind a long run of pages, with a safepoint after each 32 MiB: publication has none,
 * and would take it all at once (80 ms for 10 GB). What is written is what is there: the pages have no span. */
static void touch_tables(struct memory *mem, void *mutator, size_t first, size_t npages) {
    const struct space *space = &mem->space;
    for (size_t i = 0; i < npages; i += TABLE_STEP_PAGES) {
        atomic_store_relaxed(&space->pages[first + i].place, 0); /* before the shape's release; nobody reads it yet */
        atomic_store_relaxed(&space->spans[first + i], NULL);
        if (i > 0 && i % TABLE_PIECE_PAGES == 0 && mem->hooks.zeroing)
            mem->hooks.zeroing(mem->hooks.context, mutator, i << PAGE_SHIFT);
    }
}

/* ---- pages that lie ready ------------------------------------------------------------------------------------- */

static bool has_list(size_t npages) {
    return npages >= READY_LEAST_PAGES && npages <= READY_MOST_PAGES;
}

/* Takes one off its list. Requires the large lock. */
static void unlist(struct memory *mem, struct span *span, size_t list) {
    struct ready_runs *ready = &mem->ready;
    check_internal(atomic_load_relaxed(&span->place) == SPAN_EMPTY,
                   "I-LARGE1: a ready run is in one list"); /* locked */
    tri__span_list_remove(&ready->lists[list], span);
    if (ready->lists[list].nspans < ready->low[list]) ready->low[list] = ready->lists[list].nspans;
    ready->npages -= span->npages;
    atomic_sub_relaxed(&mem->empty_pages, span->npages); /* a hint to others */
}

static struct span *take_ready(struct memory *mem, size_t npages) {
    if (!has_list(npages) || atomic_load_relaxed(&mem->empty_pages) == 0) return NULL; /* a hint */
    size_t list = npages - READY_LEAST_PAGES;
    tri__lock_acquire(&mem->large_lock);
    struct span *span = mem->ready.lists[list].head;
    if (span) {
        unlist(mem, span, list);
        atomic_store_relaxed(&span->place, SPAN_BUILDING); /* under the lock */
    }
    tri__lock_release(&mem->large_lock);
    return span;
}

bool tri__large_keep_ready(struct memory *mem, struct span *span) {
    if (span->kind != PAGE_LARGE || !has_list(span->npages)) return false;
    if (atomic_load_relaxed(&mem->empty_pages) >= atomic_load_relaxed(&mem->empty_limit_pages))
        return false; /* hints */
    check_internal(atomic_load_relaxed(&mem->space.pages[span->first_page].shape) == 0,
                   "I-LARGE1: a ready run has no page entry"); /* own */
    tri__lock_acquire(&mem->large_lock);
    atomic_store_relaxed(&span->place, SPAN_EMPTY); /* under the lock */
    tri__span_list_push(&mem->ready.lists[span->npages - READY_LEAST_PAGES], span);
    mem->ready.npages += span->npages;
    atomic_add_relaxed(&mem->empty_pages, span->npages);
    tri__lock_release(&mem->large_lock);
    return true;
}

/* Up to `max` of those of one list that lay longest, as a chain by next; *left as in drop_some. */
static struct span *take_coldest(struct memory *mem, size_t list, bool all, size_t max, size_t *left) {
    struct ready_runs *ready = &mem->ready;
    struct span *chain = NULL;
    tri__lock_acquire(&mem->large_lock);
    if (*left == SIZE_MAX) *left = all ? ready->lists[list].nspans : (ready->low[list] + 1) / 2;
    for (; *left > 0 && max > 0 && ready->lists[list].tail; --*left, max--) {
        struct span *span = ready->lists[list].tail;
        unlist(mem, span, list);
        atomic_store_relaxed(&span->place, SPAN_DEAD); /* under the lock */
        span->next = chain;
        chain = span;
    }
    if (!ready->lists[list].tail) *left = 0;
    if (*left == 0) ready->low[list] = ready->lists[list].nspans;
    tri__lock_release(&mem->large_lock);
    return chain;
}

void tri__large_drop_ready(struct memory *mem, size_t list, bool all, size_t max, size_t *left) {
    for (struct span *span = take_coldest(mem, list, all, max, left), *next; span; span = next) {
        next = span->next;
        tri__memory_drop_span(mem, span, span->first_page, span->npages);
    }
}

/* ---- an object -------------------------------------------------------------------------------------------------- */

void *tri__large_alloc(struct memory *mem, void *mutator, size_t size_bytes, uint32_t layout, uint8_t flags,
                       const uint32_t *gen, const bool *black, struct large_build *build) {
    if (size_bytes > mem->space.size_bytes) return NULL;
    size_t npages = ceil_div(size_bytes, PAGE_BYTES), first;
    struct page_part dirty;
    struct span *span = take_ready(mem, npages);
    if (span) {
        first = span->first_page;
        dirty = (struct page_part){first, first + npages};
    } else {
        span = tri__memory_new_large(mem, npages, &dirty, &first);
    }
    if (!span) return NULL;
    atomic_add_relaxed(&mem->building_pages, npages); /* for verify, which stops every thread */
    *build = (struct large_build){span, first, npages};
    uintptr_t addr = space_page_addr(&mem->space, first);
    if (!(flags & SPAN_LEAF) || (flags & SPAN_ZEROED)) /* the tail too: arrays are scanned to their capacity */
        zero_in_pieces(mem, mutator, space_page_addr(&mem->space, dirty.first),
                       (dirty.end - dirty.first) << PAGE_SHIFT);
    if (npages > TABLE_PIECE_PAGES) touch_tables(mem, mutator, first, npages);
    tri__span_format_large(span, first, npages, layout, flags, false);
    /* From here to the end: no safepoint (R12). */
    atomic_store_relaxed(&span->gen, *gen);
    struct slot slot = span_slot(&mem->space, span, 0);
    if (*black) space_set_mark(&mem->space, &slot);
    uint64_t bit;
    uint64_t *word = space_alloc_word(&mem->space, &slot, &bit);
    atomic_store_release(word, atomic_load_relaxed(word) | bit); /* its page's only bit; marks first (R15) */
    tri__span_publish(&mem->space, span);
    tri__lock_acquire(&mem->large_lock);
    atomic_store_relaxed(&span->place, SPAN_LISTED);
    tri__span_list_push(&mem->large[*gen & 1], span);
    tri__lock_release(&mem->large_lock);
    atomic_sub_relaxed(&mem->building_pages, npages);
    build->span = NULL;
    return (void *)addr;
}

void tri__large_abandon(struct memory *mem, struct large_build *build) {
    if (!build->span) return;
    atomic_sub_relaxed(&mem->building_pages, build->npages); /* as above */
    tri__memory_drop_span(mem, build->span, build->first, build->npages);
    build->span = NULL;
}
