/* mmu.c - which share of a window of time a thread had at least for itself (minimum mutator utilisation; Cheng and
 * Blelloch, 2001), for the page's curves. tools/mmu.py computes the same from the same file, by the same definition,
 * and tests/tools/test_demo.py holds them against each other:
 *
 *  - A pause is what the collector tells: for trigc each kind of its histograms but TRI_PAUSE_WAIT, which the program
 *    asked for; for Boehm the stopped world. Pauses of a thread that overlap, as a scan and the handshake that it is
 *    part of, count once. Windows lie within the run.
 *  - A thread is taken to be there for the whole run; while it is not, nothing keeps it. The curve is that of the
 *    thread that has the worst window.
 *  - Moved to the left, a window that begins inside a pause loses nothing until it begins with it; one that begins
 *    between pauses loses nothing when it is moved to the right, to the next one, unless it could have gained: so a
 *    worst window begins with a pause, or ends with the run, and one place for each pause is looked at. Sums of the
 *    pauses before each of them make a look two binary searches.
 *
 * Windows as long as the run or longer have no place, and no point. */
#include "bench/mmu.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct pause {
    uint64_t thread, start, end;
    uint64_t before; /* pause time of its thread before this one */
};

struct run {
    uint64_t start, end;
    struct pause *pauses; /* by thread, then by time */
    size_t n, capacity;
    bool whole; /* has its two ends, and nothing was lost */
};

static bool run_add(struct run *run, struct pause p) {
    if (run->n == run->capacity) {
        size_t capacity = run->capacity ? run->capacity * 2 : 4096;
        struct pause *pauses = realloc(run->pauses, capacity * sizeof *pauses);
        if (!pauses) return false;
        run->pauses = pauses;
        run->capacity = capacity;
    }
    run->pauses[run->n++] = p;
    return true;
}

static void run_read(struct run *run, FILE *in) {
    char line[160], cause[32];
    uint64_t lost = 0;
    bool fits = true;
    while (fgets(line, sizeof line, in)) {
        struct pause p = {0};
        if (sscanf(line, "run %" SCNu64 " %" SCNu64, &run->start, &run->end) == 2)
            run->whole = run->start < run->end;
        else if (sscanf(line, "pause %" SCNu64 " %" SCNu64 " %" SCNu64 " %31s", &p.thread, &p.start, &p.end, cause) ==
                 4)
            fits &= strcmp(cause, "wait") == 0 || run_add(run, p);
        else
            (void)sscanf(line, "lost %" SCNu64, &lost);
    }
    run->whole &= fits && lost == 0;
}

static int by_thread_and_time(const void *a, const void *b) {
    const struct pause *p = a, *q = b;
    if (p->thread != q->thread) return p->thread < q->thread ? -1 : 1;
    return (p->start > q->start) - (p->start < q->start);
}

/* One for those that overlap or touch, with the sums before them. */
static void run_merge(struct run *run) {
    size_t n = 0;
    struct pause *last = NULL;
    if (run->n) qsort(run->pauses, run->n, sizeof run->pauses[0], by_thread_and_time);
    for (size_t i = 0; i < run->n; i++) {
        struct pause p = run->pauses[i];
        bool same = last && last->thread == p.thread;
        if (same && p.start <= last->end) {
            if (p.end > last->end) last->end = p.end;
            continue;
        }
        p.before = same ? last->before + (last->end - last->start) : 0;
        last = &run->pauses[n++];
        *last = p;
    }
    run->n = n;
}

/* Pause time up to `time` of the thread whose n pauses these are. */
static uint64_t paused_before(const struct pause *pauses, size_t n, uint64_t time) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pauses[middle].start <= time)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return 0;
    const struct pause *p = &pauses[low - 1];
    return p->before + (time < p->end ? time : p->end) - p->start;
}

/* The most that one thread was kept in a window. */
static uint64_t worst_of_thread(const struct run *run, const struct pause *pauses, size_t n, uint64_t window) {
    uint64_t worst = 0, last = run->end - window;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = pauses[i].start;
        if (at < run->start) at = run->start;
        if (at > last) at = last;
        uint64_t paused = paused_before(pauses, n, at + window) - paused_before(pauses, n, at);
        if (paused > worst) worst = paused;
    }
    return worst;
}

static double utilisation(const struct run *run, uint64_t window) {
    uint64_t worst = 0;
    for (size_t first = 0, end = 0; first < run->n; first = end) {
        while (end < run->n && run->pauses[end].thread == run->pauses[first].thread) end++;
        uint64_t paused = worst_of_thread(run, run->pauses + first, end - first, window);
        if (paused > worst) worst = paused;
    }
    return 1 - (double)worst / (double)window;
}

unsigned mmu_curve(const char *path, struct mmu_point points[MMU_WINDOWS]) {
    struct run run = {.whole = false};
    unsigned n = 0;
    FILE *in = fopen(path, "r");
    if (!in) return 0;
    run_read(&run, in);
    fclose(in);
    run_merge(&run);
    for (int i = 0; run.whole && i < MMU_WINDOWS; i++) {
        uint64_t window_ns = (uint64_t)pow(10, 5 + i / 4.0);
        if (window_ns < run.end - run.start) points[n++] = (struct mmu_point){window_ns, utilisation(&run, window_ns)};
    }
    free(run.pauses);
    return n;
}

void mmu_json(FILE *out, const char *path) {
    struct mmu_point points[MMU_WINDOWS];
    unsigned n = mmu_curve(path, points);
    fputc('[', out);
    for (unsigned i = 0; i < n; i++)
        fprintf(out, "%s[%" PRIu64 ",%.9f]", i ? "," : "", points[i].window_ns, points[i].share);
    fputc(']', out);
}
