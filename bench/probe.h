/* probe.h - what a mutator felt: the time between two of its operations, and how far it has come.
 *
 * A workload calls probe_op after each operation (or after each batch of `ops` small ones). The gap since the last
 * call goes into the thread's own histogram: whatever kept the thread from running is in it, be it the collector, the
 * system or the operation itself. Progress goes to a page shared with the driver, so that showing it costs the
 * measured thread one relaxed store and never a system call.
 *
 * One probe has one thread. */
#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

#include <stdint.h>

#include "bench/clock.h"
#include "bench/hdr.h"

enum { PROBE_THREADS = 4 };

/* Shared with the driver. A cache line a thread. */
struct progress {
    struct {
        uint64_t done; /* [atomic, relaxed] the driver only shows it */
        uint64_t pad[7];
    } thread[PROBE_THREADS];
};

struct probe {
    uint64_t last_ticks;
    struct hdr gaps;
    uint64_t *done;
    uint64_t ops;
};

static inline void probe_start(struct probe *p) {
    p->last_ticks = clock_ticks();
}

static inline void probe_op(struct probe *p, uint64_t ops) {
    uint64_t now = clock_ticks();
    hdr_record(&p->gaps, clock_ns(now - p->last_ticks));
    p->ops += ops;
    __atomic_store_n(p->done, p->ops, __ATOMIC_RELAXED);
    p->last_ticks = now;
}

#endif
