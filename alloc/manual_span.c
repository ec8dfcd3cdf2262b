/* manual_span.c - spans of manual memory as the heap sees them: made of pages and records, published in the page table,
 * given back; and the pool of empty spans that any thread may take. What a cache does with its spans is manual.c's; the
 * invariants stand in manual.h: I-MAN1 (a span in the pool is nowhere else), I-MAN2 (nobody can reach one that goes
 * back), I-MAN3 (its owner changes here alone).
 *
 * Lock rank: RANK_MANUAL, which callers hold (tri__manual_pool_take takes it itself); the page heap's inside it. */
#include "alloc/base/check.h"
#include "alloc/manual.h"
#include "alloc/memory.h"

enum { POOL_PAGES = 512 }; /* of empty spans that any thread may take; a heap that idles drops them */

_Static_assert(sizeof(struct manual_span) == 128, "the owner's line and the line that others write to");
_Static_assert(NUM_MANUAL_CLASSES <= 256, "a class is a byte of a page's shape");

void tri__manual_tell(const struct memory *mem) {
    if (mem->hooks.manual_moves) mem->hooks.manual_moves(mem->hooks.context);
}

/* ---- making and giving back spans ---------------------------------------------------------------------------- */

static void publish(struct memory *mem, struct manual_span *ms, uint64_t shape) {
    struct space *space = &mem->space;
    for (size_t page = ms->span->first_page; page < ms->span->first_page + ms->span->npages; page++) {
        check_internal(atomic_load_relaxed(&space->pages[page].shape) == 0, "I-SPAN2: a page has one span");
        atomic_store_relaxed(&space->spans[page], ms->span);
        atomic_store_relaxed(&space->pages[page].place, (uint64_t)(uintptr_t)ms);
        atomic_store_release(&space->pages[page].shape,
                             shape); /* I-ARENA2; pairs with space_find_slot, which refuses */
    }
}

static uint64_t shape_of(const struct manual_span *ms) {
    const struct manual_cache *c = atomic_load_relaxed(&ms->owner); /* under the lock */
    uint64_t owner = c ? c->tag : PAGE_MANUAL;
    return owner | (uint64_t)ms->class_index << 8 | (uint64_t)ms->slot_bytes << 32;
}

struct manual_span *tri__manual_span_new(struct memory *mem, size_t npages, const struct manual_span *like,
                                         size_t align_bytes, bool *dirty) {
    size_t first, extra = align_bytes > PAGE_BYTES ? (align_bytes >> PAGE_SHIFT) - 1 : 0;
    struct manual_span *ms = tri__fixalloc_get(&mem->manual.fix_span);
    struct span *span = ms ? tri__memory_try_new_span(mem, npages + extra, NULL, dirty, &first) : NULL;
    if (!span) {
        if (ms) tri__fixalloc_put(&mem->manual.fix_span, ms);
        return NULL;
    }
    if (extra) { /* what lies around the aligned run goes back */
        size_t start = space_page_of(&mem->space, align_up(space_page_addr(&mem->space, first), align_bytes));
        if (start > first) tri__pageheap_free(mem->pages, first, start - first);
        if (start < first + extra) tri__pageheap_free(mem->pages, start + npages, first + extra - start);
        atomic_sub_relaxed(&mem->used_pages, extra); /* a counter */
        first = start;
    }
    tri__span_format_large(span, first, npages, 0, SPAN_LEAF, *dirty);
    span->kind = PAGE_MANUAL;
    span->class_index = like->class_index;
    atomic_store_relaxed(&span->place, SPAN_CACHED);
    *ms = *like;
    ms->span = span;
    ms->base = space_page_addr(&mem->space, first);
#if TRI_CHECKS >= 1
    ms->records = tri__manual_records_new(ms->nslots);
#endif
    publish(mem, ms, shape_of(ms));
    atomic_store_relaxed(&mem->manual.npages, mem->manual.npages + npages); /* under the lock; others read a figure */
    tri__manual_tell(mem);
    return ms;
}

void tri__manual_span_drop(struct memory *mem, struct manual_span *ms) {
    struct space *space = &mem->space;
    size_t first = ms->span->first_page, npages = ms->span->npages;
    check_internal(atomic_load_relaxed(&ms->remote) == 0, "I-MAN2: nothing is on its way to an empty span");
    for (size_t page = first; page < first + npages; page++) {
        atomic_store_release(&space->pages[page].shape, 0); /* lookups refuse it before and after */
        atomic_store_relaxed(&space->pages[page].place, 0);
        atomic_store_relaxed(&space->spans[page], NULL);
    }
#if TRI_CHECKS >= 1
    tri__manual_records_drop(ms->records);
#endif
    tri__memory_drop_span(mem, ms->span, first, npages);
    tri__fixalloc_put(&mem->manual.fix_span, ms);
    atomic_store_relaxed(&mem->manual.npages, mem->manual.npages - npages); /* as in tri__manual_span_new */
}

/* ---- the pool ------------------------------------------------------------------------------------------------ */

static void drop_from_pool(struct memory *mem, unsigned class_index) {
    struct manual_span *ms = mem->manual.pool[class_index];
    mem->manual.pool[class_index] = ms->next;
    atomic_store_relaxed(&mem->manual.pool_pages,
                         mem->manual.pool_pages - ms->span->npages); /* under the lock; a hint */
    tri__manual_span_drop(mem, ms);
}

void tri__manual_pool_drop(struct memory *mem) {
    for (unsigned i = 0; i < NUM_MANUAL_CLASSES; i++)
        while (mem->manual.pool[i]) drop_from_pool(mem, i);
}

void tri__manual_pool_put(struct memory *mem, struct manual_span *ms) {
    struct manual *manual = &mem->manual;
    while (manual->pool_pages > 0 && manual->pool_pages + ms->span->npages > POOL_PAGES) {
        manual->pool_victim = (manual->pool_victim + 1) % NUM_MANUAL_CLASSES;
        if (manual->pool[manual->pool_victim]) drop_from_pool(mem, manual->pool_victim);
    }
    ms->next = manual->pool[ms->class_index];
    manual->pool[ms->class_index] = ms;
    atomic_store_relaxed(&manual->pool_pages, manual->pool_pages + ms->span->npages); /* as in drop_from_pool */
}

void tri__manual_give_to(struct memory *mem, struct manual_cache *c, struct manual_span *ms) {
    atomic_add_relaxed(&c->nspans[ms->class_index], 1);
    if (atomic_load_relaxed(&ms->owner) == c) return;
    atomic_store_relaxed(&ms->owner, c); /* I-MAN3 */
    for (size_t page = ms->span->first_page; page < ms->span->first_page + ms->span->npages; page++)
        atomic_store_release(&mem->space.pages[page].shape, shape_of(ms)); /* others compare, and never match */
}

struct manual_span *tri__manual_pool_take(struct manual_cache *c, unsigned class_index) {
    struct memory *mem = atomic_load_relaxed(&c->mem);                  /* alive: the caller uses it */
    if (atomic_load_relaxed(&mem->manual.pool_pages) == 0) return NULL; /* a hint */
    tri__lock_acquire(&mem->manual.lock);
    struct manual_span *ms = mem->manual.pool[class_index];
    if (ms) {
        mem->manual.pool[class_index] = ms->next;
        atomic_store_relaxed(&mem->manual.pool_pages, mem->manual.pool_pages - ms->span->npages); /* drop_from_pool */
        ms->next = ms->prev = NULL;
        tri__manual_give_to(mem, c, ms);
    }
    tri__lock_release(&mem->manual.lock);
    return ms;
}
