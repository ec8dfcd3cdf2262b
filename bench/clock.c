/* clock.c - choosing and calibrating the clock of clock.h. */
#include "bench/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_clock bench_clock = {UINT64_C(1) << 32, 0, CLOCK_MONOTONIC};

#if defined(__x86_64__)
static int counter_is_invariant(void) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return 0;
    char line[4096];
    int found = 0;
    while (!found && fgets(line, sizeof line, f))
        found = strstr(line, " constant_tsc") != NULL && strstr(line, " nonstop_tsc") != NULL;
    fclose(f);
    return found;
}

/* Both clocks read as close together as three tries get. */
static void read_both(uint64_t *ticks, uint64_t *ns) {
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        uint64_t before = __builtin_ia32_rdtsc();
        uint64_t now = clock_posix_ns();
        uint64_t after = __builtin_ia32_rdtsc();
        if (after - before < best) {
            best = after - before;
            *ticks = before + (after - before) / 2;
            *ns = now;
        }
    }
}
#endif

void bench_clock_init(void) {
    const char *choice = getenv("BENCH_CLOCK");
    if (choice && strcmp(choice, "cpu") == 0) bench_clock.id = CLOCK_THREAD_CPUTIME_ID;
    if (choice && (strcmp(choice, "cpu") == 0 || strcmp(choice, "posix") == 0)) return;
#if defined(__x86_64__)
    if (!counter_is_invariant()) return;
    uint64_t ticks[2], ns[2];
    read_both(&ticks[0], &ns[0]);
    while (clock_posix_ns() - ns[0] < 20000000u) {}
    read_both(&ticks[1], &ns[1]);
    bench_clock.mult = (uint64_t)((double)(ns[1] - ns[0]) / (double)(ticks[1] - ticks[0]) * 4294967296.0);
    bench_clock.is_counter = 1;
#endif
}
