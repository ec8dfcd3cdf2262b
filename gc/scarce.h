/* scarce.h - cycles where the program's threads need all cores; see scarce.c. */
#ifndef TRI_GC_SCARCE_H
#define TRI_GC_SCARCE_H

#include <stdbool.h>
#include <stdint.h>
#include "gc/heap.h"

/* Between two pieces of work of a thread of the heap's own, which runs since *since_ns: where the program's threads
 * need all cores, whoever waits for this one goes first after each short slice. For how long it was away. */
uint64_t tri__give_way(tri_heap *heap, uint64_t *since_ns);

/* Whether the cycle that is under way is lent to the program's threads: a hint for who does not hold the cycle lock. */
static inline bool tri__is_lent(const tri_heap *heap) {
    return atomic_load_relaxed(&heap->lent) != LENT_NOT;
}

/* Whether allocations pay by step.c's rules. While a lent cycle sweeps, or is about to be over, and the next is due,
 * that is asked for as everywhere: the collector ends the sweep, and who is beyond the goal naps. */
static inline bool tri__is_paid_in_slices(tri_heap *heap) {
    if (TRI_UNLIKELY(tri__is_stepped(heap))) return true;
    if (TRI_LIKELY(!tri__is_lent(heap))) return false;
    enum phase phase = heap_phase(heap);
    if (phase != PHASE_SWEEP && phase != PHASE_IDLE) return true;
    return heap_total_bytes(heap) < atomic_load_relaxed(&heap->trigger_bytes); /* counters */
}

/* Whether a cycle that nobody waits for is to be lent. Any thread. */
bool tri__cycle_is_to_lend(tri_heap *heap);
/* Lends what is handed over. Requires the cycle lock. */
void tri__cycle_lend(tri_heap *heap);
/* A thread's slice of a lent cycle, in a blocking region. False: somebody else runs it, or waits for it. */
bool tri__lent_slice(tri_heap *heap, uint64_t deadline_ns);
/* The collector's part in a lent cycle: rests, and then runs a slice of it, if nobody else did. Requires the cycle
 * lock; releases it meanwhile. */
void tri__lent_watch(tri_heap *heap);

/* collector.c, for scarce.c. Require the cycle lock. */
void tri__runner_set(tri_heap *heap, enum cycle_runner runner);
void tri__cycle_end(tri_heap *heap);
void tri__collector_wake(tri_heap *heap);

#endif
