/* death.h - what happens to objects that a cycle found unreachable, besides being swept: weak slots are cleared,
 * finalizable objects come back once, dead entries leave weak maps, cleanups are queued.
 *
 *   death.c   the order of these (R7), and who may read what meanwhile
 *   weak.c    weak slots of objects
 *
 * Nothing here allocates while objects die (R19): what death needs was reserved when it was asked for. */
#ifndef TRI_GC_DEATH_H
#define TRI_GC_DEATH_H

#include <trigc.h>
#include "alloc/arena.h"

/* Where the deaths of a cycle are (death.c). */
enum death_step { DEATH_WEAK = 0, DEATH_DONE };

struct death {
    uint32_t has_weak;      /* an object with weak slots was allocated in this heap [atomic] */
    size_t page;            /* where the look at all pages goes on [who runs cycles] */
    enum death_step step;   /* [who runs cycles] */
    uint64_t cleared_slots; /* weak slots that cycles have cleared, ever [atomic] */
};

/* Everything that dies in this cycle, in R7's order; by who runs the cycle, between the close and H5. False: the
 * deadline passed, call it again. */
void tri__death_begin(tri_heap *heap);
bool tri__death(tri_heap *heap, uint64_t deadline_ns);
/* An object that is about to be freed by hand dies now. */
void tri__death_of_freed(tri_heap *heap, uintptr_t addr);
/* World stopped, between cycles: says what contradicts itself. */
void tri__death_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context);

/* weak.c */
/* An object with weak slots is about to be allocated. */
void tri__weak_note(tri_heap *heap);
/* Clears each weak slot of a marked object that names an unmarked one, from heap->death.page on. False: the deadline
 * passed. */
bool tri__weak_clear_dead(tri_heap *heap, uint64_t deadline_ns);
/* Clears each weak slot that names the object at `addr`. */
void tri__weak_clear_one(tri_heap *heap, uintptr_t addr);
void tri__weak_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context);

#endif
