/* weak.c - weak slots: words of an object that name another one without keeping it alive.
 *
 * The marker does not look at them. When a cycle has closed, every weak slot of a marked object that names an unmarked
 * one is cleared, by compare-and-swap, so that a newer word stays (R7). Where they are is known from the pages: a type
 * with weak slots is never in a mixed span, so a page's entry says whether its slots have any, and nothing is
 * registered, linked or allocated for a weak slot, but for the range of pages in which there was one.
 *
 * A load makes a reference out of what keeps nothing alive, so an armed thread asks the gate (R5), and looks at the
 * slot again afterwards: an object that comes back (finalize.c) is marked after the slots that name it are cleared, so
 * whoever finds its mark finds the slot cleared, too.
 *
 * Invariants: I-WEAK1 between cycles a weak slot of a live object names a live object, or nothing of the heap. I-WEAK2
 * an object is taken for dead only if its allocation bit is seen and its mark, read after it, is not (R15): a slot of a
 * hole that is just being taken has no allocation bit yet. Lock ranks: gate (40), for freed objects and loads. */
#include <stdio.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* Looked through with the gate lock held, and between two looks at the clock: some microseconds. */
enum { LOCKED_PAGES = 16, SLICE_UNITS = 128 };

/* Relaxed: the handshakes order it (see tri__weak_clear_dead), or the host, for what it frees and names. */
void tri__weak_note(tri_heap *heap, const void *obj) {
    struct death *d = &heap->death;
    size_t page = space_span_of(&heap->mem.space, (uintptr_t)obj)->first_page;
    size_t low = atomic_load_relaxed(&d->weak_low), end = atomic_load_relaxed(&d->weak_end);
    while (page < low && !atomic_cas_relaxed(&d->weak_low, &low, page)) {}
    while (page >= end && !atomic_cas_relaxed(&d->weak_end, &end, page + 1)) {}
}

/* ---- finding weak slots ---------------------------------------------------------------------------------------- */

struct weak_walk {
    tri_heap *heap;
    /* Whether the object's slots are visited. */
    bool (*wants)(const struct weak_walk *w, const struct slot *holder);
    void (*visit)(struct weak_walk *w, const struct slot *holder, tri_word *word);
    struct weak_place at;
    size_t units; /* that may still be looked at */
    uintptr_t target;
    uint64_t ncleared;
    void (*say)(void *context, const char *text);
    void *context;
};

static void visit_map(struct weak_walk *w, const struct slot *holder, uintptr_t addr, const struct slot_map *map) {
    for (uint32_t base = 0; base < map->nwords; base += 64)
        for (uint64_t m = map->weaks[base / 64]; m; m &= m - 1)
            w->visit(w, holder, (tri_word *)addr + base + bit_lowest(m));
}

/* One of w->units, if there is one. */
static bool spend(struct weak_walk *w) {
    if (w->units == 0) return false;
    w->units--;
    return true;
}

/* From the element that w has come to. False: there were too few units. */
static bool visit_holder(struct weak_walk *w, const struct slot *holder, const struct type_desc *d) {
    if (w->at.byte == 0) {
        visit_map(w, holder, holder->addr, &d->fixed);
        w->at.byte = d->size;
    }
    size_t size_bytes = tri__slot_bytes(&w->heap->mem.space, holder);
    if (d->elem_size > 0 && d->elem.nwords > 0)
        for (; w->at.byte + d->elem_size <= size_bytes; w->at.byte += d->elem_size) {
            if (!spend(w)) return false;
            visit_map(w, holder, holder->addr + w->at.byte, &d->elem);
        }
    w->at.byte = 0;
    return true;
}

/* Looks at the page that w has come to, from there on, and goes to the next one. False: there were too few units. */
static bool walk_page(struct weak_walk *w) {
    const struct space *space = &w->heap->mem.space;
    if (!spend(w)) return false;
    uint64_t shape = atomic_load_acquire(&space->pages[w->at.page].shape); /* pairs with span_publish */
    if (!shape_has_objects(shape)) {
        w->at.page++;
        return true;
    }
    struct span *span = atomic_load_relaxed(&space->spans[w->at.page]); /* ordered by the shape */
    const struct type_desc *d = tri__layouts[shape_layout(shape)].desc;
    if (d && d->has_weak && span->first_page == w->at.page)
        for (; w->at.slot < span->nslots; w->at.slot++) {
            struct slot holder = span_slot(space, span, w->at.slot);
            if (!spend(w) || ((w->at.byte > 0 || w->wants(w, &holder)) && !visit_holder(w, &holder, d))) return false;
        }
    w->at = (struct weak_place){.page = span->first_page + span->npages};
    return true;
}

/* Goes on to the first page that may have any; the one behind the last. Relaxed: see tri__weak_note. A span that begins
 * before that page has none, or its first page would have been noted. */
static size_t weak_pages(struct weak_walk *w) {
    w->at.page = max_size(w->at.page, atomic_load_relaxed(&w->heap->death.weak_low));
    return atomic_load_relaxed(&w->heap->death.weak_end);
}

/* ---- a cycle's dead -------------------------------------------------------------------------------------------- */

static bool is_marked_holder(const struct weak_walk *w, const struct slot *holder) {
    const struct space *space = &w->heap->mem.space;
    return space_is_allocated(space, holder) && space_is_marked(space, holder); /* in this order: R15, zeroed by then */
}

