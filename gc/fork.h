/* fork.h - code that a fork must not cut in two (R20): what has a span, a slot's bits or pages in hand. NO_FORK stands
 * around it, to the end of its block. A fork waits until nobody is in such a section, and nobody enters one meanwhile;
 * so a section is entered with no lock held and reaches no safepoint (I-FORK2), and is short. See fork.c.
 *
 *   NO_FORK(os)     of an attached thread, by itself: a flag of its own, no shared line is written. Nests.
 *   NO_FORK_REST()  of everybody else: collector, scavenger, threads that are not attached. Does not nest. */
#ifndef TRI_GC_FORK_H
#define TRI_GC_FORK_H

#include <stdbool.h>
#include <stdint.h>
#include <trigc.h>
#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"

extern uint32_t tri__forking;         /* futex: a thread is about to fork [atomic] */
extern uint32_t tri__unforkable_rest; /* threads in a section of the second kind [atomic] */

void tri__unforkable_wait(uint32_t *unforkable);
void tri__unforkable_check(void);

/* `unforkable` is the calling thread's own. */
static inline uint32_t *unforkable_enter(uint32_t *unforkable) {
    uint32_t depth = atomic_load_relaxed(unforkable); /* own */
    if (depth) {
        atomic_store_relaxed(unforkable, depth + 1); /* own; a fork looks for zero */
        return unforkable;
    }
    tri__unforkable_check();
    atomic_swap_seq(unforkable, 1); /* before the look at tri__forking; pairs with wait_for_sections in fork.c */
    if (TRI_UNLIKELY(atomic_load_seq(&tri__forking))) tri__unforkable_wait(unforkable);
    return unforkable;
}
static inline void unforkable_leave(uint32_t **unforkable) {
    atomic_store_release(*unforkable, atomic_load_relaxed(*unforkable) - 1); /* own; pairs with wait_for_sections */
}

void tri__unforkable_enter_rest(void);
void tri__unforkable_leave_rest(const bool *unused);
static inline bool unforkable_enter_rest(void) {
    tri__unforkable_enter_rest();
    return true;
}

#define NO_FORK(os_) \
    __attribute__((cleanup(unforkable_leave), unused)) uint32_t *no_fork_here = unforkable_enter(&(os_)->unforkable)
#define NO_FORK_REST() \
    __attribute__((cleanup(tri__unforkable_leave_rest), unused)) const bool no_fork_rest = unforkable_enter_rest()

/* A heap is known to fork from the end of its creation to the beginning of its end. */
void tri__fork_add_heap(tri_heap *heap);
void tri__fork_remove_heap(tri_heap *heap);

/* The calling thread is the library's, or runs what is the collector's: a fork on it leaves a child without heaps. */
void tri__fork_forbid(const char *where);

/* In a child, before the first cycle and before the end: gives back what the threads that it has not had in hand. By
 * who runs cycles. */
void tri__fork_settle(tri_heap *heap);

#endif
