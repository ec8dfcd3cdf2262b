/* death.c - what dies in a cycle, in rule R7's order; see death.h.
 *
 * Between the close and H5: every reachable object is marked, every mutator is armed and holds marked objects only, and
 * loads that make references out of what keeps nothing alive are refused what is unmarked (R5). So nobody but the
 * collector can reach what is dead, and the order below needs no handshake of its own.
 *
 * Lock ranks: those of the parts. */
#include "alloc/base/check.h"
#include "gc/heap.h"

void tri__death_begin(tri_heap *heap) {
    heap->death.step = DEATH_WEAK;
    heap->death.page = 0;
}

bool tri__death(tri_heap *heap, uint64_t deadline_ns) {
    struct death *d = &heap->death;
    if (d->step == DEATH_WEAK) { /* R7 */
        if (!tri__weak_clear_dead(heap, deadline_ns)) return false;
        d->step = DEATH_DONE;
    }
    return true;
}

void tri__death_of_freed(tri_heap *heap, uintptr_t addr) {
    tri__weak_clear_one(heap, addr);
}

void tri__death_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context) {
    tri__weak_verify(heap, say, context);
}
