/* inspect.c - questions about the heap: which object an address lies in, walking all objects, the size of one.
 *
 * tri_find makes a reference out of an address, so it goes through the weak gate (R5). tri_walk runs on the collector's
 * thread between cycles with the world stopped. Lock rank: gate (40) inside tri_find. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

size_t tri_usable_size(tri_heap *heap, const void *obj) {
    struct slot slot;
    if (!heap || !space_find_slot(&heap->mem.space, (uintptr_t)obj, &slot)) return 0;
    return tri__slot_bytes(&heap->mem.space, &slot);
}

/* True if the slot is in the unused part of one of the thread's own holes (R4). */
static bool in_own_hole(const struct mutator *m, uintptr_t addr) {
    for (uint32_t i = 0; i < m->pub.nholes; i++) {
        const tri_hole *h = &m->pub.holes[i];
        if (addr >= (uintptr_t)h->cursor && addr < (uintptr_t)h->limit) return true;
    }
    return false;
}

/* Whether an unswept span's slot lives: its mark decides. Waits for a sweep of it that is under way. */
static bool lives_in_unswept(tri_heap *heap, struct span *span, const struct slot *slot) {
    for (;;) {
        uint8_t place = atomic_load_acquire(&span->place);
        uint32_t gen = atomic_load_acquire(&span->gen); /* pairs with span_sweep's release: bits before it */
        bool current = gen == atomic_load_acquire(&heap->mem.gen);
        bool lives = current ? space_is_allocated(&heap->mem.space, slot) : space_is_marked(&heap->mem.space, slot);
        if (place != SPAN_CLAIMED && atomic_load_acquire(&span->place) == place &&
            atomic_load_acquire(&span->gen) == gen)
            return lives;
        tri__os_yield();
    }
}

void *tri_find(tri_thread *thread, const void *address, const tri_type **type) {
    struct mutator *m = tri__mutator_check(thread, "tri_find");
    if (!m) return NULL;
    struct space *space = &m->heap->mem.space;
    struct slot slot;
    if (!space_contains(space, (uintptr_t)address) || !tri__gate_shade(m, (uintptr_t)address)) return NULL;
    tri__lock_acquire(&m->heap->mem.gate); /* R13: no page leaves a span meanwhile */
    bool found = space_find_slot(space, (uintptr_t)address, &slot) && !in_own_hole(m, slot.addr) &&
                 (m->armed || lives_in_unswept(m->heap, space_span_of(space, slot.addr), &slot));
    if (found && type) {
        const struct type_desc *desc = tri__layouts[space_layout_of(space, &slot)].desc;
        *type = desc ? desc->type : NULL;
    }
    tri__lock_release(&m->heap->mem.gate);
    return found ? (void *)slot.addr : NULL;
}

struct walk {
    void (*fn)(void *obj, const tri_type *type, size_t size_bytes, void *arg);
    void *arg;
    size_t n;
};

/* True if the slot is in the unused part of any thread's hole; the world is stopped. */
static bool in_any_hole(tri_heap *heap, const struct span *span, uintptr_t addr) {
    if (atomic_load_relaxed(&span->place) != SPAN_CACHED) return false; /* nobody runs */
    for (struct mutator *m = heap->threads; m; m = m->next)
        if (in_own_hole(m, addr)) return true;
    return false;
}

static void walk_stopped(tri_heap *heap, void *p) {
    struct walk *w = p;
    struct space *space = &heap->mem.space;
    size_t npages = atomic_load_acquire(&space->committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        if (shape_kind(atomic_load_acquire(&space->pages[page].shape)) == PAGE_NONE)
            continue;                                                 /* pairs with span_publish */
        struct span *span = atomic_load_relaxed(&space->spans[page]); /* ordered by the shape */
        if (span->first_page != page) continue;
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(space, span, i);
            if (!space_is_allocated(space, &slot) || in_any_hole(heap, span, slot.addr)) continue;
            uint32_t layout = space_layout_of(space, &slot);
            if (layout == 0) continue;
            const struct type_desc *desc = tri__layouts[layout].desc;
            w->n++;
            if (w->fn) w->fn((void *)slot.addr, desc ? desc->type : NULL, tri__slot_bytes(space, &slot), w->arg);
        }
    }
}

size_t tri_walk(tri_thread *thread, void (*fn)(void *, const tri_type *, size_t, void *), void *arg) {
    struct mutator *m = tri__mutator_check(thread, "tri_walk");
    if (!m) return 0;
    struct walk w = {fn, arg, 0};
    tri__collector_run(m, walk_stopped, &w);
    return w.n;
}

static void verify_stopped(tri_heap *heap, void *p) {
    *(int *)p = tri__verify(heap);
}

int tri_verify(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_verify");
    if (!m) return TRI_EUNATTACHED;
    int n = 0;
    tri__collector_run(m, verify_stopped, &n);
    return n;
}