static void clear_if_dead(struct weak_walk *w, const struct slot *holder, tri_word *word) {
    (void)holder;
    const struct space *space = &w->heap->mem.space;
    tri_word seen = atomic_load_acquire(word); /* pairs with tri_store */
    struct slot target;
    if (!seen || !space_find_slot(space, (uintptr_t)seen, &target)) return;
    if (!space_is_allocated(space, &target) || space_is_marked(space, &target)) return; /* I-WEAK2 */
    if (heap_fault(w->heap, FAULT_KEEP_WEAK)) return;
    tri__stress_delay(w->heap);                           /* a store may come here */
    if (atomic_cas_acqrel(word, &seen, 0)) w->ncleared++; /* R7: never a newer value; pairs with tri_weak_load_slow */
}

/* No page leaves a span meanwhile (R13), and what is allocated from here on holds only what is marked. So an object
 * with weak slots that this does not see (not noted yet, a page just published) needs nothing. */
bool tri__weak_clear_dead(tri_heap *heap, uint64_t deadline_ns) {
    struct weak_walk w = {.heap = heap, .wants = is_marked_holder, .visit = clear_if_dead};
    w.at = heap->death.weak;
    size_t n = weak_pages(&w);
    while (w.at.page < n) {
        w.units = SLICE_UNITS;
        while (w.at.page < n && walk_page(&w)) {}
        tri__units_did(SLICE_UNITS - w.units);
        if (w.at.page < n && heap_is_late(heap, deadline_ns)) break;
    }
    heap->death.weak = w.at;
    atomic_add_relaxed(&heap->death.cleared_slots, w.ncleared); /* a counter */
    return w.at.page >= n;
}

/* ---- an object that is freed by hand ---------------------------------------------------------------------------- */

/* Slots of a hole count: they are empty, and whoever takes them next zeroes them by atomic stores (zero_words in
 * alloc/span.c). */
static bool is_live_holder(const struct weak_walk *w, const struct slot *holder) {
    return space_is_allocated(&w->heap->mem.space, holder) && tri__lives(w->heap, holder);
}

static void clear_if_target(struct weak_walk *w, const struct slot *holder, tri_word *word) {
    (void)holder;
    tri_word seen = atomic_load_acquire(word); /* pairs with tri_store */
    struct slot target;
    if (!seen || !space_find_slot(&w->heap->mem.space, (uintptr_t)seen, &target) || target.addr != w->target) return;
    tri__stress_delay(w->heap);              /* a store may come here */
    (void)atomic_cas_acqrel(word, &seen, 0); /* R7: never a newer value; pairs with tri_weak_load's acquire */
}

void tri__weak_clear_one(tri_heap *heap, uintptr_t addr) {
    struct weak_walk w = {.heap = heap, .wants = is_live_holder, .visit = clear_if_target, .target = addr};
    for (size_t n = weak_pages(&w); w.at.page < n;) {
        tri__lock_acquire(&heap->mem.gate); /* R13: no page leaves its span */
        for (size_t end = min_size(w.at.page + LOCKED_PAGES, n); w.at.page < end;) {
            w.units = SIZE_MAX;
            walk_page(&w);
            tri__units_did(SIZE_MAX - w.units);
        }
        tri__lock_release(&heap->mem.gate);
    }
}

/* ---- loads ------------------------------------------------------------------------------------------------------ */

void *tri_weak_load_slow(tri_thread *thread, const void *slot) {
    struct mutator *m = tri__mutator_check(thread, "tri_weak_load");
    if (!m) return NULL;
    IN_CALL("tri_weak_load");
    note_site(m, CALL_SITE("tri_weak_load"));
    const tri_word *word = slot;
    uint64_t start = 0;
    for (;;) {
        tri_word seen = atomic_load_acquire(word); /* pairs with tri_store */
        if (!seen || !m->armed || !space_contains(&m->heap->mem.space, (uintptr_t)seen)) return (void *)(uintptr_t)seen;
        enum gate_answer answer = tri__gate_load_quick(m, (uintptr_t)seen);
        if (answer == GATE_REFUSES) return NULL;
        if (answer == GATE_DELAYS) {
            if (!start) start = tri__os_now_ns();
            if (!tri__gate_wait(m, start, "tri_weak_load")) return NULL;
        } else if (atomic_load_acquire(word) == seen) { /* pairs with clear_if_dead */
            return (void *)(uintptr_t)seen;
        }
    }
}

/* ---- verify ----------------------------------------------------------------------------------------------------- */

static void check_word(struct weak_walk *w, const struct slot *holder, tri_word *word) {
    tri_word seen = atomic_load_acquire(word); /* nobody runs */
    struct slot target;
    if (!space_contains(&w->heap->mem.space, (uintptr_t)seen) || manual_span_of(&w->heap->mem.space, (uintptr_t)seen))
        return;
    if (space_find_slot(&w->heap->mem.space, (uintptr_t)seen, &target) && tri__lives(w->heap, &target)) return;
    char text[160];
    snprintf(text, sizeof text, "I-WEAK1: the weak slot at offset %zu of a %s at %p names %p, which is dead",
             (size_t)((uintptr_t)word - holder->addr), layout_name(shape_layout(holder->shape)), (void *)holder->addr,
             (void *)(uintptr_t)seen);
    w->say(w->context, text);
}

void tri__weak_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context) {
    struct weak_walk w = {.heap = heap, .wants = is_live_holder, .visit = check_word, .say = say, .context = context};
    for (size_t n = weak_pages(&w); w.at.page < n;) {
        w.units = SIZE_MAX;
        walk_page(&w);
    }
}
