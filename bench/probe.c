/* probe.c - what probe.h does besides recording: how long the thread waited for a core. */
#include "bench/probe.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The second number of schedstat: nanoseconds spent runnable on a queue. 0 where it cannot be read. */
static uint64_t run_delay_read(const struct probe *p) {
    char text[96];
    unsigned long long running, waiting;
    ssize_t n = p->schedstat_fd >= 0 ? pread(p->schedstat_fd, text, sizeof text - 1, 0) : 0;
    if (n <= 0) return 0;
    text[n] = '\0';
    return sscanf(text, "%llu %llu", &running, &waiting) == 2 ? waiting : 0;
}

void probe_start(struct probe *p) {
    p->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    p->run_delay_ns = run_delay_read(p);
    p->last_ticks = clock_ticks();
}

void probe_long_gap(struct probe *p, uint64_t gap_ns) {
    uint64_t delay_ns = run_delay_read(p), waited_ns = delay_ns - p->run_delay_ns;
    uint64_t on_core_ns = waited_ns < gap_ns ? gap_ns - waited_ns : 0;
    p->run_delay_ns = delay_ns;
    if (on_core_ns > p->worst_on_core_ns) {
        p->worst_on_core_ns = on_core_ns;
        p->worst_on_core_at = p->ops;
    }
    p->last_ticks = clock_ticks();
}
