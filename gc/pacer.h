/* pacer.h - when to start a cycle and how much allocating threads must help: arithmetic only, no heap.
 *
 * base      = live + external bytes; all sizes below count both
 * room      = max((base + roots) * percent / 100, min_heap), more where the CPU cap asks for it (limiter.h)
 * goal      = base + room, pulled back to the soft limit, but for a sixteenth of the base or what the limiter allows,
 *             and to the hard limit
 * hard goal = goal + two thirds of its room: how far a cycle may run past its goal before allocations give all they can
 * runway    = bytes that will be allocated while the next cycle marks: the bytes to mark, by the bytes allocated for
 *             each of them if nobody had to assist. A cycle measures that: what a thread allocates in a time that is
 *             its own, by what a thread marks in a time spent marking (Go's "cons/mark"), and by the cores that do
 *             either. Assists slow the former down and help the latter, so without them in it a cycle that came too
 *             late would not be seen to.
 * trigger   = goal - runway, kept between base + 30 % and base + 95 % of the way to the goal
 * assist    = bytes to mark for each byte allocated so that marking ends at the goal. When more is found than was
 *             expected, goal and work are extrapolated: up to all that was there at the cycle's begin, and to the hard
 *             goal. Beyond the goal everything is expected, to be marked until the hard goal.
 *
 * Invariants: I-PACE1 base <= trigger <= goal <= hard goal. I-PACE2 the assist ratio is finite and not negative. */
#ifndef TRI_GC_PACER_H
#define TRI_GC_PACER_H

#include "gc/limiter.h"

struct pacer_config {
    size_t min_heap_bytes; /* goal - base is never below it, but for limits */
    uint32_t growth_percent;
    size_t soft_limit_bytes; /* 0: none */
    size_t hard_limit_bytes; /* 0: none */
};

/* What a cycle has shown. */
struct pacer_cycle {
    size_t live_bytes, root_bytes, external_bytes; /* at its end */
    size_t allocated_bytes, marked_bytes;          /* from its first step to the close, which took wall_ns */
    uint64_t wall_ns;
    uint64_t own_ns;    /* for which threads of the heap's own have marked, together; 0: the program's did it all */
    uint64_t assist_ns; /* for which the program's threads have */
    uint64_t stall_ns;  /* for which they were held back */
    uint32_t nthreads;  /* that allocated meanwhile, and could run side by side */
};

enum { PACER_HISTORY = 4 };

struct pacer {
    size_t live_bytes, root_bytes, external_bytes; /* of the last cycle */
    size_t marked_bytes;
    size_t expected_bytes;         /* to mark in the next one */
    double history[PACER_HISTORY]; /* allocated per byte marked, of the last cycles, the newest first */
    uint32_t nhistory;
    double alloc_per_mark; /* what the trigger counts on */
    size_t base_bytes, trigger_bytes, goal_bytes, hard_goal_bytes;
    bool limited, capped;            /* the goal lies beyond the soft limit, or the growth, to keep to the limiter */
    size_t began_bytes, there_bytes; /* of the running cycle: the size at its begin, and the part of it in the heap */
    double assist_ratio;             /* bytes to mark per byte allocated */
    struct limiter limiter;
};

void tri__pacer_init(struct pacer *pacer, const struct pacer_config *config);
/* At a cycle's end, after the limiter was told: the next goal and trigger. The two halves of it: what there is to learn
 * from the cycle, and what options and figures say, also when an option has changed. */
void tri__pacer_end(struct pacer *pacer, const struct pacer_config *config, const struct pacer_cycle *cycle);
void tri__pacer_learn(struct pacer *pacer, const struct pacer_cycle *cycle);
void tri__pacer_commit(struct pacer *pacer, const struct pacer_config *config);
/* At a cycle's begin: the heap's size, and external bytes. */
void tri__pacer_begin(struct pacer *pacer, size_t heap_bytes, size_t external_bytes);
/* While marking: bytes marked so far, and the heap's size now (with external bytes). Sets assist_ratio. */
void tri__pacer_update(struct pacer *pacer, size_t marked_bytes, size_t total_bytes);

#endif
