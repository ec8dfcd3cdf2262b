/* gaps.c - the histogram behind `--gaps`. Its memory is touched before the first step, so that recording one takes no
 * page fault; what a step costs is one reading of the clock and one count.
 *
 * Buckets: a value below 2048 has its own; above, the value shifted down to 11 bits, 1024 buckets a power of two.
 */
#include "gaps.h"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SUB_LOG2 = 11,
    SUB = 1 << SUB_LOG2,
    HALF = SUB / 2,
    TOP_LOG2 = 40,
    NBUCKETS = SUB + (TOP_LOG2 - SUB_LOG2) * HALF
};

static struct {
    uint64_t last_ns, min_ns, max_ns;
    double sum_ns;
    uint64_t *counts;
} gaps;

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static unsigned bucket_of(uint64_t ns) {
    if (ns < SUB) return (unsigned)ns;
    if (ns >= UINT64_C(1) << TOP_LOG2) return NBUCKETS - 1;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - (SUB_LOG2 - 1);
    return SUB + (shift - 1) * HALF + ((unsigned)(ns >> shift) - HALF);
}

bool gaps_start(void) {
    gaps.counts = malloc(NBUCKETS * sizeof *gaps.counts);
    if (gaps.counts == NULL) return false;
    memset(gaps.counts, 0, NBUCKETS * sizeof *gaps.counts);
    gaps.min_ns = UINT64_MAX;
    gaps.max_ns = 0;
    gaps.sum_ns = 0;
    gaps.last_ns = now_ns();
    return true;
}

void gaps_step(void) {
    uint64_t now = now_ns(), gap = now - gaps.last_ns;
    gaps.last_ns = now;
    gaps.counts[bucket_of(gap)]++;
    gaps.sum_ns += (double)gap;
    if (gap > gaps.max_ns) gaps.max_ns = gap;
    if (gap < gaps.min_ns) gaps.min_ns = gap;
}

void gaps_end(void) {
    fprintf(stderr, "gaps %" PRIu64 " %" PRIu64 " %.17g", gaps.max_ns == 0 ? 0 : gaps.min_ns, gaps.max_ns, gaps.sum_ns);
    for (unsigned i = 0; i < NBUCKETS; i++) {
        if (gaps.counts[i] != 0) fprintf(stderr, " %u:%" PRIu64, i, gaps.counts[i]);
    }
    fputc('\n', stderr);
    free(gaps.counts);
    gaps.counts = NULL;
}
