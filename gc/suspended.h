/* suspended.h - stacks of both kinds as rule R8 sees them: value stacks (vmstack.c) and native stacks of coroutines
 * (native.c), which run on one thread or are suspended in the heap's list. */
#ifndef TRI_GC_SUSPENDED_H
#define TRI_GC_SUSPENDED_H

#include "gc/heap.h"

void tri__stack_link(struct tri_vmstack **list, struct tri_vmstack *stack);
void tri__stack_unlink(struct tri_vmstack **list, struct tri_vmstack *stack);

/* The roots lock, for a thread that wants a suspended stack: the collector gives way. */
void tri__suspended_lock(tri_heap *heap);
void tri__suspended_unlock(tri_heap *heap);

/* The stack stops running on m: nobody's from here on. Requires the lock. */
void tri__suspended_put(struct mutator *m, struct tri_vmstack *stack);
/* R8: before m runs, reads or writes it. Requires the lock. */
void tri__suspended_make_safe(struct mutator *m, struct tri_vmstack *stack);
/* It leaves the list: it runs on `owner` from here on, or is to be forgotten (NULL). Requires the lock. */
void tri__suspended_take(tri_heap *heap, struct tri_vmstack *stack, struct mutator *owner);

/* True from m's answer to H3 to that to H5: what is scanned by m counts in this cycle. */
static inline bool stack_is_black(const struct mutator *m) {
    return m->armed && !m->grey_stack;
}

/* Relaxed: m is there if the caller put it there. What is done to a stack that is not the caller's is done under the
 * lock. */
static inline bool stack_runs_on(const struct tri_vmstack *stack, const struct mutator *m) {
    return atomic_load_relaxed(&stack->owner) == m;
}

#endif
