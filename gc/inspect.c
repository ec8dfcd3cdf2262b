/* inspect.c - questions about the heap: which object an address lies in, walking all objects, the size of one.
 *
 * tri_find makes a reference out of an address, so it goes through the weak gate (R5). tri_walk runs on the collector's
 * thread between cycles with the world stopped. Lock rank: gate (40) inside tri_find. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* True if an address is in the unused part of one of the thread's holes (R4). Its thread may bump meanwhile. */
static bool in_hole_of(const struct mutator *m, uintptr_t addr) {
    for (const tri_hole *h = cache_first(&m->cache); h; h = cache_after(&m->cache, h)) {
        uintptr_t limit, cursor;
        do { /* until both ends are of one hole; pairs with set_hole in alloc/cache.c */
            limit = (uintptr_t)atomic_load_acquire(&h->limit);
            cursor = (uintptr_t)atomic_load_acquire(&h->cursor); /* a slot bumped over just now may be refused */
        } while (limit != (uintptr_t)atomic_load_relaxed(&h->limit));
        if (addr >= cursor && addr < limit) return true;
    }
    return false;
}

/* Whether a slot lives, as far as bits can tell: its allocation bit in a swept span, its mark in an unswept one. Waits
 * for a sweep of the span's bits that is under way, which needs no lock. Gate lock held. */
bool tri__lives(tri_heap *heap, const struct slot *slot) {
    struct span *span = space_span_of(&heap->mem.space, slot->addr);
    uint32_t current = atomic_load_acquire(&heap->mem.gen);
    for (;;) {
        if (atomic_load_acquire(&span->gen) == current) /* pairs with span_sweep's release: the bits are final */
            return space_is_allocated(&heap->mem.space, slot);
        if (space_is_marked(&heap->mem.space, slot)) return true;
        /* The claim is set before the sweep clears a mark, and given up after the generation is set. */
        if (atomic_load_acquire(&span->place) != SPAN_CLAIMED && atomic_load_acquire(&span->gen) != current)
            return false;
        tri__os_yield();
    }
}

/* The live slot that an address lies in. */
static bool find_live(tri_heap *heap, uintptr_t addr, bool armed, struct slot *slot) {
    struct space *space = &heap->mem.space;
    tri__lock_acquire(&heap->mem.gate); /* R13: no page leaves a span meanwhile */
    bool found = space_find_slot(space, addr, slot) &&
                 (armed ? space_is_allocated(space, slot) : tri__lives(heap, slot)) &&
                 space_layout_of(space, slot) != 0;
    tri__lock_release(&heap->mem.gate);
    return found;
}

/* True if the slot is in the unused part of any attached thread's hole. */
static bool in_some_hole(tri_heap *heap, uintptr_t addr) {
    bool in = false;
    tri__lock_acquire(&heap->threads_lock);
    for (struct mutator *m = heap->threads; m && !in; m = m->next) {
        tri__lock_acquire(&m->os->lock); /* its table of holes stays where it is */
        in = in_hole_of(m, addr);
        tri__lock_release(&m->os->lock);
    }
    tri__lock_acquire(&heap->left_lock);
    for (struct mutator *m = heap->left; m && !in; m = m->next) in = in_hole_of(m, addr);
    tri__lock_release(&heap->left_lock);
    tri__lock_release(&heap->threads_lock);
    return in;
}

size_t tri_usable_size(tri_heap *heap, const void *obj) {
    struct slot slot;
    if (tri__callback_calls(heap, "tri_usable_size")) return 0;
    NO_SAFEPOINT("tri_usable_size");
    if (!heap || !space_contains(&heap->mem.space, (uintptr_t)obj)) return 0;
    if (!find_live(heap, (uintptr_t)obj, false, &slot)) return 0;
    if (space_layout_of(&heap->mem.space, &slot) == LAYOUT_TINY) return 0; /* others lie behind it */
    return tri__slot_bytes(&heap->mem.space, &slot);
}

static void wait_for_close(void *p) {
    tri_heap *heap = p;
    tri__step_or_wait(heap, &heap->loads_wait); /* gate_close wakes */
}

