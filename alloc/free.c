/* free.c - one collected slot freed by hand, between two cycles; see tri__memory_free_slot in memory.h.
 *
 * Who may touch a span is decided by where it is (I-SPAN1), so what can be done at once depends on that:
 *
 *   a list, swept        under the list's lock: bits cleared, filed anew; a large one's pages go, or lie ready
 *   a list, not swept    the slot's mark is cleared, the sweep that is due frees it
 *   the caller's cache   bits cleared: the caller is the holder
 *   another's cache      nothing: the next cycle frees it. A look into that thread's holes would race with its bumps
 *   a sweeper's hand     the caller tries again
 *
 * All of it under the gate lock, under which a cycle says before its H1 that pages stay from now on (R13): so no cycle
 * marks meanwhile. Lock ranks: gate (40), then central (50) or large (55), or the page heap's (70). */
#include "alloc/cache.h"
#include "alloc/base/check.h"

/* A live slot that begins at the address, and that no two objects share. Gate lock held. */
static bool find(struct memory *mem, uintptr_t addr, struct slot *slot) {
    return space_find_slot(&mem->space, addr, slot) && slot->addr == addr &&
           !(space_span_of(&mem->space, addr)->flags & SPAN_SHARED) && space_layout_of(&mem->space, slot) != 0;
}

/* In a span that is not swept yet: what is unmarked is dead already. */
static enum free_outcome unmark(struct memory *mem, const struct slot *slot) {
    uint64_t bit, *word = space_mark_word(&mem->space, slot, &bit);
    return atomic_and_acqrel(word, ~bit) & bit ? FREE_DONE : FREE_REFUSED; /* R15; pairs with span_sweep */
}

static void fill(struct memory *mem, const struct span *span, const struct slot *slot) {
    uint64_t pattern = poison_word(space_layout_of(&mem->space, slot)), *words = (uint64_t *)slot->addr;
    for (size_t i = 0; i < span->slot_bytes / 8; i++) words[i] = pattern;
}

/* The holder frees a slot of a swept span. */
static enum free_outcome clear(struct memory *mem, struct span *span, const struct slot *slot, bool poison) {
    if (!space_is_allocated(&mem->space, slot)) return FREE_REFUSED;
    if (poison) fill(mem, span, slot);
    span->dirty = 1;
    tri__span_return_hole(&mem->space, span, slot->index, 1);
    return FREE_DONE;
}

/* Whether the span is in one of the chains of the caller's cache. */
static bool is_own(const struct cache *own, const struct span *span) {
    const struct span *hand = own->holes[span->layout].span;
    for (const struct span *s = hand; s; s = s->prev)
        if (s == span) return true;
    for (const struct span *s = hand; s; s = s->next)
        if (s == span) return true;
    return false;
}

/* In the caller's cache: what lies in the free part of its hole is no object. */
static enum free_outcome free_own(struct memory *mem, const struct cache *own, struct span *span,
                                  const struct slot *slot, bool poison) {
    const tri_hole *hole = &own->holes[span->layout];
    if (slot->addr >= (uintptr_t)hole->cursor && slot->addr < (uintptr_t)hole->limit) return FREE_REFUSED;
    if (atomic_load_relaxed(&span->gen) != atomic_load_acquire(&mem->gen)) return unmark(mem, slot); /* memory_flip */
    return clear(mem, span, slot, poison);
}

/* In a central list, whose lock is held. */
static enum free_outcome free_listed(struct memory *mem, struct central *central, struct span *span,
                                     const struct slot *slot, bool poison) {
    if (atomic_load_relaxed(&span->gen) != atomic_load_acquire(&mem->gen)) return unmark(mem, slot); /* memory_flip */
    struct span_list *list = central_list(central, span);
    enum free_outcome outcome = clear(mem, span, slot, poison);
    if (outcome != FREE_DONE) return outcome;
    tri__span_list_remove(list, span);
    if (span->nalloc == 0) {                            /* lies ready, as after a sweep */
        atomic_store_release(&span->place, SPAN_EMPTY); /* as file_swept in central.c */
        atomic_add_relaxed(&mem->empty_pages, span->npages);
        list = &central->empty;
    } else {
        list = central_list(central, span);
    }
    tri__span_list_push(list, span);
    return outcome;
}

static enum free_outcome free_small(struct memory *mem, const struct cache *own, struct span *span,
                                    const struct slot *slot, bool poison) {
    if (is_own(own, span)) return free_own(mem, own, span, slot, poison);
    struct central *central = atomic_load_acquire(&mem->centrals[span->layout]); /* pairs with central_get */
    enum free_outcome outcome = FREE_BUSY;
    tri__lock_acquire(&central->lock);
    switch ((enum span_place)atomic_load_relaxed(&span->place)) { /* a listed span stays listed under the lock */
    case SPAN_LISTED: outcome = free_listed(mem, central, span, slot, poison); break;
    case SPAN_CACHED: outcome = space_is_allocated(&mem->space, slot) ? FREE_LATER : FREE_REFUSED; break;
    case SPAN_CLAIMED: break;
    case SPAN_EMPTY:
    case SPAN_BUILDING:
    case SPAN_DEAD: outcome = FREE_REFUSED; break;
    }
    tri__lock_release(&central->lock);
    return outcome;
}

static enum free_outcome free_large(struct memory *mem, struct span *span, const struct slot *slot) {
    enum free_outcome outcome = FREE_BUSY;
    bool goes = false;
    tri__lock_acquire(&mem->large_lock);
    if (atomic_load_relaxed(&span->place) == SPAN_LISTED) { /* it stays listed under the lock */
        uint32_t gen = atomic_load_relaxed(&span->gen);
        goes = gen == atomic_load_acquire(&mem->gen); /* pairs with memory_flip */
        outcome = goes ? FREE_DONE : unmark(mem, slot);
        if (goes) tri__span_list_remove(&mem->large[gen & 1], span);
    }
    tri__lock_release(&mem->large_lock);
    if (!goes) return outcome;
    size_t first = span->first_page, npages = span->npages;
    tri__span_unpublish(&mem->space, span);
    if (tri__large_keep_ready(mem, span)) return outcome;
    atomic_store_relaxed(&span->place, SPAN_DEAD);
    tri__memory_drop_span(mem, span, first, npages);
    return outcome;
}

enum free_outcome tri__memory_free_slot(struct memory *mem, const struct cache *own, uintptr_t addr, bool poison,
                                        size_t *freed_bytes) {
    struct slot slot;
    enum free_outcome outcome = FREE_REFUSED;
    tri__lock_acquire(&mem->gate);
    if (mem->pages_stay) {
        outcome = FREE_BUSY;
    } else if (find(mem, addr, &slot)) {
        struct span *span = space_span_of(&mem->space, addr);
        *freed_bytes = span->slot_bytes;
        outcome = shape_kind(slot.shape) == PAGE_LARGE ? free_large(mem, span, &slot)
                                                       : free_small(mem, own, span, &slot, poison);
    }
    tri__lock_release(&mem->gate);
    return outcome;
}
