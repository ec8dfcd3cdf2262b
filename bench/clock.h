/* clock.h - the clock of the benchmarks: monotonic, cheap enough to be read around every operation.
 *
 * On x86-64 with an invariant counter (constant_tsc and nonstop_tsc) it is the processor's counter, calibrated against
 * CLOCK_MONOTONIC for 20 ms at the start: a read costs about a third of clock_gettime. Elsewhere, and with
 * BENCH_CLOCK=posix in the environment, it is clock_gettime itself. With BENCH_CLOCK=cpu it is the thread's own
 * processor time: on a busy machine that shows what an operation costs, though nothing of what it waits for. Intervals
 * only, read by one thread; the origin means nothing. */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

struct bench_clock {
    uint64_t mult; /* nanoseconds per tick, as a fraction of 2^32 */
    int is_counter;
    clockid_t id; /* if it is none */
};
extern struct bench_clock bench_clock;

/* Chooses and calibrates. Once, before the first read. */
void bench_clock_init(void);

static inline uint64_t clock_of_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_posix_ns(void) {
    return clock_of_ns(CLOCK_MONOTONIC);
}

static inline uint64_t clock_ticks(void) {
#if defined(__x86_64__)
    if (bench_clock.is_counter) return __builtin_ia32_rdtsc();
#endif
    return clock_of_ns(bench_clock.id);
}

/* A difference of two reads in nanoseconds. */
static inline uint64_t clock_ns(uint64_t ticks) {
    return (uint64_t)(((unsigned __int128)ticks * bench_clock.mult) >> 32);
}

#endif
