/* probe.h - what a mutator felt: the time between two of its operations, and how far it has come.
 *
 * A workload calls probe_op after each operation (or after each batch of `ops` small ones). The gap since the last
 * call goes into the thread's own histogram: whatever kept the thread from running is in it, be it the collector, the
 * system or the operation itself. Progress goes to a page shared with the driver, so that showing it costs the
 * measured thread one relaxed store and never a system call.
 *
 * The worst gap is also kept without the time for which the thread was runnable but had no core (the kernel's run
 * delay): what other programs took from it, and the collector's own threads too. It is read after gaps of 50 us and
 * more only, so what many shorter waits add up to between two of those is taken off the later one.
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
    int schedstat_fd; /* this thread's; -1: the kernel has none */
    uint64_t run_delay_ns;
    uint64_t worst_on_core_ns;
    uint64_t worst_on_core_at; /* operations done by then: says which phase of a workload it was */
};

enum { PROBE_LONG_NS = 50000 };

/* Before the first operation, on the thread itself. */
void probe_start(struct probe *p);

/* A gap of PROBE_LONG_NS or more: how much of it was waiting for a core? Its own time counts for no gap. */
void probe_long_gap(struct probe *p, uint64_t gap_ns);

static inline void probe_op(struct probe *p, uint64_t ops) {
    uint64_t now = clock_ticks();
    uint64_t gap_ns = clock_ns(now - p->last_ticks);
    hdr_record(&p->gaps, gap_ns);
    p->ops += ops;
    __atomic_store_n(p->done, p->ops, __ATOMIC_RELAXED);
    p->last_ticks = now;
    if (__builtin_expect(gap_ns >= PROBE_LONG_NS, 0)) probe_long_gap(p, gap_ns);
}

#endif
