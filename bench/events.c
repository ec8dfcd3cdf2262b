/* events.c - keeps what a collector tells of its pauses, and writes it down at the end (tools/mmu.py and mmu.c read
 * it).
 *
 * What is told is told on whichever thread was kept, or with all threads stopped, so it takes a place in an array by
 * one addition and fills it: no lock, no system call. The array's pages come as they are filled, one for 128 events, so
 * that the process is larger by 32 bytes an event and no more. What comes after the array is full is counted. */
#include "bench/events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/clock.h"

enum { MOST_EVENTS = 1 << 20 };

struct told {
    uint64_t time_ns, ns; /* its end, and its length; 0 for a phase */
    const char *name;     /* of the cause, or the phase */
    uint32_t thread;
    bool is_phase;
};
static struct told *told;
static uint64_t ntold, start_ns; /* ntold [atomic, relaxed] read when the threads have ended */

bool events_start(void) {
    told = malloc(MOST_EVENTS * sizeof *told);
    start_ns = clock_posix_ns();
    return told != NULL;
}

bool events_started(void) {
    return told != NULL;
}

static void keep(struct told event) {
    if (!told) return;
    uint64_t at = __atomic_fetch_add(&ntold, 1, __ATOMIC_RELAXED);
    if (at < MOST_EVENTS) told[at] = event;
}

void events_pause(uint64_t thread, uint64_t end_ns, uint64_t ns, const char *cause) {
    keep((struct told){end_ns, ns, cause, (uint32_t)thread, false});
}

void events_phase(uint64_t time_ns, const char *name) {
    keep((struct told){time_ns, 0, name, 0, true});
}

bool events_write(const char *path) {
    FILE *out = fopen(path, "w");
    if (!out) {
        fprintf(stderr, "%s cannot be written: %s\n", path, strerror(errno));
        return false;
    }
    uint64_t n = ntold < MOST_EVENTS ? ntold : MOST_EVENTS;
    fprintf(out, "run %" PRIu64 " %" PRIu64 "\n", start_ns, clock_posix_ns());
    for (uint64_t i = 0; i < n; i++) {
        const struct told *t = &told[i];
        if (t->is_phase)
            fprintf(out, "phase %" PRIu64 " %s\n", t->time_ns, t->name);
        else
            fprintf(out, "pause %" PRIu32 " %" PRIu64 " %" PRIu64 " %s\n", t->thread, t->time_ns - t->ns, t->time_ns,
                    t->name);
    }
    if (ntold > n) fprintf(out, "lost %" PRIu64 "\n", ntold - n);
    return fclose(out) == 0;
}
