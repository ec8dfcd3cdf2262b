/* finalize.c - finalizer queues: objects that come back once when nothing reaches them any more.
 *
 * When a cycle has closed and weak slots are cleared, each unmarked object that a queue watches is marked, with all
 * that it names (it is revived), by the collector alone: nobody else can reach any of it. Only when all of that is
 * black do the queues have it (R7), so whoever takes an object from a queue gets one whose world is complete.
 * While objects are being revived a mark does not say that a mutator could reach the object when the cycle closed, so
 * loads by address and iterations wait (gate, R5).
 *
 * What lies in a queue is a root: scanned beside the mutators like a persistent handle, and shaded by an armed thread
 * that takes it out (R17).
 *
 * Invariants: I-FIN1 an object is delivered black, with all that it names. I-FIN2 all objects that were unmarked at the
 * close and are watched come back in that cycle, whatever reaches them among each other. Lock ranks: death (33), then
 * the gate's (40) and the work list's (60). */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* Looked at with the lock held, which whoever polls a queue wants. */
enum { SLICE_WATCHES = 64 };

tri_finq *tri_finq_new(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_finq_new");
    NO_SAFEPOINT("tri_finq_new");
    if (!m) return NULL;
    tri_finq *q = tri__fixalloc_get(&m->heap->fix_small);
    if (!q) {
        (void)tri__error(TRI_ENOMEM, "tri_finq_new", "no memory for the queue");
        return NULL;
    }
    struct watches *ws = &m->heap->death.watches;
    *q = (tri_finq){.heap = m->heap};
    tri__lock_acquire(&ws->lock);
    q->next = ws->queues;
    ws->queues = q;
    tri__lock_release(&ws->lock);
    return q;
}

int tri_finq_watch(tri_thread *thread, tri_finq *queue, void *obj) {
    struct mutator *m = tri__mutator_check(thread, "tri_finq_watch");
    if (!m) return TRI_EUNATTACHED;
    if (!queue || queue->heap != m->heap)
        return tri__error(TRI_EINVAL, "tri_finq_watch",
                          "queue is NULL, or of another heap; make one with tri_finq_new");
    return tri__watch_add(m, obj, queue, NULL, NULL, "tri_finq_watch");
}

/* Under the lock: the root scan goes on behind what is taken. */
static struct watch *take_first(struct watches *ws, tri_finq *queue) {
    if (ws->scan && ws->scan == queue->delivered.first) ws->scan = ws->scan->next;
    return tri__watch_pop(&queue->delivered);
}

void *tri_finq_poll(tri_thread *thread, tri_finq *queue) {
    struct mutator *m = tri__mutator_check(thread, "tri_finq_poll");
    NO_SAFEPOINT("tri_finq_poll");
    if (!m) return NULL;
    if (!queue || queue->heap != m->heap) {
        (void)tri__error(TRI_EINVAL, "tri_finq_poll", "queue is NULL, or of another heap; make one with tri_finq_new");
        return NULL;
    }
    if (atomic_load_relaxed(&queue->ndelivered) == 0) return NULL; /* a hint: the next call sees it */
    struct watches *ws = &m->heap->death.watches;
    tri__lock_acquire(&ws->lock);
    struct watch *w = take_first(ws, queue);
    if (w) atomic_sub_relaxed(&queue->ndelivered, 1); /* under the lock */
    tri__lock_release(&ws->lock);
    if (!w) return NULL;
    uintptr_t addr = w->addr;
    tri__fixalloc_put(&ws->fix, w);
    if (m->armed && !heap_fault(m->heap, FAULT_BARE_ROOT)) /* R17: it leaves a root */
        tri__shade_word(m, addr, SLOT_POINTER, NULL);
    return (void *)addr;
}

/* ---- the collector's part ---------------------------------------------------------------------------------------- */

void tri__finalize_scan_begin(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    tri__lock_acquire(&ws->lock);
    ws->scan_queue = ws->queues;
    ws->scan = ws->queues ? ws->queues->delivered.first : NULL;
    tri__lock_release(&ws->lock);
}

/* Nothing is delivered but when objects die, so what is added meanwhile is an empty queue. */
bool tri__finalize_scan(tri_heap *heap, struct marker *mk, uint64_t deadline_ns) {
    struct watches *ws = &heap->death.watches;
    for (;;) {
        tri__lock_acquire(&ws->lock);
        for (int n = 0; n < SLICE_WATCHES && ws->scan_queue; n++) {
            if (ws->scan) {
                tri__marker_candidate(mk, ws->scan->addr);
                ws->scan = ws->scan->next;
            } else {
                ws->scan_queue = ws->scan_queue->next;
                ws->scan = ws->scan_queue ? ws->scan_queue->delivered.first : NULL;
            }
        }
        bool more = ws->scan_queue != NULL;
        tri__lock_release(&ws->lock);
        if (!more) return true;
        tri__stress_delay(heap);
        tri__units_did(SLICE_WATCHES);
        if (heap_is_late(heap, deadline_ns)) return false;
    }
}

void tri__finalize_each(tri_heap *heap, void (*visit)(void *context, const uintptr_t *addr), void *context) {
    for (const tri_finq *q = heap->death.watches.queues; q; q = q->next)
        for (const struct watch *w = q->delivered.first; w; w = w->next) visit(context, &w->addr);
}

void tri__finalize_gate(tri_heap *heap, bool reviving) {
    tri__lock_acquire(&heap->mem.gate);
    check_cheap(heap->gate == GATE_CLOSED, "R7: objects come back after the close only");
    heap->death.reviving = reviving;
    atomic_store_release(&heap->loads_wait, reviving); /* pairs with wait_for_close in inspect.c */
    tri__lock_release(&heap->mem.gate);
    if (!reviving) tri__os_futex_wake_all(&heap->loads_wait);
}

bool tri__finalize_shade(tri_heap *heap, uint64_t deadline_ns) {
    struct watches *ws = &heap->death.watches;
    for (int n = 0; ws->shade; ws->shade = ws->shade->next) { /* the list is the collector's alone */
        tri__marker_shade(&heap->worker, ws->shade->addr);
        tri__units_did(1);
        if (++n % SLICE_WATCHES == 0 && heap_is_late(heap, deadline_ns)) return false;
    }
    return true;
}

bool tri__finalize_deliver(tri_heap *heap, uint64_t deadline_ns) {
    struct watches *ws = &heap->death.watches;
    while (ws->revived.first) {
        tri__lock_acquire(&ws->lock);
        for (int n = 0; n < SLICE_WATCHES && ws->revived.first; n++) {
            struct watch *w = tri__watch_pop(&ws->revived);
            tri_finq *q = w->queue;
            tri__watch_append(&q->delivered, w);
            atomic_add_relaxed(&q->ndelivered, 1); /* under the lock */
        }
        tri__lock_release(&ws->lock);
        tri__stress_delay(heap);
        tri__units_did(SLICE_WATCHES);
        if (ws->revived.first && heap_is_late(heap, deadline_ns)) return false;
    }
    return true;
}