bool tri__gate_wait(struct mutator *m, uint64_t start_ns, const char *call) {
    uint64_t now = tri__os_now_ns();
    if (now - start_ns >= heap_wait_limit_ns(m->heap)) {
        (void)tri__error(TRI_ETIMEDOUT, call, "the cycle does not close: %s", tri__why_late(m->heap));
        return false;
    }
    tri__stats_pause_of(m->heap, m, TRI_PAUSE_GATE, tri__blocking_wait(m, wait_for_close, m->heap)); /* R14 */
    return true;
}

/* R5: may a reference be made of this address? Waits for the close where the gate says so, for wait_limit_ms at
 * most. */
static bool passes_gate(struct mutator *m, uintptr_t addr) {
    uint64_t start = tri__os_now_ns();
    for (;;) {
        enum gate_answer answer = tri__gate_load(m, addr);
        if (answer != GATE_DELAYS) return answer == GATE_ALLOWS;
        if (!tri__gate_wait(m, start, "tri_find")) return false;
    }
}

/* After the close only what is marked is given away (R5); the gate has looked at the same address before. */
static void check_given(tri_heap *heap, const struct slot *slot) {
#if TRI_CHECKS >= 1
    tri__lock_acquire(&heap->mem.gate);
    check_cheap(heap->gate != GATE_CLOSED || space_is_marked(&heap->mem.space, slot),
                "R5: after the close a load gives away marked objects only");
    tri__lock_release(&heap->mem.gate);
#else
    (void)heap, (void)slot;
#endif
}

void *tri_find(tri_thread *thread, const void *address, const tri_type **type) {
    struct mutator *m = tri__mutator_check(thread, "tri_find");
    if (!m) return NULL;
    IN_CALL("tri_find");
    note_site(m, CALL_SITE("tri_find"));
    struct space *space = &m->heap->mem.space;
    struct slot slot;
    if (!space_contains(space, (uintptr_t)address) || !passes_gate(m, (uintptr_t)address)) return NULL;
    NO_SAFEPOINT("tri_find, after its wait");
    /* First that it lives, then that it is in no hole: a slot that leaves a hole in between has become an object, or
     * lost its bit, which the last look finds. */
    if (!find_live(m->heap, (uintptr_t)address, m->armed, &slot) || in_some_hole(m->heap, slot.addr) ||
        !find_live(m->heap, (uintptr_t)address, m->armed, &slot))
        return NULL;
    check_given(m->heap, &slot);
    if (type) {
        const struct type_desc *desc = tri__layouts[space_layout_of(space, &slot)].desc;
        *type = desc ? desc->type : NULL;
    }
    return (void *)slot.addr;
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
        if (in_hole_of(m, addr)) return true;
    return false;
}

static void walk_stopped(tri_heap *heap, void *p) {
    IN_CALLBACK(WALK_CALLBACK);
    struct walk *w = p;
    struct space *space = &heap->mem.space;
    size_t npages = atomic_load_acquire(&space->committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        if (!shape_has_objects(atomic_load_acquire(&space->pages[page].shape))) continue; /* pairs with span_publish */
        struct span *span = atomic_load_relaxed(&space->spans[page]);                     /* ordered by the shape */
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
    IN_CALL("tri_walk");
    note_site(m, CALL_SITE("tri_walk"));
    struct walk w = {fn, arg, 0};
    if (!tri__collector_run(m, walk_stopped, &w))
        (void)tri__error(TRI_ETIMEDOUT, "tri_walk", "%s", tri__why_late(m->heap));
    return w.n;
}

static void verify_stopped(tri_heap *heap, void *p) {
    *(int *)p = tri__verify(heap);
}

int tri_verify(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_verify");
    if (!m) return TRI_EUNATTACHED;
    IN_CALL("tri_verify");
    note_site(m, CALL_SITE("tri_verify"));
    int n = 0;
    if (!tri__collector_run(m, verify_stopped, &n))
        return tri__error(TRI_ETIMEDOUT, "tri_verify", "%s", tri__why_late(m->heap));
    return n;
}
