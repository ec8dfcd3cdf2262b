/* workload.h - what the worker program and the workloads know of each other.
 *
 * A workload is a fixed amount of work with a fixed seed: what it does never depends on the time or on the collector,
 * so its checksum is the same under each. It reports its operations to its threads' probes. */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/adapter.h"
#include "bench/probe.h"

/* What the driver asks for; each workload uses what it understands. */
struct work {
    uint64_t ops;        /* operations, or rounds */
    uint64_t live_bytes; /* lru, faults, tides */
    uint64_t size_bytes; /* alloc: the object's size */
    uint64_t count;      /* store, splay: objects that are kept; 0: their own number */
    unsigned depth;      /* trees, gcbench */
    unsigned nthreads;   /* trees, alloc */
    struct probe probes[PROBE_THREADS];
};

struct workload {
    const char *name;
    uint64_t (*total)(const struct work *work); /* operations that its probes will report, for the progress */
    uint64_t (*run)(ad_thread *thread, struct work *work); /* does them; a checksum of what it saw */
    bool needs_heap; /* false: it runs without a collector in the process, and its thread is NULL */
    bool frees;      /* it calls ad_free for all that it drops: can run where nothing collects */
};

extern const struct workload workload_trees, workload_store, workload_lru, workload_list, workload_alloc,
    workload_faults, workload_tides, workload_gcbench, workload_splay;

/* Operations too short to be timed one by one: `steps` counts them, and each 64th is reported. Also the safepoint poll
 * of loops that do not allocate. */
enum { STEP_OPS = 64 };

__attribute__((noinline, unused)) static void work_step_report(ad_thread *thread, struct probe *probe) {
    probe_op(probe, STEP_OPS);
    ad_poll(thread);
}

static inline void work_step(ad_thread *thread, struct probe *probe, uint64_t *steps) {
    if (__builtin_expect((++*steps & (STEP_OPS - 1)) == 0, 0)) work_step_report(thread, probe);
}

/* xorshift64: the same numbers everywhere. */
static inline uint64_t work_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
