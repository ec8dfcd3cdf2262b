/* suspended.h - stacks of both kinds as rule R8 sees them: value stacks (vmstack.c) and native stacks of coroutines
 * (native.c), which run on one thread or are suspended in the heap's list. */
#ifndef TRI_GC_SUSPENDED_H
#define TRI_GC_SUSPENDED_H

#include "gc/heap.h"

void tri__stack_link(struct tri_vmstack **list, struct tri_vmstack *stack);
void tri__stack_unlink(struct tri_vmstack **list, struct tri_vmstack *stack);
/* Into the heap's list, and out of it. Nothing locked. */
void tri__stack_enlist(tri_heap *heap, struct tri_vmstack *stack);
void tri__stack_delist(tri_heap *heap, struct tri_vmstack *stack);

/* Other values of a stack's owner. */
#define STACK_SUSPENDED ((struct mutator *)0)
#define STACK_HELD ((struct mutator *)(void *)&tri__stack_states[0]) /* under the roots lock: somebody makes it safe */
#define STACK_GONE \
    ((struct mutator *)(void *)&tri__stack_states[1]) /* it ran on a thread that a fork's child has not */
extern char tri__stack_states[2];

/* The stack stops running on m: nobody's from here on. No lock. */
void tri__suspended_put(struct mutator *m, struct tri_vmstack *stack);
/* It runs on m from here on, safe by R8. False: it is not suspended. A lock only while the collector scans it. */
bool tri__suspended_take(struct mutator *m, struct tri_vmstack *stack);

/* The roots lock, for a thread that wants a suspended stack: the collector gives way. */
void tri__suspended_lock(tri_heap *heap);
void tri__suspended_unlock(tri_heap *heap);
/* Keeps a suspended stack from running. False: it is not suspended. Requires the lock until it is released. */
bool tri__suspended_hold(struct tri_vmstack *stack);
void tri__suspended_release(struct tri_vmstack *stack);
/* R8: before m reads or writes a stack that it holds, or runs it. For how long that kept the thread, which who calls
 * tells when no lock is held; 0: there was nothing to do. */
uint64_t tri__suspended_make_safe(struct mutator *m, struct tri_vmstack *stack);
static inline void suspended_tell(const struct mutator *m, uint64_t ns) {
    if (TRI_UNLIKELY(ns > 0)) tri__stats_pause_of(m->heap, m, TRI_PAUSE_SCAN, ns);
}
/* A held or running stack is to be forgotten. */
void tri__suspended_uncount(tri_heap *heap, struct tri_vmstack *stack);

/* True from m's answer to H3 to that to H5: what is scanned by m counts in this cycle. */
static inline bool stack_is_black(const struct mutator *m) {
    return m->armed && !m->grey_stack;
}

/* Relaxed: m is there if the caller put it there. */
static inline bool stack_runs_on(const struct tri_vmstack *stack, const struct mutator *m) {
    return atomic_load_relaxed(&stack->owner) == m;
}

/* R8: what is on it was scanned in this cycle by the stack's owner. Release: its copy, if there is one; pairs with
 * is_safe in suspended.c. */
static inline void stack_note_scanned(struct tri_vmstack *stack, uint64_t cycle) {
    atomic_store_release(&stack->scanned_cycle, cycle);
}

#endif
