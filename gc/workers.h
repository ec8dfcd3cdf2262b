/* workers.h - the threads that mark beside the collector's own.
 *
 * Owns: their number, their threads and markers. A mark phase begins with the collector alone; when it still has work
 * after a slice it calls a worker, and one more after each slice, up to the number that config.workers says (the
 * collector is one of them; a quarter of the processors, at least one, unless it was set). Threads are started by the
 * first phase that needs them and park afterwards (work.h) until the heap ends. A cycle that a heap's only thread runs
 * itself, or that is done in slices, calls none.
 *
 * Invariants: I-WKR1 (R3) workers mark only while the list is open, which a round's begin finds closed. I-WKR2 what a
 * worker has counted is told before it counts as idle. Lock ranks: none of its own; work. */
#ifndef TRI_GC_WORKERS_H
#define TRI_GC_WORKERS_H

#include "alloc/base/os.h"
#include "gc/mark.h"

enum { MAX_WORKERS = 256 };

struct mark_worker {
    tri_heap *heap;            /* [const] */
    struct marker marker;      /* [its thread] */
    struct page_set page_set;  /* [its thread] */
    struct work_waiter waiter; /* [work lock, atomic] */
    struct os_thread thread;   /* [collector] */
};

struct workers {
    uint32_t nstarted;                         /* threads [collector] */
    bool called;                               /* in this mark phase [collector] */
    uint64_t traced_ns;                        /* stats.worker_ns at the last trace line [who runs cycles] */
    struct work_waiter waiter;                 /* the collector's own */
    struct mark_worker *each[MAX_WORKERS - 1]; /* [collector] */
};

/* The number of markers that a heap has unless it is told another. */
uint32_t tri__workers_default(void);
/* Ends the threads. Between cycles, by whoever runs them or destroys the heap. */
void tri__workers_stop(tri_heap *heap);

/* In a fork's child: none is started, and nobody waits for work. */
void tri__workers_after_fork(tri_heap *heap);

/* The collector has marked for a slice and is not done: one more worker, if there may be. */
void tri__workers_call(tri_heap *heap);
/* The collector has nothing left: true if no worker has either, and none will until the next call. Else it has waited,
 * parked, for something to do, for a millisecond at most. */
bool tri__workers_settled(tri_heap *heap);
/* Tells what a marker has counted: to the cycle, the statistics, and as credit for assists. */
void tri__workers_tell(tri_heap *heap, struct marker *marker);

#endif
