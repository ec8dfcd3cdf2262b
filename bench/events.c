/* events.c - records a heap's events, for curves of mutator utilisation (tools/mmu.py).
 *
 * The hook runs on whichever thread was kept, so it takes a place in an array by one addition and fills it: no lock, no
 * system call, no memory that is not there yet. What comes after the array is full is counted. */
#include "bench/events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/clock.h"

enum { MOST_EVENTS = 1 << 20 };

struct told {
    uint64_t time_ns, ns, thread;
    const char *phase; /* NULL: a pause */
    uint32_t cause;
};
static struct told *told;
static uint64_t ntold, start_ns; /* ntold [atomic, relaxed] read when the threads have ended */

bool events_start(void) {
    told = malloc(MOST_EVENTS * sizeof *told);
    if (!told) return false;
    memset(told, 0, MOST_EVENTS * sizeof *told); /* its pages are there */
    start_ns = clock_posix_ns();
    return true;
}

void events_hook(const tri_event *event, void *user) {
    (void)user;
    if (event->kind != TRI_EVENT_PHASE && event->kind != TRI_EVENT_PAUSE) return;
    uint64_t at = __atomic_fetch_add(&ntold, 1, __ATOMIC_RELAXED);
    if (at >= MOST_EVENTS) return;
    told[at] = (struct told){event->time_ns, event->pause_ns, event->thread_id,
                             event->kind == TRI_EVENT_PHASE ? event->phase : NULL, event->pause_kind};
}

bool events_write(const char *path) {
    static const char *const causes[TRI_PAUSE_KINDS] = {"handshake", "scan", "assist", "sweep",  "wait",
                                                        "nap",       "zero", "lock",   "system", "core"};
    FILE *out = fopen(path, "w");
    if (!out) {
        fprintf(stderr, "%s cannot be written: %s\n", path, strerror(errno));
        return false;
    }
    uint64_t n = ntold < MOST_EVENTS ? ntold : MOST_EVENTS;
    fprintf(out, "run %" PRIu64 " %" PRIu64 "\n", start_ns, clock_posix_ns());
    for (uint64_t i = 0; i < n; i++) {
        const struct told *t = &told[i];
        if (t->phase)
            fprintf(out, "phase %" PRIu64 " %s\n", t->time_ns, t->phase);
        else
            fprintf(out, "pause %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", t->thread, t->time_ns - t->ns, t->time_ns,
                    causes[t->cause]);
    }
    if (ntold > n) fprintf(stderr, "%" PRIu64 " events had no room\n", ntold - n);
    return fclose(out) == 0;
}
