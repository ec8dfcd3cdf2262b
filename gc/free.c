/* free.c - tri_free: a collected object freed early, by a host that knows that nothing refers to it.
 *
 * From H1 posted until H5 answered no object is freed by hand (R13): a thread that is armed may have the object in its
 * barrier's buffer. The gate lock decides (alloc/free.c): while a cycle marks, the caller waits for its flip as a
 * blocked thread, holding nothing. Lock ranks: those of alloc/free.c. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"

static bool is_marking(tri_heap *heap) {
    tri__lock_acquire(&heap->mem.gate);
    bool marking = heap->mem.pages_stay; /* R13 */
    tri__lock_release(&heap->mem.gate);
    return marking;
}

struct free_wait {
    tri_heap *heap;
    uint64_t end_ns;
};

static void wait_for_flip(void *p) {
    const struct free_wait *w = p;
    while (is_marking(w->heap) && tri__os_now_ns() < w->end_ns)
        tri__step_or_wait(w->heap, &w->heap->triggered); /* woken when H6 is answered; after_flip */
}

static int refuse(const struct mutator *m, const void *obj) {
    const char *why = "it is not in this heap";
    struct slot slot;
    if (manual_span_of(&m->heap->mem.space, (uintptr_t)obj))
        why = "it lies in manual memory, which tri_manual_free frees";
    else if (space_find_slot(&m->heap->mem.space, (uintptr_t)obj, &slot) &&
             space_layout_of(&m->heap->mem.space, &slot) == LAYOUT_TINY)
        why = "it may share its slot with others (tiny=on), so only a cycle frees it";
    else if (space_find_slot(&m->heap->mem.space, (uintptr_t)obj, &slot))
        why = slot.addr == (uintptr_t)obj ? "it has been freed already" : "it lies inside an object; give its start";
    else if (space_contains(&m->heap->mem.space, (uintptr_t)obj))
        why = "nothing is allocated there";
    return tri__error(TRI_EINVAL, "tri_free", "%p is not the start of a live object: %s", obj, why);
}

/* Waits for the flip with the object in a root: what the host holds may live nowhere but in its own variables. False:
 * there is no object to wait for. */
static bool wait_with_root(struct mutator *m, struct free_wait *w, void *obj) {
    const struct space *space = &m->heap->mem.space;
    struct slot slot;
    if (!space_find_slot(space, (uintptr_t)obj, &slot) || slot.addr != (uintptr_t)obj || /* its page stays (R13) */
        !space_is_allocated(space, &slot))
        return false;
    TRI_LOCALS(&m->pub, root, 1);
    root[0] = obj;
    uint64_t ns = tri__blocking_wait(m, wait_for_flip, w);
    TRI_POP(&m->pub, root);
    tri__stats_pause_of(m->heap, m, TRI_PAUSE_GATE, ns);
    return true;
}

static enum free_outcome try_to_free(struct mutator *m, void *obj, size_t *freed_bytes) {
    NO_FORK(m->os);
    return tri__memory_free_slot(&m->heap->mem, &m->cache, (uintptr_t)obj, TRI_CHECKS >= 1, freed_bytes);
}

/* What names the object without keeping it alive loses it, and what waited for its death is due, before its slot can be
 * another object's. False while a cycle marks, when the caller waits, and where there is no object. The look for what
 * names it goes by the heap's size, so it is told as a pause: nothing says whether there is anything, since a store to
 * a weak slot is like any other (inline.h). */
static bool dies(struct mutator *m, uintptr_t addr) {
    tri_heap *heap = m->heap;
    const struct space *space = &heap->mem.space;
    struct slot slot;
    tri__lock_acquire(&heap->mem.gate);
    bool live = !heap->mem.pages_stay && space_find_slot(space, addr, &slot) && slot.addr == addr &&
                !(space_span_of(space, addr)->flags & SPAN_SHARED) && tri__lives(heap, &slot);
    tri__lock_release(&heap->mem.gate);
    if (!live) return false;
    uint64_t start = tri__death_looks(heap) ? tri__os_now_ns() : 0;
    tri__death_of_freed(heap, addr);
    if (start) tri__stats_pause_of(heap, m, TRI_PAUSE_GATE, tri__os_now_ns() - start);
    return true;
}

int tri_free(tri_thread *thread, void *obj) {
    struct mutator *m = tri__mutator_check(thread, "tri_free");
    if (!m) return TRI_EUNATTACHED;
    IN_CALL("tri_free");
    note_site(m, CALL_SITE("tri_free"));
    if (obj == tri__zero_address()) return TRI_OK; /* 0 bytes: nothing to free */
    struct free_wait w = {m->heap, tri__os_now_ns() + heap_wait_limit_ns(m->heap)};
    size_t freed_bytes = 0;
    for (bool died = false;;) {                 /* no safepoint but in wait_with_root */
        died = died || dies(m, (uintptr_t)obj); /* once: nobody has it to name it anew */
        enum free_outcome outcome = try_to_free(m, obj, &freed_bytes);
        if (outcome == FREE_REFUSED) return refuse(m, obj);
        if (outcome == FREE_DONE) atomic_sub_relaxed(&m->heap->heap_bytes, freed_bytes); /* a counter */
        if (outcome != FREE_BUSY) return TRI_OK;
        if (tri__os_now_ns() >= w.end_ns)
            return tri__error(TRI_ETIMEDOUT, "tri_free", "a cycle has been marking for %llu ms",
                              (unsigned long long)(heap_wait_limit_ns(m->heap) / 1000000));
        if (!is_marking(m->heap))
            tri__os_yield(); /* its span is being swept */
        else if (!wait_with_root(m, &w, obj))
            return refuse(m, obj);
    }
}
